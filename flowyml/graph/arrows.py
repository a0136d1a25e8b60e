"""The arrows of a graph: from steps to steps, and from steps to the groups that need their values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from flowyml.graph.layout import Line
from flowyml.plan.groups import outputs_in
from flowyml.plan.model import Plan, Source

__all__ = ["Arrow", "Level", "Piece", "arrows", "framed", "levels", "lines_of"]


@dataclass(frozen=True, slots=True)
class Arrow:
    """From a step to a step or, if ``is_group``, to a group.

    ``outputs`` are the values; empty if only the order counts.
    """

    start: str
    end: str
    outputs: tuple[str, ...]
    is_group: bool = False


def framed(plan: Plan) -> frozenset[str]:
    return frozenset(group.name for group in plan.groups if plan.structure.members(group.name))


def arrows(plan: Plan, frames: Collection[str]) -> Iterator[Arrow]:
    """Yield all arrows, in the plan's order. The inputs of a loop or a condition lead to the group.

    If a group is not among ``frames``, its arrows lead to the steps in the group.
    """
    for step in plan:
        sources = [*(item.source for item in step.inputs), *_frameless(plan, step.group, frames)]
        starts = dict.fromkeys([*step.upstream, *(output.step for output in outputs_in(sources))])
        yield from (Arrow(name, step.name, _carried(sources, name)) for name in starts)
    for group in plan.groups:
        if group.name in frames:
            sources = [*plan.structure.sources(group), *_frameless(plan, group.parent, frames)]
            starts = dict.fromkeys(output.step for output in outputs_in(sources))
            yield from (Arrow(name, group.name, _carried(sources, name), is_group=True) for name in starts)


def lines_of(plan: Plan) -> list[Line]:
    """Return lines for drawings without frames: one for each dependency of a step, including those of its groups."""
    return [Line(arrow.start, arrow.end, bool(arrow.outputs)) for arrow in arrows(plan, ())]


def _frameless(plan: Plan, group: str, frames: Collection[str]) -> Iterator[Source]:
    """Yield the sources of the groups around a step, from the innermost outwards, until a group has a frame."""
    for name in reversed(plan.structure.path(group)):
        if name in frames:
            return
        yield from plan.structure.sources(plan.structure.by_name[name])


def _carried(sources: Iterable[Source], start: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(output.output for output in outputs_in(sources) if output.step == start))


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of an arrow in one level. ``step`` is the arrow's start; the arrow ends in this level if ``arrives``."""

    start: str
    end: str
    step: str
    data: bool
    arrives: bool


@dataclass(frozen=True, slots=True)
class Level:
    """The content of one group, or of the pipeline itself: nodes in a topological order, and the lines between them.

    A node is ``step NAME``, ``group NAME``, or a point where a line of a step enters, ``in NAME``, or leaves, ``out
    NAME``.
    """

    nodes: Sequence[str]
    pieces: Sequence[Piece]

    def ports(self, side: str) -> list[str]:
        """Return the nodes where lines enter (``in``) or leave (``out``)."""
        return [name for name in self.nodes if name.startswith(f"{side} ")]


def levels(plan: Plan) -> Mapping[str, Level]:
    """Return the levels by group; the pipeline's own has an empty name.

    A group is left out, and its steps are in the group around it, if a step outside depends on it and it on that step.
    """
    frames = set(framed(plan))
    while True:
        around = {group.name: [name for name in plan.structure.path(group.name) if name in frames]
                  for group in plan.groups} | {"": []}  # fmt: skip
        nodes: dict[str, dict[str, list[str]]] = {name: {} for name in ("", *sorted(frames))}
        for group in plan.groups:
            if group.name in frames:
                nodes[_last(around[group.parent])][f"group {group.name}"] = []
        for step in plan:
            nodes[_last(around[step.group])][f"step {step.name}"] = []
        pieces: dict[str, dict[Piece, None]] = {name: {} for name in nodes}
        for arrow in arrows(plan, frames):
            for level, piece in _pieces(plan, arrow, around):
                pieces[level][piece] = None
                nodes[level].setdefault(piece.start, [])
                nodes[level].setdefault(piece.end, []).append(piece.start)
        circles = {name: _circle(before) for name, before in nodes.items()}
        tangled = {node.removeprefix("group ") for circle in circles.values() for node in circle} & frames
        if not tangled:
            return {name: Level(_in_order(before), list(pieces[name])) for name, before in nodes.items()}
        frames -= tangled


def _last(names: Sequence[str]) -> str:
    return names[-1] if names else ""


def _pieces(plan: Plan, arrow: Arrow, around: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Piece]]:
    """Split an arrow by levels: out of the groups around its start, across, and into the groups around its end."""
    start = [f"group {name}" for name in around[plan.by_name[arrow.start].group]] + [f"step {arrow.start}"]
    if arrow.is_group:
        end = [f"group {name}" for name in around[arrow.end]]
    else:
        end = [f"group {name}" for name in around[plan.by_name[arrow.end].group]] + [f"step {arrow.end}"]
    shared = 0
    while start[shared] == end[shared]:
        shared += 1
        if shared == len(end):  # a group that takes from within itself
            return
    data, step = bool(arrow.outputs), arrow.start
    for depth in range(shared, len(start) - 1):
        yield _level(start[depth]), Piece(start[depth + 1], f"out {step}", step, data, arrives=False)
    level = _level(start[shared - 1]) if shared else ""
    yield level, Piece(start[shared], end[shared], step, data, arrives=shared == len(end) - 1)
    for depth in range(shared, len(end) - 1):
        yield _level(end[depth]), Piece(f"in {step}", end[depth + 1], step, data, arrives=depth == len(end) - 2)


def _level(node: str) -> str:
    return node.removeprefix("group ")


def _circle(before: Mapping[str, Sequence[str]]) -> Sequence[str]:
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        circle: Sequence[str] = error.args[1]
        return circle
    return ()


def _in_order(before: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a topological order, as close as possible to the given one."""
    order = TopologicalSorter(dict.fromkeys(before, ()))
    for name, starts in before.items():
        order.add(name, *starts)
    return list(order.static_order())
