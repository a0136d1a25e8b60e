"""Steps that call one function with other values: one step, which takes these values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowyml.migration.airflow.model import ValueEdge
from flowyml.migration.airflow.writer.deciding.context import Asked, Code, Template, may_be_argument
from flowyml.migration.airflow.writer.deciding.decision import Decision
from flowyml.migration.airflow.writer.text.loops import Hole, explained, trimmed
from flowyml.migration.airflow.writer.values import is_plain

Columns = Callable[[Sequence[Decision]], Mapping[str, tuple[Any, ...]]]
"""Returns the variables of the loop in the DAG file that makes some tasks, with their values; none if not known."""


def share(decisions: Iterable[Decision], columns: Columns, taken: Collection[str]) -> dict[int, list[Decision]]:
    """Let the calls of one function that differ only in plain values be calls of one step.

    Without a function, for Bash, they are those that one line of the DAG file makes. No parameter of a step has one of
    the ``taken`` names. Returns the calls of each such step by the ``id`` of the first one, which has its text.
    """
    groups: dict[str, list[Decision]] = {}
    for each in decisions:
        if each.kind == "call" and not each.starts:
            groups.setdefault(repr(_shape_of_call(each)), []).append(each)
    shared = {id(each[0]): each for each in groups.values() if len(each) > 1}
    for group in shared.values():
        first = group[0]
        assert first.asking
        own = {*first.asking.dates, *first.asking.parameters, *first.over, *first.items}
        parameters = _Parameters(columns(group), {*taken, *own})
        names = first.function.model.parameters if first.function else ()
        merged = {}
        for name, value in first.arguments.items():
            wanted = names[int(name)] if name.isdigit() and int(name) < len(names) else name
            merged[name] = parameters.merged([value, *(each.arguments[name] for each in group[1:])], wanted)
        first.arguments = merged
        for number, each in enumerate(group):
            each.like, each.own_values = first, {name: values[number] for name, values in parameters.found.items()}
    return shared


@dataclass(slots=True)
class _Parameters:
    """The parameters of a step, each with its value for each call.

    ``columns`` are the variables of a loop, with their values.
    """

    columns: Mapping[str, tuple[Any, ...]]
    reserved: set[str]
    found: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def merged(self, values: Sequence[Any], wanted: str) -> Any:
        """Return one value for all calls, with parameters where the calls differ."""
        first = values[0]
        if isinstance(first, Template):
            texts = (self._text(each, wanted) for each in zip(*(value.parts for value in values), strict=True))
            return Template(tuple(part for parts in texts for part in parts))
        if isinstance(first, dict) and all(isinstance(each, dict) and [*each] == [*first] for each in values):
            return {key: self.merged([value[key] for value in values], str(key)) for key in first}
        if isinstance(first, list) and not is_plain(first):
            return [self.merged(each, wanted) for each in zip(*values, strict=True)]
        if not is_plain(first) or all(map(repr(first).__eq__, map(repr, values))):
            return first
        hole = explained(tuple(values), list(self.columns.values())) or Hole((tuple(values),), is_text=False)
        parts = tuple(self._parts(hole, wanted))
        return Template(parts) if hole.is_text else Asked(tuple(parts[0]))

    def _text(self, parts: Sequence[str | Code], wanted: str) -> Iterator[str | Code]:
        values = tuple(parts)
        if not isinstance(values[0], str) or len({*values}) == 1:
            yield values[0]
        else:
            yield from self._parts(explained(values, list(self.columns.values())) or trimmed(values), wanted)

    def _parts(self, hole: Hole, wanted: str) -> Iterator[str | Code]:
        yield from (part if isinstance(part, str) else (self._name(part, wanted),) for part in hole.parts)

    def _name(self, values: tuple[Any, ...], wanted: str) -> str:
        """Return the parameter that has some values."""
        same = (name for name, known in self.found.items() if repr(known) == repr(values))
        if name := next(same, ""):
            return name
        of_loop = (name for name, known in self.columns.items() if repr(known) == repr(values))
        name = next(of_loop, "part" if wanted == "command" else wanted)
        name = name if may_be_argument(name) else "value"
        while name in self.reserved or name in self.found:
            name += "_"
        self.found[name] = values
        return name


def _shape_of_call(decision: Decision) -> Iterable[Any]:
    """Return all that calls of one step have in common."""
    asking, function = decision.asking, decision.function
    assert asking
    edges = list(dict.fromkeys((edge.task_id, edge.key) for edge in decision.whole))
    place = None if function else (*decision.task.callers, decision.task.place)[-1]
    return (
        function and function.key, place, sorted(decision.options.items()), decision.through_bash, [*asking.dates],
        [*asking.parameters], [*decision.over], decision.items, decision.may_be_missing,
        {name: _shape(value, edges) for name, value in decision.arguments.items()},
    )  # fmt: skip


def _shape(value: Any, edges: Sequence[tuple[str, str]]) -> Any:
    """Return a value without what may be a parameter of a step; the values of other tasks by their numbers."""
    match value:
        case Template():
            return [None if isinstance(part, str) else _shape(part, edges) for part in value.parts]
        case Asked():
            return value.parameters, _shape(value.code, edges)
        case ValueEdge():
            return f"value {edges.index((value.task_id, value.key))}"
        case _ if is_plain(value):
            return ()
        case list():
            return [_shape(each, edges) for each in value]
        case dict():
            return {key: _shape(each, edges) for key, each in value.items()}
    return value
