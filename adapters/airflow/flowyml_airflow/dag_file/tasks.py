"""The tasks of a DAG file as text: one for each step, those of loops and branches, and the dependencies.

Every name that a user chose becomes a literal written by ``layout``, or an identifier made by ``Names``.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.groups import Branch, Loop, Section
from flowyml.plan.layout import LINE_LENGTH, FreeNames, Group, Pair, Part, Text, source, text_literal, value
from flowyml.plan.model import Constant, FromEither, FromItem, FromParameter, FromStep, Plan, Source, Step
from flowyml.plan.names import identifier
from flowyml_airflow.dag_file.arguments import asks_for_pod, called_back, pod, retries
from flowyml_airflow.dag_file.docs import step_docs, together_docs
from flowyml_airflow.dag_file.operators import Imports, arguments_of, keywords
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.names import RETURNED, START_TASK
from flowyml_airflow.options import STEP_ARGUMENTS, TASK_ARGUMENTS, TASK_CALLBACKS, step_options
from flowyml_airflow.schedule import delta
from flowyml_airflow.watching import unsettled, watched

__all__ = ["TaskTexts"]

_RESERVED = frozenset({
    "ARTIFACTS", "ARTIFACT_LINKS", "BaseOperator", "BaseOperatorLink", "CODE", "Code", "CronTriggerTimetable", "DAG",
    "DeltaTriggerTimetable", "ExternalDag", "Link", "PYTHON", "Param", "Path", "RUNTIME", "Start", "Step", "Together",
    "TriggerDagRunOperator", "annotations", "backoff", "bundle", "callback", "datetime", "on_end", "pod", "run_path",
    "sha256", "signature", "stop", "sys", "timedelta", "timezone", "with_links", "worker",
})  # fmt: skip
_RESERVED_BY_FLOWS = frozenset({
    "BaseBranchOperator", "Choose", "Items", "ItemStep", "ItemTogether", "Label", "Settled", "TaskGroup", "Watcher",
    "item", "task_group",
})  # fmt: skip
# Makes a task run at the end: Airflow then ends the run as if the task did not exist.
_TEARDOWN = ".as_teardown()"


class _Names(FreeNames):
    """Variables for the tasks: all different, and none hides another name."""

    def __init__(self, plan: Plan, graph: TaskGraph) -> None:
        reserved = _RESERVED | _RESERVED_BY_FLOWS if graph.has_control_flow else _RESERVED
        super().__init__([*reserved, *keyword.kwlist, *dir(builtins)])
        self.imports = Imports(plan, self.fresh)
        self.start = self.fresh("start")
        alone = [task for task in graph.steps.values() if task.kind == "step"]
        self._tasks = {task: self.fresh(identifier(task.name)) for task in alone}
        for task in graph.tasks:
            if task not in self._tasks:
                self._tasks[task] = self.fresh(identifier(graph.id(task)))
        self.groups = {name: self.fresh(identifier(group)) for name, group in graph.ids.groups.items()}
        self.watcher, self.settled, self.others = map(self.fresh, ("watcher", "settled", "others"))

    def __getitem__(self, task: Task) -> str:
        return self._tasks[task]

    def of(self, tasks: Iterable[Task]) -> list[str]:
        """Return the variables of some tasks."""
        return [self._tasks[task] for task in tasks]


class TaskTexts:
    """The text of the tasks of one plan; with ``links`` they announce the links to their outputs."""

    def __init__(self, graph: TaskGraph, *, links: bool = False) -> None:
        self.graph = graph
        self.plan = graph.plan
        self.names = _Names(self.plan, graph)
        self.names.imports.output = self._left
        self.unsettled, self.watched = unsettled(graph), watched(graph)
        self._has_links = links

    def text(self) -> Iterator[str]:
        """Yield all lines within the ``with DAG(…):``."""
        for section in self.graph.sections:
            yield _line(self._section(section))
        written: set[str] = set()
        for task in self.graph.tasks:
            loop = self.graph.loop(task)
            if loop is None:
                yield _line(self._assigned(task))
            elif loop.name not in written:
                written.add(loop.name)
                yield from self._loop(loop)
        if self._has_links:
            yield "\n" + "".join(map(_line, self._links()))
        waits = list(self._waits())
        if self.plan.hooks:
            yield _line(Pair(f"{self.names.start} = ", self._start()))
            waits.insert(0, Pair(f"{self.names.start} >> ", _one_or_list(self.names.of(self.graph.roots()))))
        if self.unsettled:
            yield _line(_helper(self.names.settled, "Settled", self.graph.ids.settled, "all_done"))
        if self.watched:
            yield _line(_helper(self.names.watcher, "Watcher", self.graph.ids.watcher, "one_failed"))
        if waits:
            yield "\n" + "".join(map(_line, waits))

    # Tasks.

    def _section(self, section: Section) -> Part:
        """Return the task group of a pipeline within the pipeline."""
        arguments: list[Part] = [text_literal(self.graph.ids.groups[section.name]), "prefix_group_id=False"]
        arguments += [f"tooltip={text_literal(section.description.partition(chr(10))[0] or section.pipeline)}"]
        arguments += self._within(section.parent, "parent_group")
        return Group(f"{self.names.groups[section.name]} = TaskGroup(", arguments, ")")

    def _within(self, group: str, argument: str = "task_group") -> list[Part]:
        section = self.graph.section(group)
        return [f"{argument}={self.names.groups[section.name]}"] if section else []

    def _assigned(self, task: Task) -> Part:
        within = self._within(self.graph.group(task))
        match task.kind:
            case "step" if self.graph.is_operator(task):
                arguments = [*self._operator(task), *keywords(self._handed(task)), *within]
                call = Group(f"{self._kind(task)}(", arguments, self._end(task))
            case "step" if (external := self.graph.external_dag(task)) is not None:
                options = [Pair(f"{name}=", value(setting)) for name, setting in external.items()]
                call = Group("ExternalDag(", [*self._step(task), *options, *within], self._end(task))
            case "step" | "together":
                kind = "Step(" if task.kind == "step" else "Together("
                call = Group(kind, [*self._worked(task), *within], self._end(task))
            case "items":
                call = Group("Items(", [*self._items(task), *within], self._end(task))
            case _:
                call = Group("Choose(", [*self._choice(task), *within], self._end(task))
        return Pair(f"{self.names[task]} = ", call)

    def _end(self, task: Task) -> str:
        return f"){_TEARDOWN}" if self.graph.is_cleanup(task) else ")"

    def _loop(self, loop: Loop) -> Iterator[str]:
        """Yield a mapped task for a loop of one step, otherwise a mapped task group."""
        members = self.graph.members(loop)
        if any(map(self.graph.is_operator, members)):
            yield _line(self._mapped_operator(loop, members))
            if self.graph.is_cleanup(members[0]):
                yield _line(f"{self.names[members[0]]}{_TEARDOWN}")
            return
        items = self._labels(loop)
        label = ['map_index_template="{{ task.item }}"']
        at_once = [f"max_active_tis_per_dagrun={loop.max_parallel}"] if loop.max_parallel is not None else []
        if len(members) == 1:
            task = members[0]
            arguments = [*self._worked(task), *label, *at_once, *self._within(loop.parent)]
            mapped = Group(f"{_item_class(task)}.partial(", arguments, f").expand(item={items})")
            yield _line(Pair(f"{self.names[task]} = ", mapped))
            if self.graph.is_cleanup(task):
                yield _line(f"{self.names[task]}{_TEARDOWN}")
            return
        made = self.graph.ids.groups[loop.name]
        function = self.names.groups[loop.name]
        group: list[Part] = [
            f"group_id={text_literal(made)}",
            "prefix_group_id=False",
            f"tooltip={text_literal(loop.name)}",
        ]
        group += self._within(loop.parent, "parent_group")
        yield f"\n{_line(Group('@task_group(', group, ')'))}    def {function}(item):\n"
        for task in members:
            if task.kind == "choice":
                call = Group("Choose(", [*self._choice(task), *label, *at_once, "item=item"], self._end(task))
            else:
                arguments = [*self._worked(task), "item=item", *label, *at_once]
                call = Group(f"{_item_class(task)}(", arguments, self._end(task))
            yield _line(Pair(f"{self.names[task]} = ", call), 2)
        names = self.names.of(members)
        yield _line(_tuple("return ", names, ""), 2) + "\n"
        yield _line(_tuple("", names, f" = {function}.expand(item={items})"))

    def _labels(self, loop: Loop) -> str:
        labels = self.graph.written_labels(loop)
        if labels is None:
            return f"{self.names[Task('items', loop.name)]}.output"
        return source(value(labels))

    def _worked(self, task: Task) -> Iterator[Part]:
        """Return the arguments of a task that runs steps."""
        return self._step(task) if task.kind == "step" else self._together(task)

    def _together(self, task: Task) -> Iterator[Part]:
        """Yield the arguments of an execution group's task. It retries its steps itself, so Airflow runs it once."""
        together, steps = self.graph.structure.execution_groups[task.name], self.graph.runs(task)
        options = {name: option for step in steps for name, option in step_options(step).items()}
        yield from self._identity(task)
        yield Pair("steps=", value([step.name for step in steps]))
        yield from self._inputs_of_task(task)
        yield Pair("doc_md=", Text(together_docs(steps, options)))
        if (timeout := self.graph.timeout(task)) is not None:
            yield f"execution_timeout={delta(timeout)}"
        yield from self._asked(task, options, together.resources)

    def _step(self, task: Task) -> Iterator[Part]:
        """Yield the arguments of a step's task."""
        step = self.graph.step(task)
        options = step_options(step)
        yield from self._identity(task)
        yield f"step={text_literal(step.name)}"
        if len(step.outputs) > 1:
            yield "multiple_outputs=True"
        if inputs := list(self._inputs(step)):
            yield Pair("inputs=", Group("{", inputs, "}"))
        if docs := step_docs(step, options):
            yield Pair("doc_md=", Text(docs))
        yield from self._limits(step)
        yield from self._asked(task, options, step.resources)

    def _identity(self, task: Task) -> Iterator[Part]:
        ours = self.graph.id(task)
        yield f"task_id={text_literal(ours)}"
        if ours != task.name:
            yield f"task_display_name={text_literal(task.name)}"

    def _limits(self, step: Step, given: Container[str] = ()) -> Iterator[Part]:
        """Yield the arguments for what a step says of its attempts, but for those that are ``given``."""
        if "retries" not in given:
            yield from retries(step.retry)
        if step.timeout_seconds is not None and "execution_timeout" not in given:
            yield f"execution_timeout={delta(step.timeout_seconds)}"

    def _asked(self, task: Task, options: Mapping[str, Any], resources: ResourceRequirements | None) -> Iterator[Part]:
        """Yield the arguments for Airflow and its executor: options, trigger rule, callbacks, resources."""
        arguments = (*TASK_ARGUMENTS, *STEP_ARGUMENTS)
        yield from (Pair(f"{name}=", value(options[name])) for name in arguments if name in options)
        if "trigger_rule" not in options:
            yield from self._rule(task)
        yield from called_back(options, TASK_CALLBACKS, [])
        if resources and asks_for_pod(resources):
            yield Pair("executor_config=", pod(resources))

    # Operators of Airflow's own.

    def _kind(self, task: Task) -> str:
        return self.names.imports[self.graph.operators[task.name]]

    def _operator(self, task: Task) -> Iterator[Part]:
        """Yield the arguments of an operator, without those that are set when it runs."""
        step = self.graph.step(task)
        options, arguments = step_options(step), arguments_of(step)
        yield from self._identity(task)
        handed = {item.into or item.name for item in step.inputs}
        yield from self.names.imports.keywords(
            {name: argument for name, argument in arguments.items() if name not in handed}, step
        )
        yield from self._limits(step, arguments)
        yield from self._asked(task, {name: options[name] for name in options if name not in arguments}, None)

    def _handed(self, task: Task) -> dict[str, Part]:
        """Return the arguments that are set when the operator runs: values of the run, and of other steps."""
        lists: dict[str, list[Part]] = {}
        handed: dict[str, Part] = {}
        for item in self.graph.step(task).inputs:
            if isinstance(item.source, FromItem):
                continue
            if item.into:
                lists.setdefault(item.into, []).append(self._plain(task, item.source))
            else:
                handed[item.name] = self._plain(task, item.source)
        return handed | {name: Group("[", parts, "]") for name, parts in lists.items()}

    def _plain(self, task: Task, origin: Source) -> Part:
        match origin:
            case Constant(constant):
                return value(constant)
            case FromParameter(name):
                return text_literal(f"{{{{ params[{name!r}] }}}}")
            case FromStep(step, output):
                if group := self.plan.by_name[step].execution_group:
                    raise self._beyond(
                        task, f"an output of execution_group={group!r}. Leave step {step!r} out of the group"
                    )
                return self._output(FromStep(step, output))
        raise self._beyond(task, "either(…) of several outputs. Join them in a step")

    def _left(self, step: str, key: str) -> str | None:
        task = self.graph.steps.get(step)
        return None if task is None else self._xcom(task, key)

    def _mapped_operator(self, loop: Loop, members: Sequence[Task]) -> Part:
        """Return an operator for each item, mapped by Airflow."""
        task, *others = members
        if others:
            raise self._beyond(next(filter(self.graph.is_operator, members)),
                               f"one of several steps of loop {loop.name!r}. Map it alone")  # fmt: skip
        fixed = [*self._operator(task), *keywords(self._handed(task))]
        if loop.max_parallel is not None:
            fixed.append(f"max_active_tis_per_dagrun={loop.max_parallel}")
        sources = {item.name: item.source for item in loop.over}
        if len(sources) == 1:
            name, origin = next(iter(sources.items()))
            if isinstance(origin, FromStep) and len(self.plan.by_name[origin.step].outputs) > 1:
                raise self._beyond(
                    task, f"each item of one of several outputs. Let a step return {origin.output!r} alone"
                )
            if isinstance(origin, FromParameter):
                raise self._beyond(task, f"each item of parameter {origin.name!r}. Let a step list them")
            over = next(keywords({name: self._plain(task, origin)}))
            end = source(Group(").expand(", [over], ")"), 1)
        else:
            lists = [origin.value for origin in sources.values() if isinstance(origin, Constant)]
            if len(lists) < len(sources) or len({len(items) for items in lists}) > 1:
                raise self._beyond(task, "several lists that are not constants of one length. Let a step join them")
            rows = [dict(zip(sources, row, strict=True)) for row in zip(*lists, strict=True)]
            end = source(Group(").expand_kwargs(", [value(rows)], ")"), 1)
        opening = f"{self._kind(task)}.partial("
        return Pair(f"{self.names[task]} = ", Group(opening, [*fixed, *self._within(loop.parent)], end))

    def _beyond(self, task: Task, what: str) -> UnsupportedFeatureError:
        return UnsupportedFeatureError(f"step {task.name!r} is an Airflow operator, which cannot take {what}.")

    # Tasks that run no step.

    def _items(self, task: Task) -> Iterator[Part]:
        """Yield the arguments of the task that lists the items of a loop."""
        yield f"task_id={text_literal(self.graph.id(task))}"
        yield f"loop={text_literal(task.name)}"
        yield from self._inputs_of_task(task)
        yield from self._rule(task)

    def _choice(self, task: Task) -> Iterator[Part]:
        """Yield the arguments of the task that chooses a branch."""
        yield f"task_id={text_literal(self.graph.id(task))}"
        yield f"task_display_name={text_literal(f'{task.name}?')}"
        yield f"choice={text_literal(task.name)}"
        branches = [
            Pair(f"{text_literal(branch.name)}: ", value(list(map(self.graph.id, self._tasks_to_skip(branch)))))
            for branch in self.graph.structure.choices[task.name]
        ]
        yield Pair("branches=", Group("{", branches, "}"))
        yield from self._inputs_of_task(task)
        yield from self._rule(task)

    def _rule(self, task: Task) -> Iterator[Part]:
        if (rule := self.graph.rule(task)) != "all_success" and not self.graph.is_cleanup(task):
            yield f"trigger_rule={text_literal(rule)}"

    def _inputs_of_task(self, task: Task) -> Iterator[Part]:
        inputs: list[Part] = [
            Pair(f"{text_literal(f'{output.step}.{output.output}')}: ", self._output(output))
            for output in self.graph.outputs(task)
        ]
        if inputs:
            yield Pair("inputs=", Group("{", inputs, "}"))

    def _inputs(self, step: Step) -> Iterator[Part]:
        for item in step.inputs:
            if (source := self._xcoms(item.source)) is not None:
                yield Pair(f"{text_literal(item.name)}: ", source)

    def _xcoms(self, origin: Source) -> Part | None:
        match origin:
            case FromStep():
                return self._output(origin)
            case FromEither(outputs):
                return Group("[", [self._output(output) for output in outputs], "]")
            case FromItem():
                return self._xcoms(self.graph.list_of(origin))
            case _:
                return None

    def _output(self, output: FromStep) -> str:
        return self._xcom(self.graph.steps[output.step], self.graph.key(output))

    def _xcom(self, task: Task, key: str) -> str:
        """Return the expression for an XCom of a task."""
        variable = f"{self.names[task]}.output"
        return variable if key == RETURNED else f"{variable}[{text_literal(key)}]"

    def _start(self) -> Part:
        """Return the task of ``on_pipeline_start``. It has as many tries as the step with the most.

        A hook that raises does not fail this task; it fails only if no step could run either.
        """
        return Group("Start(", [f'task_id="{START_TASK}"', *retries(self._most_tried)], ")")

    @property
    def _most_tried(self) -> OrchestratorRetryPolicy | None:
        policies = [step.retry for step in self.plan if step.retry]
        return max(policies, key=lambda policy: policy.max_attempts, default=None)

    @property
    def policies(self) -> Iterator[OrchestratorRetryPolicy]:
        """The retry policies in the text. An execution group's task has none: it retries its steps itself."""
        if self.plan.hooks and self._most_tried:
            yield self._most_tried
        yield from (step.retry for step in self.plan if step.retry and not step.execution_group)

    # Links to outputs.

    def _links(self) -> Iterator[Part]:
        for task in self.graph.tasks:
            is_airflows = self.graph.is_operator(task) or self.graph.external_dag(task) is not None
            steps = () if is_airflows else self.graph.runs(task)
            names = [
                step.name + "." + output if task.kind == "together" else output
                for step in steps for output in step.outputs
            ]  # fmt: skip
            if names:
                yield Group("with_links(", [self.names[task], value(names)], ")")

    # Dependencies that pass no data.

    def _waits(self) -> Iterator[Part]:
        from flowyml.graph.text import label_of  # stays at home: a pipeline's file may import all of this package

        for task in self.graph.tasks:
            if before := self.names.of(self.graph.only_after(task)):
                yield _wait(self.names[task], before)
        for branch, followers in self._branches():
            choice = Task("choice", branch.choice)
            label, after = f"Label({text_literal(label_of(branch))})", _one_or_list(self.names.of(followers))
            if len({self._groups_of(task) for task in (choice, *followers)}) == 1:
                yield _labelled(self.names[choice], label, after)
            else:  # in ``>>``, a label makes of tasks their groups: Airflow's ``EdgeModifier``
                yield Group(f"{self.names[choice]}.set_downstream(", [after, label], ")")
        if self.unsettled:
            yield _wait(self.names.settled, self.names.of(self.unsettled))
        if self.watched:
            yield _wait(self.names.watcher, self.names.of(self.watched))
        before, first = self.names.of(self.graph.before_cleanup), self.names.of(self.graph.first_of_cleanup)
        if before and len(first) > 1:
            yield Pair(f"{self.names.others} = ", Group("[", before, "]"))
            before = [self.names.others]
        yield from (_wait(name, before) for name in first if before)

    def _groups_of(self, task: Task) -> Sequence[str]:
        """Return the names of the task groups around a task, including its own for a loop with this step alone."""
        around = (self.graph.section(self.graph.group(task)), self.graph.loop(task))
        return tuple(group.name for group in around if group)

    def _branches(self) -> Iterator[tuple[Branch, Sequence[Task]]]:
        """Yield each branch with the tasks that its edge leads to, in the order of the choices."""
        for task in self.graph.tasks:
            for branch in self.graph.structure.choices[task.name] if task.kind == "choice" else ():
                if followers := self._tasks_to_skip(branch):
                    yield branch, followers

    def _tasks_to_skip(self, branch: Branch) -> Sequence[Task]:
        return self.graph.skipped_by_choice.get((branch.choice, branch.name), ())


