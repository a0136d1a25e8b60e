"""The task graph of a DAG: the tasks, their dependencies, and their trigger rules.

This file travels in the bundle. The compiler writes the graph into the DAG file. The worker reads it where Airflow's
own rules differ from FlowyML's: see ``docs/control-flow.md``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

from flowyml.artifacts import is_reference
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.plan.groups import Branch, Cleanup, Loop, Section, outputs_in
from flowyml.plan.model import Constant, FromEither, FromItem, FromStep, Plan, Source, Step
from flowyml.plan.values import steps_of
from flowyml_airflow.names import RETURNED, Ids, task_id, xcom_key

__all__ = ["Task", "TaskGraph", "label_of"]

_LONGEST_LABEL = 40
_SKIPPING = frozenset({
    "all_failed", "one_failed", "one_success", "one_done", "none_failed_min_one_success", "none_skipped",
})  # fmt: skip
"""The values of ``run_if`` by which a step may be skipped."""
_TO_LOAD = 60  # seconds
_MOST_WRITTEN = 100  # items of a constant list whose labels are written into the DAG file


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the DAG: it runs a step or an execution group, lists the items of a loop, or chooses a branch.

    ``name`` is that of the step, the group, the loop or the choice.
    """

    kind: Literal["step", "together", "items", "choice"]
    name: str


