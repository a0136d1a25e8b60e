"""The text of a pipeline: its head, and a call for each step, within its branches."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import cleandoc
from typing import Any
from zoneinfo import ZoneInfo

from flowyml.core.schedule import Schedule
from flowyml.migration.airflow.model import Place, TaskModel, ValueEdge
from flowyml.migration.airflow.writer.deciding.blocks import Block, Chain
from flowyml.migration.airflow.writer.deciding.context import DATES
from flowyml.migration.airflow.writer.deciding.dags import DecidedDag
from flowyml.migration.airflow.writer.deciding.decision import Decision, Key, is_item, key_of
from flowyml.migration.airflow.writer.deciding.params import declared
from flowyml.migration.airflow.writer.deciding.sections import Nested, Unit, groups_in, tasks_in
from flowyml.migration.airflow.writer.text.loops import listed, repeated, rolled
from flowyml.migration.airflow.writer.text.names import Names
from flowyml.migration.airflow.writer.text.steps import operator, said_of, step_options, wrapper_arguments
from flowyml.migration.airflow.writer.values import as_number, variable_of
from flowyml.plan.layout import FreeNames, Group, Pair, Part, docstring, source, text_literal, value


def pipeline(names: Names, dag: DecidedDag, name: str, uses: Counter[Key]) -> str:
    """Return the function of a pipeline. ``uses`` counts the steps of each function."""
    parameters = list(_parameters(names, dag))
    options = list(_options(names, dag, name))
    decorator = names.word("pipeline")
    shown = source(Group(f"{decorator}(", options, ")")) if options else decorator
    lines = [f"@{shown}", source(Group(f"def {name}(", parameters, ")")) + " -> None:"]
    if dag.model.doc and dag.model.doc.strip():
        lines.append(f"    {docstring(cleandoc(dag.model.doc), '    ')}")
    body = list(_Body(names, dag, uses).calls(dag.order, 1))
    return "\n".join([*lines, *(body or ["    pass"])]) + "\n"


def nested_pipelines(names: Names, dag: DecidedDag, uses: Counter[Key]) -> Iterator[str]:
    """Yield the functions of the pipelines that a pipeline calls, for its task groups."""
    for group in groups_in(dag.order):
        if id(group) not in names.in_loops:
            yield _nested(_Body(names, dag, uses), group, names.nested[id(group)])


def _nested(body: _Body, group: Nested, name: str) -> str:
    names, dag = body.names, body.dag
    parameters: list[Part] = [*map(body.holds, group.needs), *map(body.takes, group.items)]
    for each in group.names:
        kind = names.word(DATES[each][0]) if each in DATES else annotation(dag, each)
        parameters.append(f"{each}: {kind}")
    decorator = names.word("pipeline")
    shown = decorator if name == group.label else f"{decorator}(name={text_literal(group.label)})"
    returns = f" -> {names.word('Any')}" if group.gives else " -> None"
    lines = [f"@{shown}", source(Group(f"def {name}(", parameters, ")"), trail=len(returns) + 1) + f"{returns}:"]
    if group.group.tooltip.strip():
        lines.append(f"    {docstring(cleandoc(group.group.tooltip), '    ')}")
    lines += body.calls(group.order, 1)
    if group.gives:
        lines.append(f"    return {', '.join(body.outputs[task, 'return_value'] for task in group.gives)}")
    return "\n".join(lines) + "\n"


def annotation(dag: DecidedDag, name: str) -> str:
    """Return the type of a parameter, for a step."""
    return (dag.declared.get(name) or declared(dag.parameters.get(name))).base


def _checked(names: Names, dag: DecidedDag, name: str) -> str:
    """Return the annotation of a parameter, with the checks of its values."""
    said = dag.declared.get(name)
    if said is not None and said.choices:
        return source(
            Group(f"{names.word('Literal')}[", [value(each) for each in said.choices], "]"),
            1,
            lead=len(name) + 2,
            trail=20,
        )
    if said is None or not (said.limits or said.schema):
        return annotation(dag, name)
    limits = [Pair(f"{each}=", value(limit)) for each, limit in said.limits.items()]
    limits += [Pair("json_schema_extra=", value(dict(said.schema)))] if said.schema else []
    field_of = Group(f"{names.word('Field')}(", limits, ")")
    return source(Group(f"{names.word('Annotated')}[", [said.base, field_of], "]"), 1, lead=len(name) + 2, trail=20)


def _parameters(names: Names, dag: DecidedDag) -> Iterator[Part]:
    for name, default in dag.parameters.items():
        annotated = f"{name}: {_checked(names, dag, name)}"
        yield annotated if dag.is_apart else Pair(f"{annotated} = ", value(default))
    for name, default in dag.dates.items():
        yield f"{name}: {names.word(DATES[name][0])} = {names.word(default)}"


def _options(names: Names, dag: DecidedDag, name: str) -> Iterator[Part]:
    if name != dag.model.dag_id:
        yield f"name={text_literal(dag.model.dag_id)}"
    if dag.schedule:
        yield Pair("schedule=", _schedule(names, dag.schedule))
    if "timeout" in dag.options:
        yield f"timeout={as_number(dag.options['timeout'])}"
    for option in ("tags", "airflow"):
        if option in dag.options:
            shown, tags = dag.options[option], None
            if option == "tags":
                tags = next((each for each in dag.model.arguments if each.name == "tags"), None)
                if tags and isinstance(tags.value, list) and sorted(map(str, tags.value)) == sorted(shown):
                    shown = tags.value  # in the order of the file
            yield Pair(f"{option}=", names.argument(tags, shown, value))


def _schedule(names: Names, schedule: Schedule) -> Part:
    if schedule.cron:
        arguments: list[Part] = [f"cron={text_literal(schedule.cron)}"]
    else:
        arguments = [f"interval_seconds={as_number(schedule.interval_seconds or 0)}"]
    if schedule.timezone != "UTC":
        arguments.append(f"timezone={text_literal(schedule.timezone)}")
    for name, moment in (("start=", schedule.start), ("end=", schedule.end)):
        if moment:
            shown = moment.astimezone(ZoneInfo(schedule.timezone)).replace(tzinfo=None)
            arguments.append(Pair(name, names.words.moment(shown)))
    if schedule.catch_up:
        arguments.append("catch_up=True")
    return Group(f"{names.word('Schedule')}(", arguments, ")")


@dataclass(slots=True)
class _Body:
    """The calls of a pipeline while they are written: the used variables, and those with outputs.

    ``again`` if they are those of one iteration of a loop, whose text all others must have.
    """

    names: Names
    dag: DecidedDag
    uses: Counter[Key]
    again: bool = False
    outputs: dict[tuple[str, str], str] = field(default_factory=dict)
    items: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    local: FreeNames = field(init=False)
    decisions: Mapping[str, Decision] = field(init=False)

    def __post_init__(self) -> None:
        self.local = FreeNames(self.names.taken)
        self.decisions = {each.task.task_id: each for each in self.dag.decisions}

    def _fresh(self, wanted: str) -> str:
        made = self.local.fresh(wanted)
        self.names.locals.add(made)
        return made

    def holds(self, task: str, name: str = "") -> str:
        """Return a variable for the output of a task, by its id or its name in this pipeline."""
        made = self._fresh(f"{variable_of(name or task)}_value")
        self.outputs[task, "return_value"] = made
        return made

    def takes(self, item: str) -> str:
        """Return a variable for an argument of a mapped task group."""
        self.items[item] = item if item in self.names.items else self._fresh(variable_of(item))
        return self.items[item]

    def calls(self, order: Sequence[Unit], depth: int) -> Iterator[str]:
        """Yield the calls of some tasks, and branches with those in them."""
        lines = [self._lines(unit) or (-number,) for number, unit in enumerate(order, 1)]
        after_loop = 0
        for position, unit in enumerate(order):
            if position < after_loop:
                continue
            if not isinstance(unit, Chain):
                size, count = repeated(lines, position)
                if loop := self._loop(order[position : position + size * count], size, depth):
                    yield loop
                    after_loop = position + size * count
                else:
                    yield from self._of_unit(unit, depth, again=self.again)
                continue
            last = list(unit.blocks)[-1]
            choice = self.decisions[last.by].choice  # all branches of a chain are of one choice
            assert choice is not None
            rest = set(choice.values or ())
            for number, (block, tasks) in enumerate(unit.blocks.items()):
                ends = block == last and number > 0 and bool(rest) and rest <= set(block.values)
                ends = ends and not choice.may_be_none
                rest -= set(block.values)
                yield f"{'    ' * depth}with {source(self._opening(block, number, ends), depth)}:"
                yield from self.calls(tasks, depth + 1)

    def _of_unit(self, unit: TaskModel | Nested, depth: int, *, again: bool = False) -> Iterator[str]:
        """Yield the lines of a task, or of a pipeline's call; ``again`` if a loop's other iterations follow."""
        if isinstance(unit, TaskModel):
            yield from self._statements(self.decisions[unit.task_id], depth, again=again)
        elif not again:
            yield from self._nested(unit, depth, self.names.nested[id(unit)])
        else:
            name = self._variable("group")
            text = _nested(_Body(self.names, self.dag, self.uses, again=True), unit, name)
            yield from (f"{'    ' * depth}{line}".rstrip() for line in text.splitlines())
            yield ""
            yield from self._nested(unit, depth, name)

    def _lines(self, unit: Unit) -> tuple[int, ...]:
        """Return the lines of the file in a loop that makes a task or a task group; none for others.

        They are those of the calls of functions that make it, and its own. Nothing outside takes a value of it.
        """
        tasks = [] if isinstance(unit, Chain) else list(tasks_in([unit]))
        decisions = [self.decisions[task.task_id] for task in tasks]
        if isinstance(unit, Nested):
            if unit.over is not None or unit.gives or not tasks:
                return ()
            lines = self.names.lines_of(replace(tasks[0], place=unit.group.place))
            lines += tuple(line for task in tasks for line in self.names.lines_of(task))
        else:
            lines = tuple(line for task in tasks for line in self.names.lines_of(task))
            if any(task.task_id in self.dag.taken or task.task_id in self.dag.picked for task in tasks):
                return ()
        is_known = all(each.like or each.kind in ("function", "empty", "bash", "operator") for each in decisions)
        return lines if is_known and self._around(lines) else ()

    def _around(self, lines: Sequence[int]) -> ast.For | None:
        """Return the innermost loop around the first of some lines that is in one."""
        return next((self.names.source.loops[line] for line in lines if line in self.names.source.loops), None)

    def _loop(self, units: Sequence[Unit], size: int, depth: int) -> str:
        """Return tasks of several iterations as a loop; "" if that cannot be."""
        if not units:
            return ""
        decisions = [self.decisions[task.task_id] for task in tasks_in(units)]
        inside = {id(each) for each in decisions if each.kind == "operator"} - self.names.in_loops
        inside |= {id(each) for each in groups_in(units)}
        self.names.in_loops |= inside
        rounds = [units[number : number + size] for number in range(0, len(units), size)]
        texts = [
            "\n".join(
                line for unit in some if not isinstance(unit, Chain) for line in self._of_unit(unit, depth, again=True)
            )
            for some in rounds
        ]
        loop = self._around(self._lines(units[0]))
        assert loop is not None  # each has lines in one
        made = rolled(texts, loop, self.names, self._variable, depth)
        if not made:
            self.names.in_loops -= inside
        return made

    def _variable(self, name: str) -> str:
        """Return a variable for loops, which several may use."""
        if name not in self.variables:
            self.variables[name] = self._fresh(name)
        return self.variables[name]

    def _nested(self, group: Nested, depth: int, name: str) -> Iterator[str]:
        """Yield the call of a pipeline within the pipeline, for each item if its group is mapped."""
        yield from self._comments(group.group.place, depth, again=self.again)
        if group.over is not None:
            (item,) = group.items
            over = Group(f"{self.names.word('for_each')}(", [self._part(group.over)], f") as {self.takes(item)}")
            yield f"{'    ' * depth}with {source(over, depth)}:"
            depth += 1
        arguments: list[Part] = [self.outputs[task, "return_value"] for task in group.needs]
        arguments += [self.items[item] for item in group.items]
        arguments += [Pair(f"{each}=", each) for each in group.names]
        call: Part = Group(f"{name}(", arguments, ")")
        if group.gives:
            call = Pair(f"{', '.join(self.holds(task) for task in group.gives)} = ", call)
        yield f"{'    ' * depth}{source(call, depth)}"

    def _opening(self, block: Block, number: int, ends: bool) -> Part:
        word = self.names.word
        if ends:
            return f"{word('otherwise')}()"
        choice = self.decisions[block.by].choice
        value_of = self.outputs[block.by, "return_value"]
        opening = word("elif_" if number else "when")
        if choice is None or choice.values is None:
            return f"{opening}({value_of})"
        if choice.listed:
            found = [f"{word('is_in')}({text_literal(each)}, {value_of})" for each in block.values]
            return Group(f"{opening}(", [Group(f"{word('any_of')}(", found, ")") if found[1:] else found[0]], ")")
        if len(block.values) > 1:
            return Group(f"{opening}(", [Group(f"{word('is_in')}(", [value_of, value(list(block.values))], ")")], ")")
        return f"{opening}({value_of} == {text_literal(block.values[0])})"

    def _comments(self, place: Place, depth: int, *, again: bool = False) -> Iterator[str]:
        yield from (f"{'    ' * depth}{comment}" for comment in self.names.comments_at(place, again=again))

    def _statements(self, decision: Decision, depth: int, *, again: bool = False) -> Iterator[str]:
        task_id = decision.task.task_id
        for edge in self.dag.picked.get(task_id, ()):
            yield self._pick(edge, depth, decision.within)
        call = self._call(decision, depth)
        if task_id in self.dag.taken:
            call = Pair(f"{self.holds(task_id, decision.name)} = ", call)
        if decision.kind != "operator" or id(decision) in self.names.in_loops:
            yield from self._comments(decision.task.place, depth, again=again)
        yield f"{'    ' * depth}{source(call, depth)}"

    def _pick(self, edge: ValueEdge, depth: int, within: str) -> str:
        """Return a step for one value of the dict that a task returned."""
        name = f"{edge.task_id}.{edge.key}".removeprefix(within)
        wanted = self._fresh(variable_of(name))
        whole = self.outputs[edge.task_id, "return_value"]
        call = Group(
            f"{self.names.word('item_of')}.options(name={text_literal(name)})(", [whole, text_literal(edge.key)], ")"
        )
        self.outputs[edge.task_id, edge.key] = wanted
        return f"{'    ' * depth}{source(Pair(f'{wanted} = ', call), depth)}"

    def _call(self, decision: Decision, depth: int) -> Part:
        names, task = self.names, decision.task
        handed = {edge.task_id for edge in decision.edges if (edge.task_id, edge.key) in self.outputs}
        if task.trigger_rule == "all_success":  # by any other, the choice counts among those that it waits for
            handed |= {block.by for block in self.dag.paths[task.task_id]}
        after = [name.removeprefix(decision.within) for name in task.upstream if name not in handed]
        options: list[Part] = []
        match decision.kind:
            case "function":
                base = names.steps.get(key_of(decision)) or names.functions[key_of(decision)]
                assert decision.function
                named = decision.function.model.name if decision.function.is_imported else base
                options = list(step_options(names, decision, named)) if self.uses[key_of(decision)] > 1 else []
            case "empty":
                base, options = names.word("nothing"), list(step_options(names, decision))
            case "bash":
                base, options = names.word("bash"), list(step_options(names, decision))
            case "operator" if id(decision) in names.in_loops:
                base = source(operator(names, decision), depth)
            case _:
                base = names.variable(decision)
                if decision.like and decision.name != names.step_name(decision):
                    options = [f"name={text_literal(decision.name)}"]
        if after:
            options.append(Pair("after=", self._after(after, decision.within)))
        if options:
            base = source(Group(f"{base}.options(", options, ")"), depth)
        if decision.over:
            fixed = [] if decision.kind == "operator" else list(self._arguments(decision))
            over = [Pair(f"{names.words.keyword(name)}=", self._part(each)) for name, each in decision.over.items()]
            partial = source(Group(f"{base}.partial(", fixed, ")"), depth) if fixed else base
            return Group(f"{partial}.map(", over, ")")
        called = self._arguments(decision) if decision.kind in ("function", "call", "bash") else ()
        return Group(f"{base}(", list(called), ")")

    def _after(self, after: Sequence[str], within: str) -> Part:
        """Return names of tasks; those that a loop of the DAG file makes as a comprehension."""
        of_loops: dict[ast.For, list[str]] = {}
        for decision in self.dag.decisions:
            name = decision.task.task_id.removeprefix(within)
            if name in after and (loop := self._around(self.names.lines_of(decision.task))):
                of_loops.setdefault(loop, []).append(name)
        made = {loop: listed(found, loop, self.names) for loop, found in of_loops.items() if len(found) > 2}
        others = [name for name in after if not any(name in of_loops[loop] for loop, text in made.items() if text)]
        texts = [text for text in made.values() if text]
        if len(texts) == 1 and not others:
            return f"[{texts[0]}]"
        return Group("[", [*map(text_literal, others), *(f"*({text})" for text in texts)], "]")

    def _arguments(self, decision: Decision) -> Iterator[Part]:
        if decision.asking:
            own, values = wrapper_arguments(self.names, decision)
            for name in own:
                if name in decision.own_values:
                    yield Pair(f"{name}=", value(decision.own_values[name]))
                elif name not in decision.over:
                    yield Pair(f"{name}=", self.items[name] if name in decision.items else name)
            edges = dict.fromkeys((edge.task_id, edge.key) for edge in decision.whole)
            pairs = zip(values.values(), edges, strict=True)
            yield from (Pair(f"{name}=", self.outputs.get(edge, "None")) for name, edge in pairs)
            return
        for name, argument in decision.arguments.items():
            part = self.names.argument(said_of(decision, name), argument, self._part)
            yield part if name.isdigit() else Pair(f"{self.names.words.keyword(name)}=", part)

    def _part(self, content: Any) -> Part:
        if isinstance(content, ValueEdge):
            return self.outputs.get((content.task_id, content.key), "None")
        if is_item(content):
            return self.items[content.source]
        if isinstance(content, list) and any(isinstance(each, ValueEdge) for each in content):
            return Group("[", [self._part(each) for each in content], "]")
        return value(content)