def _item_class(task: Task) -> str:
    return "ItemStep" if task.kind == "step" else "ItemTogether"


def _tuple(before: str, names: Sequence[str], after: str) -> Part:
    """Return a tuple without parentheses, if it fits into a line."""
    flat = f"{before}{', '.join(names)}{after}"
    return flat if len(flat) <= LINE_LENGTH - 8 else Group(f"{before}(", names, f"){after}")


def _labelled(choice: str, label: str, followers: Part) -> Part:
    """Return ``choice >> label >> followers``, broken as ruff does if it is too long for a line."""
    flat = Pair(f"{choice} >> {label} >> ", followers)
    if "\n" not in source(flat, 1):
        return flat
    return f"(\n        {choice}\n        >> {label}\n        >> {source(followers, 2, lead=LINE_LENGTH)}\n    )"


def _helper(name: str, kind: str, task: str, rule: str) -> Part:
    return f'{name} = {kind}(task_id={text_literal(task)}, trigger_rule="{rule}")'


def _line(part: Part, depth: int = 1) -> str:
    return f"{'    ' * depth}{source(part, depth)}\n"


def _wait(task: str, waits_for: list[str]) -> Part:
    if len(waits_for) == 1:
        return f"{waits_for[0]} >> {task}"
    return Group("[", waits_for, f"] >> {task}")


def _one_or_list(names: list[str]) -> Part:
    return names[0] if len(names) == 1 else Group("[", names, "]")
