"""Place the nodes of a graph: in layers by longest path, ordered and positioned so that lines are short.

A line that passes layers has a slot in each of them, too. All such lines that leave a node together share one slot, so
that they run together until they branch off.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Line", "Link", "Slot", "layers_of", "place", "stages"]

_SWEEPS = 12
_MOST_PASSING = 5000


@dataclass(frozen=True, slots=True)
class Line:
    """A line from one node to another; without ``data`` it is only an order.

    Lines of one ``origin`` leave a node together. ``leave`` and ``enter`` are the points at its ends, measured from the
    nodes' middles. Unless it ``arrives``, it continues within the node.
    """

    start: str
    end: str
    data: bool = True
    arrives: bool = True
    origin: str = ""
    leave: float = 0.0
    enter: float = 0.0


@dataclass(eq=False, slots=True)
class Slot:
    """A position in a layer: of a node or, if not ``is_node``, of a line from ``node`` on its way to later layers.

    ``size`` and ``position`` (of its middle) are measured along the layer.
    """

    node: str
    layer: int
    size: float
    is_node: bool = True
    position: float = 0.0
    before: list[Link] = field(default_factory=list)
    after: list[Link] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A piece of a line, from one layer to the next. ``leave`` and ``enter`` are measured from the slots' middles.

    It ends in a tip if it ``arrives``.
    """

    start: Slot
    end: Slot
    data: bool
    arrives: bool
    leave: float = 0.0
    enter: float = 0.0

    @property
    def begins(self) -> float:
        """The position of its start along the layer."""
        return self.start.position + self.leave

    @property
    def ends(self) -> float:
        """The position of its end along the layer."""
        return self.end.position + self.enter


def stages(
    nodes: Iterable[str], lines: Iterable[Line], first: Collection[str] = (), last: Collection[str] = ()
) -> dict[str, int]:
    """Return the layer of each node: one after the last of its predecessors; a source is just before its first user.

    ``nodes`` are in a topological order. Those of ``first`` share the first layer, those of ``last`` the last one.
    """
    before: dict[str, list[str]] = {name: [] for name in nodes}
    after: dict[str, list[str]] = {name: [] for name in before}
    for line in lines:
        before[line.end].append(line.start)
        after[line.start].append(line.end)
    stage: dict[str, int] = {}
    for name, starts in before.items():
        at_least = 1 if first and name not in first else 0
        stage[name] = max((stage[start] + 1 for start in starts), default=at_least)
    for name, ends in after.items():
        if ends and not before[name] and name not in first:
            stage[name] = min(stage[end] for end in ends) - 1
    end = max((stage[name] for name in stage if name not in last), default=-1) + 1
    return stage | dict.fromkeys(last, end)


def layers_of(
    nodes: Mapping[str, float],
    lines: Sequence[Line],
    line_size: float,
    first: Collection[str] = (),
    last: Collection[str] = (),
) -> list[list[Slot]]:
    """Return layers of slots with their links, ordered so that few lines cross; ``nodes`` are names and sizes."""
    stage = stages(nodes, lines, first, last)
    layers: list[list[Slot]] = [[] for _ in range(max(stage.values(), default=-1) + 1)]
    slots = {name: Slot(name, stage[name], size) for name, size in nodes.items()}
    for slot in slots.values():
        layers[slot.layer].append(slot)
    together: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        together.setdefault((line.start, line.origin), []).append(line)
    passing = sum(max(stage[line.end] for line in group) - stage[start] - 1 for (start, _), group in together.items())
    for group in together.values():
        _connect(slots, layers, group, line_size if passing <= _MOST_PASSING else None)
    _order(layers)
    return layers


def place(layers: Sequence[Sequence[Slot]], gap: float, *, straight_out: bool = False) -> None:
    """Position every slot: near the slots it is linked to, no two closer than ``gap``; the first at 0.

    With ``straight_out`` the slots of the last layer, which lines only leave, are aligned with the slots before them.
    """
    for layer in layers:
        _settle(layer, gap, [slot.position for slot in layer])
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _settle(layer, gap, _wanted(layer, sweep % 2 == 0))
    if straight_out:
        _settle(layers[-1], gap, _wanted(layers[-1], before=True))
    left = min((slot.position - slot.size / 2 for layer in layers for slot in layer), default=0.0)
    for layer in layers:
        for slot in layer:
            slot.position -= left