class TaskGraph:
    """The tasks of a plan. Raises ``UnsupportedFeatureError`` for a loop in a loop, and a clean-up with a timeout."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.structure = plan.structure
        self.ids = Ids(plan)
        self.steps = {
            step.name: Task("together", step.execution_group) if step.execution_group else Task("step", step.name)
            for step in plan
        }  # those of an execution group have one task
        for name in self.operators:
            if around := self.plan.by_name[name].execution_group:
                raise UnsupportedFeatureError(
                    f"step {name!r} is an Airflow operator, which needs its own task. Remove execution_group="
                    f"{around!r}."
                )
        for group in plan.groups:
            if isinstance(group, Loop) and self.structure.loops(group.parent):
                raise UnsupportedFeatureError(
                    f"Loop {group.name!r} is in loop {self.structure.loops(group.parent)[0].name!r}, but Airflow "
                    f"does not expand a task group within an expanded one. Let a step work on the inner list."
                )
            if isinstance(group, Cleanup) and plan.timeout_seconds is not None:
                raise UnsupportedFeatureError(
                    f"Pipeline {plan.name!r} has a timeout and {group.name!r}, but Airflow runs no teardown when a run "
                    f"has taken too long. Give its steps timeouts instead."
                )

    @cached_property
    def has_control_flow(self) -> bool:
        """True if the plan has more than plain steps."""
        return bool(self.plan.groups) or any(step.run_if != "all_success" for step in self.plan)

    @cached_property
    def tasks(self) -> Sequence[Task]:
        """All tasks, each after those that it waits for, otherwise in the order of the plan."""
        ordered: dict[Task, None] = {}

        def add(task: Task) -> None:
            if task not in ordered:
                for before in self._before(task):
                    add(before)
                ordered[task] = None

        for task in self.steps.values():
            add(task)
        return tuple(ordered)

    def _before(self, task: Task) -> Iterator[Task]:
        """Yield the tasks that must be written before this one; for a task in a loop, all that the loop waits for."""
        if loop := self.loop(task):
            yield from self._before_loops[loop.name]
        yield from self.waited_for(task)

    @cached_property
    def _before_loops(self) -> Mapping[str, Sequence[Task]]:
        """By loop, the tasks outside of it that its steps wait for."""
        by_loop: dict[str, dict[Task, None]] = {}
        for loop in self.loops:
            members = (self.steps[member] for member in self.structure.members(loop.name))
            waited_for = (around for member in members for around in self.waited_for(member))
            by_loop[loop.name] = dict.fromkeys(around for around in waited_for if self.loop(around) != loop)
        return {name: tuple(tasks) for name, tasks in by_loop.items()}

    def waited_for(self, task: Task) -> Iterator[Task]:
        """Yield the tasks directly before this one; a task of several steps may come twice."""
        yield from self.upstream(task)
        if gate := self.gate(task):
            yield gate
        if (loop := self.loop(task)) and self.has_items_task(loop):
            yield Task("items", loop.name)

    def id(self, task: Task) -> str:
        """Return the task id."""
        match task.kind:
            case "step":
                return task_id(task.name)
            case "together":
                return self.ids.together[task.name]
            case "items":
                return self.ids.items[task.name]
            case _:
                return self.ids.choices[task.name]

    def group(self, task: Task) -> str:
        """Return the group that contains a task."""
        match task.kind:
            case "step":
                return self.plan.by_name[task.name].group
            case "together":
                return self.runs(task)[0].group
            case "items":
                return self.structure.by_name[task.name].parent
            case _:
                return self.structure.choices[task.name][0].parent

    def runs(self, task: Task) -> Sequence[Step]:
        """Return the steps that a task runs."""
        match task.kind:
            case "step":
                return (self.plan.by_name[task.name],)
            case "together":
                return [self.plan.by_name[name] for name in self.structure.execution_groups[task.name].steps]
            case _:
                return ()

    def loop(self, task: Task) -> Loop | None:
        """Return the loop around a task."""
        return next(iter(self.structure.loops(self.group(task))), None)

    def members(self, loop: Loop) -> Sequence[Task]:
        """Return the tasks in a loop, in the order of the DAG file."""
        return self._members.get(loop.name, ())

    @cached_property
    def _members(self) -> Mapping[str, Sequence[Task]]:
        by_loop: dict[str, list[Task]] = {}
        for task in self.tasks:
            if loop := self.loop(task):
                by_loop.setdefault(loop.name, []).append(task)
        return by_loop

    def sources(self, task: Task) -> Sequence[Source]:
        """Return the sources of a task's inputs, without constants and without outputs of its own steps."""
        match task.kind:
            case "step" | "together":
                inputs = [item.source for step in self.runs(task) for item in step.inputs]
                sources = [source for source in inputs if all(self.steps[name] != task for name in steps_of(source))]
            case "items":
                sources = list(self.structure.sources(self.structure.by_name[task.name]))
            case _:
                sources = list(self.structure.sources(self.structure.choices[task.name][-1]))
        return list(dict.fromkeys(source for source in sources if not isinstance(source, Constant)))

    def outputs(self, task: Task) -> Sequence[FromStep]:
        """Return the outputs of steps that a task takes, including those of the lists of its items."""
        return list(dict.fromkeys(outputs_in(self._origin(source) for source in self.sources(task))))

    def upstream(self, task: Task) -> Sequence[Task]:
        """Return the tasks of the steps that this one waits for."""
        return list(dict.fromkeys(self.steps[name] for name in self._waits_for(task)))

    def _waits_for(self, task: Task) -> Sequence[str]:
        """Return the steps that a task waits for, without duplicates."""
        names = [name for source in self.sources(task) for name in steps_of(self._origin(source))]
        return list(dict.fromkeys((*names, *self.after(task))))

    def after(self, task: Task) -> Sequence[str]:
        """Return the steps that a task must come after (``after``), without its own steps."""
        names = [name for step in self.runs(task) for name in step.after]
        return [name for name in names if self.steps[name] != task]

    def only_after(self, task: Task) -> Sequence[Task]:
        """Return the tasks that this one only comes after, without taking a value from them."""
        handed = {self.steps[output.step] for output in self.outputs(task)}
        return [other for other in self.upstream(task) if other not in handed]

    def _origin(self, source: Source) -> Source:
        return self.list_of(source) if isinstance(source, FromItem) else source

    def list_of(self, source: FromItem) -> Source:
        """Return the source of the list that an item is from."""
        loop = self.structure.by_name[source.loop]
        assert isinstance(loop, Loop)
        return next(item.source for item in loop.over if item.name == source.name)

    # Operators of Airflow's own.

    @cached_property
    def operators(self) -> Mapping[str, str]:
        """The import paths of the steps that are operators of Airflow's, by their names."""
        return {step.name: operator[1] for step in self.plan if (operator := step.operator)}

    def key(self, output: FromStep) -> str:
        """Return the XCom key of an output: the return value of its task, or one of several XComs of the task.

        The key of an output of an execution group includes the name of the step, since the group has one task.
        """
        key = xcom_key(output.output)
        if self.steps[output.step].kind == "together":
            return f"{task_id(output.step)}.{key}"
        return RETURNED if len(self.plan.by_name[output.step].outputs) == 1 else key

    def is_operator(self, task: Task) -> bool:
        """Return whether a task is an operator of Airflow's own."""
        return task.kind == "step" and task.name in self.operators

    @cached_property
    def handed_over(self) -> frozenset[FromStep]:
        """The outputs of steps that operators of Airflow's own take."""
        tasks = [self.steps[name] for name in self.operators]
        return frozenset(output for task in tasks for output in self.outputs(task))

    def external_dag(self, task: Task) -> Mapping[str, Any] | None:
        """Return the arguments of a step that runs another DAG of its own Airflow, and waits in the triggerer.

        Such a task is in no loop, and has no login and no timeout, which Airflow 3 does not apply in the triggerer.
        """
        step = self.plan.by_name[task.name] if task.kind == "step" and not self.loop(task) else None
        is_here = step is not None and not step.secrets and step.timeout_seconds is None
        return step.options.get("airflow", {}).get("external_dag") if step and is_here else None

    # Branches.

    def gate(self, task: Task) -> Task | None:
        """Return the task that chooses the branch of a task, if it is in the same loop."""
        branch = self.branch(task)
        return Task("choice", branch.choice) if branch else None

    def branch(self, task: Task) -> Branch | None:
        """Return the innermost branch of a task, within its loop."""
        for name in reversed(self.structure.path(self.group(task))):
            around = self.structure.by_name[name]
            if isinstance(around, Loop):
                return None
            if isinstance(around, Branch):
                return around
        return None

    def is_behind_gate(self, task: Task) -> bool:
        """Return whether the choice of its branch skips a task directly, and not through the tasks before it."""
        branch = self.branch(task)
        if branch is None:
            return False
        if task.kind not in ("step", "together") or self.is_cleanup(task) or self.rule(task) != "all_success":
            return True
        before = self.upstream(task)
        return not before or not all(branch.name in self.structure.path(self.group(other)) for other in before)

    @cached_property
    def skipped_by_choice(self) -> Mapping[tuple[str, str], Sequence[Task]]:
        """By choice and branch, the tasks that the choice skips itself."""
        by_branch: dict[tuple[str, str], list[Task]] = {}
        for task in self.tasks:
            branch = self.branch(task)
            if branch and self.is_behind_gate(task):
                by_branch.setdefault((branch.choice, branch.name), []).append(task)
        return by_branch

    # Trigger rules.

    def rule(self, task: Task) -> str:
        """Return the trigger rule of a task; where Airflow lacks the rule that is needed, a wider one."""
        run_if = self.plan.by_name[task.name].run_if if task.kind == "step" else "all_success"
        between, group = self.structure.loops_between, self.group(task)
        collected = [loop for before in self._waits_for(task) for loop in between(before, group)]
        joins = any(isinstance(self._origin(source), FromEither) for source in self.sources(task))
        if run_if != "all_success":
            if self.is_operator(task):
                return run_if
            if not self.upstream(task):
                return "all_success"
            parted = any(other.kind == "together" for other in self.upstream(task))  # one step of it may have failed
            return "all_done" if collected or joins or parted or self.gate(task) or self.loop(task) else run_if
        if self.is_operator(task):  # it is Airflow's in this too
            return "all_success"
        if (
            self._may_lack(task)
            or self._joins_neighbours(task)
            or any(loop.on_item_error == "continue" for loop in collected)
        ):
            return "all_done"
        if collected or (task.kind == "choice" and len(self.upstream(task)) > 1):
            return "none_failed"
        if joins:  # in a mapped task group Airflow 3 would wait for all items before it created one, and skip them all
            return "none_failed" if self.loop(task) else "none_failed_min_one_success"
        before = self.upstream(task)
        may_be_skipped = len(before) > 1 and any(self.may_skip(other, group) for other in self._waits_for(task))
        return "none_failed" if may_be_skipped else "all_success"

    def _joins_neighbours(self, task: Task) -> bool:
        """Return whether a task takes an ``either`` of steps that may both run: one may fail and the other not."""
        joined = [origin for source in self.sources(task) if isinstance(origin := self._origin(source), FromEither)]
        groups = [[self.structure.step(name).group for name in dict.fromkeys(steps_of(join))] for join in joined]
        return any(not self.structure.exclude(*pair) for join in groups for pair in combinations(join, 2))

    def _may_lack(self, task: Task) -> bool:
        """Return whether a choice can be made without a value that it waits for: an earlier condition may hold."""
        if task.kind != "choice":
            return False
        first = self.structure.sources(self.structure.choices[task.name][0])
        needed = {name for source in first for name in steps_of(self._origin(source))}
        return any(name not in needed for name in self._waits_for(task))

    def may_skip(self, step: str, group: str) -> bool:
        """Return whether a step may be skipped while ``group`` runs: its failure must then win over the skip.

        Airflow skips a task as soon as a task that it waits for was skipped; another one may fail later.
        """
        beyond = any(isinstance(scope, Branch) for scope in self.structure.between(step, group))
        return beyond or step in self._skippable

    @cached_property
    def _skippable(self) -> frozenset[str]:
        """The steps that may be skipped although their branch is taken."""
        names: set[str] = set()
        while more := self._skippable_by(names) - names:
            names |= more
            names |= {step.name for name in more for step in self.runs(self.steps[name])}  # a group is skipped whole
        return frozenset(names)

    def _skippable_by(self, known: Collection[str]) -> set[str]:
        names = set(known)
        for step in self.plan:
            before = [name for name in step.upstream if name in self.plan.by_name]
            joins = any(isinstance(item.source, FromEither) for item in step.inputs)
            between = self.structure.between
            beyond = any(isinstance(scope, Branch) for name in before for scope in between(name, step.group))
            if step.run_if in _SKIPPING or joins or beyond or not names.isdisjoint(before):
                names.add(step.name)
        return names

    def is_checked(self, task: Task) -> bool:
        """Return whether the worker decides, too, by the ends of the tasks that this one waits for."""
        is_skipped_natively = self.loop(task) is None or self.branch(task) is None
        return self.rule(task) != "all_success" or not is_skipped_natively or self.is_cleanup(task)

    # Pipelines in pipelines.

    @cached_property
    def sections(self) -> Sequence[Section]:
        """The pipelines within the pipeline that become task groups.

        Those in a loop do not: the loop is a task group itself.
        """
        groups = self.plan.groups
        return [scope for scope in groups if isinstance(scope, Section) and not self.structure.loops(scope.parent)]

    def section(self, group: str) -> Section | None:
        """Return the innermost pipeline that contains a group."""
        around = [self.structure.by_name[name] for name in self.structure.path(group)]
        return next((part for part in reversed(around) if isinstance(part, Section) and part in self.sections), None)

    # Clean-up.

    def is_cleanup(self, task: Task) -> bool:
        """Return whether a task is a clean-up: it runs as a teardown after all others have ended."""
        return self.structure.is_cleanup(self.group(task))

    @cached_property
    def first_of_cleanup(self) -> Sequence[Task]:
        """The teardowns that do not wait for another one."""
        return [
            task
            for task in self.tasks
            if self.is_cleanup(task) and not any(map(self.is_cleanup, self.waited_for(task)))
        ]

    @cached_property
    def before_cleanup(self) -> Sequence[Task]:
        """The tasks that all teardowns wait for. Choices are left out: they would skip the teardowns."""
        return [task for task in self.tasks if task.kind != "choice" and not self.is_cleanup(task)]

    # Loops.

    @cached_property
    def loops(self) -> Sequence[Loop]:
        """All loops."""
        return [group for group in self.plan.groups if isinstance(group, Loop)]

    def has_items_task(self, loop: Loop) -> bool:
        """Return whether a task lists the items of a loop; otherwise their labels are in the DAG file."""
        return self.written_labels(loop) is None and not any(map(self.is_operator, self._only(loop)))

    def _only(self, loop: Loop) -> Sequence[Task]:
        return [self.steps[name] for name in self.structure.members(loop.name)]

    def written_labels(self, loop: Loop) -> list[str] | None:
        """Return the labels of a short loop over constants that always runs; None for any other loop."""
        return self._labels[loop.name]

    @cached_property
    def _labels(self) -> Mapping[str, list[str] | None]:
        return {loop.name: self._made_labels(loop) for loop in self.loops}

    def _made_labels(self, loop: Loop) -> list[str] | None:
        lists = [item.source.value for item in loop.over if isinstance(item.source, Constant)]
        lengths = {len(items) for items in lists}
        if len(lists) < len(loop.over) or len(lengths) != 1 or not 0 < lengths.copy().pop() <= _MOST_WRITTEN:
            return None
        labels = [", ".join(map(str, map(label_of, items))) for items in zip(*lists, strict=True)]
        outside = Task("items", loop.name)
        is_plain = not any("{" in label for label in labels) and sum(map(len, labels)) < 50
        return labels if is_plain and self.branch(outside) is None else None

    def roots(self) -> Sequence[Task]:
        """Return the tasks that wait for nothing."""
        first = [task for task in self.tasks if not list(self.waited_for(task))]
        return [task for task in first if not self.is_cleanup(task)] or first

    def timeout(self, task: Task) -> float | None:
        """Return seconds after which Airflow ends a task; None if one of its steps has no timeout.

        The steps of an execution group are timed by the task itself, in each attempt. Airflow's limit is for the case
        that this fails: all attempts, the waits between them, and a minute to load the code.
        """
        steps = self.runs(task)
        times = [step.timeout_seconds for step in steps]
        if task.kind == "step" or not times or None in times:
            return times[0] if len(times) == 1 and task.kind == "step" else None
        tried = [(step.timeout_seconds or 0, step.retry) for step in steps]
        return _TO_LOAD + sum(
            time * (len(retry.delays) + 1) + sum(retry.delays) if retry else time for time, retry in tried
        )

    def step(self, task: Task) -> Step:
        """Return the step of a task."""
        return self.plan.by_name[task.name]


def label_of(item: Any) -> str | None:
    """Return the label of an item in Airflow's UI; None for an item that is stored elsewhere.

    >>> label_of("Chile"), label_of(0.1), label_of({"rate": 0.1, "rows": None})
    ('Chile', '0.1', '{"rate": 0.1, "rows": null}')
    """
    if is_reference(item):
        return None
    text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"