def _connect(slots: Mapping[str, Slot], layers: list[list[Slot]], lines: Sequence[Line], size: float | None) -> None:
    """Link a node to the ends of the lines that leave it together, through slots in the layers between."""
    start, leave = slots[lines[0].start], lines[0].leave
    if size is None:
        for line in lines:
            _link(Link(start, slots[line.end], line.data, line.arrives, leave, line.enter))
        return
    here, pending = start, list(lines)
    while pending:
        for line in pending:
            if slots[line.end].layer == here.layer + 1:
                _link(Link(here, slots[line.end], line.data, line.arrives, leave, line.enter))
        pending = [line for line in pending if slots[line.end].layer > here.layer + 1]
        if pending:
            passing = Slot(start.node, here.layer + 1, size, is_node=False)
            layers[passing.layer].append(passing)
            _link(Link(here, passing, any(line.data for line in pending), arrives=False, leave=leave))
            here, leave = passing, 0.0


def _link(link: Link) -> None:
    link.start.after.append(link)
    link.end.before.append(link)


def _order(layers: list[list[Slot]]) -> None:
    """Sort each layer by the positions of neighbours, down and up; use the order with the fewest crossings."""
    _number(layers)
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            layer.sort(key=lambda slot: _middle(slot, sweep % 2 == 0))
            for index, slot in enumerate(layer):
                slot.position = index
        crossings = _crossings(layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best
    _number(layers)


def _number(layers: Iterable[Sequence[Slot]]) -> None:
    for layer in layers:
        for index, slot in enumerate(layer):
            slot.position = index


def _middle(slot: Slot, before: bool | None) -> float:
    """Return the mean position of the neighbours on one side; of those on the other side if that side has none."""
    sides = (slot.before, slot.after) if before else (slot.after, slot.before)
    if links := sides[0] or sides[1]:
        positions = (link.begins - link.enter if link.end is slot else link.ends - link.leave for link in links)
        return sum(positions) / len(links)
    return slot.position


def _wanted(layer: Sequence[Slot], before: bool) -> list[float]:
    """Return the best position of each slot if it were alone.

    Lines that pass a layer go straight; nodes without links stay with the rest.
    """
    linked = [slot.position for slot in layer if slot.before or slot.after]
    middle = sum(linked) / len(linked) if linked else 0.0
    return [_straight(slot, before) if slot.before or slot.after else middle for slot in layer]


def _straight(slot: Slot, before: bool) -> float:
    if not slot.is_node:
        ends = [link.start for link in slot.before] if before else [link.end for link in slot.after]
        for end in ends:
            if not end.is_node:
                return end.position
    return _middle(slot, before)


def _crossings(layers: Sequence[Sequence[Slot]]) -> int:
    """Return the number of pairs of links that cross: those whose ends have another order than their starts."""
    total = 0
    for layer in layers[:-1]:
        before: list[float] = []  # the ends of the links so far, sorted
        for slot in layer:
            for link in sorted(slot.after, key=lambda link: (link.leave, link.ends)):
                total += len(before) - bisect_right(before, link.ends)
                insort(before, link.ends)
    return total


def _settle(layer: Sequence[Slot], gap: float, wanted: Sequence[float]) -> None:
    """Find the positions nearest to the wanted ones with the same order and enough distance: isotonic regression.

    Distances are taken out first; then neighbours in the wrong order are merged into blocks that stand at their mean
    (source: Barlow et al., *Statistical Inference under Order Restrictions*, pool adjacent violators).
    """
    if not layer:
        return
    offsets = [0.0]
    for left, right in pairwise(layer):
        offsets.append(offsets[-1] + left.size / 2 + right.size / 2 + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, number of slots
    for slot, want, offset in zip(layer, wanted, offsets, strict=True):
        mean, weight, count = want - offset, _weight(slot), 1
        while blocks and blocks[-1][0] > mean:
            other, other_weight, other_count = blocks.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        blocks.append((mean, weight, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for slot, mean, offset in zip(layer, means, offsets, strict=True):
        slot.position = mean + offset


def _weight(slot: Slot) -> float:
    if not slot.is_node:
        return 4.0
    return 1.0 if slot.before or slot.after else 0.001
