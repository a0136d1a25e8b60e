"""Where the steps of a graph stand: in layers by longest path, ordered and placed so that lines are short.

A line that passes layers on its way is a slot in each of them too; all such lines of one step share one slot, so that
they run together until they branch off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from flowyml.plan.model import Plan, Step
from flowyml.plan.values import steps_of

__all__ = ["Link", "Slot", "layers_of", "place", "stages"]

_SWEEPS = 12
_MOST_PASSING = 5000


@dataclass(eq=False, slots=True)
class Slot:
    """A place in a layer: a step, or, where ``step`` is None, the line of ``source`` on its way to later layers.

    ``size`` and ``position`` (of its middle) are measured along the layer.
    """

    source: str
    layer: int
    size: float
    step: Step | None = None
    position: float = 0.0
    before: list[Link] = field(default_factory=list)
    after: list[Link] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A piece of a line, from one layer to the next. Without ``data`` it only says what comes first."""

    start: Slot
    end: Slot
    data: bool


def stages(plan: Plan) -> dict[str, int]:
    """The layer of each step: one after the last of those it waits for; a source stands just before its first user."""
    stage: dict[str, int] = {}
    for step in plan:
        stage[step.name] = 1 + max((stage[name] for name in plan.structure.upstream(step)), default=-1)
    for step in plan:
        following = plan.downstream[step.name]
        if following and not plan.structure.upstream(step):
            stage[step.name] = min(stage[name] for name in following) - 1
    return stage


def layers_of(plan: Plan, size: Callable[[Step], float], line: float) -> list[list[Slot]]:
    """Layers of slots with their links, ordered so that few lines cross."""
    stage = stages(plan)
    layers: list[list[Slot]] = [[] for _ in range(max(stage.values(), default=-1) + 1)]
    slots = {step.name: Slot(step.name, stage[step.name], size(step), step) for step in plan}
    for slot in slots.values():
        layers[slot.layer].append(slot)
    passing = sum(
        max((stage[name] for name in following), default=stage[start]) - stage[start] - 1
        for start, following in plan.downstream.items()
        if following
    )
    for step in plan:
        _connect(plan, slots, layers, slots[step.name], line if passing <= _MOST_PASSING else None)
    _order(layers)
    return layers


def place(layers: Sequence[Sequence[Slot]], gap: float) -> None:
    """Give every slot its position: near the slots it is linked to, no two closer than ``gap``; the first at 0."""
    for layer in layers:
        _settle(layer, gap, [slot.position for slot in layer])
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _settle(layer, gap, _wanted(layer, sweep % 2 == 0))
    left = min((slot.position - slot.size / 2 for layer in layers for slot in layer), default=0.0)
    for layer in layers:
        for slot in layer:
            slot.position -= left


def _connect(plan: Plan, slots: dict[str, Slot], layers: list[list[Slot]], start: Slot, line: float | None) -> None:
    """Link a step to those that follow it, through slots in the layers between."""
    ends = [slots[name] for name in plan.downstream[start.source]]
    data = {end.source: _passes_data(plan, start.source, end.source) for end in ends}
    if line is None:
        for end in ends:
            _link(start, end, data[end.source])
        return
    here = start
    while ends:
        for end in (end for end in ends if end.layer == here.layer + 1):
            _link(here, end, data[end.source])
        ends = [end for end in ends if end.layer > here.layer + 1]
        if ends:
            passing = Slot(start.source, here.layer + 1, line)
            layers[passing.layer].append(passing)
            _link(here, passing, any(data[end.source] for end in ends))
            here = passing


def _link(start: Slot, end: Slot, data: bool) -> None:
    link = Link(start, end, data)
    start.after.append(link)
    end.before.append(link)


def _passes_data(plan: Plan, start: str, end: str) -> bool:
    return any(start in steps_of(source) for source in plan.structure.values(plan.by_name[end]))


def _order(layers: list[list[Slot]]) -> None:
    """Sort each layer by where its neighbours stand, down and up, and keep the order with the fewest crossings."""
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
    """The mean position of the neighbours on one side; of those on the other side where there are none."""
    sides = (slot.before, slot.after) if before else (slot.after, slot.before)
    if links := sides[0] or sides[1]:
        return sum(link.start.position if link.end is slot else link.end.position for link in links) / len(links)
    return slot.position


def _wanted(layer: Sequence[Slot], before: bool) -> list[float]:
    """Where each slot would stand if it were alone: passing lines go straight on, unlinked steps stay with the rest."""
    linked = [slot.position for slot in layer if slot.before or slot.after]
    middle = sum(linked) / len(linked) if linked else 0.0
    return [_straight(slot, before) if slot.before or slot.after else middle for slot in layer]


def _straight(slot: Slot, before: bool) -> float:
    if slot.step is None:
        ends = [link.start for link in slot.before] if before else [link.end for link in slot.after]
        for end in ends:
            if end.step is None:
                return end.position
    return _middle(slot, before)


def _crossings(layers: Sequence[Sequence[Slot]]) -> int:
    """How many pairs of links cross, counted as inversions by merge sort."""
    total = 0
    for layer in layers[:-1]:
        ends = [link.end.position for slot in layer for link in sorted(slot.after, key=lambda link: link.end.position)]
        total += _inversions(ends)[0]
    return total


def _inversions(values: list[float]) -> tuple[int, list[float]]:
    if len(values) < 2:
        return 0, values
    half = len(values) // 2
    (a, left), (b, right) = _inversions(values[:half]), _inversions(values[half:])
    count, merged, taken = a + b, [], 0
    for value in right:
        while taken < len(left) and left[taken] <= value:
            merged.append(left[taken])
            taken += 1
        merged.append(value)
        count += len(left) - taken
    return count, merged + left[taken:]


def _settle(layer: Sequence[Slot], gap: float, wanted: Sequence[float]) -> None:
    """The positions nearest to those wanted that keep order and distance: isotonic regression.

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
    if slot.step is None:
        return 4.0
    return 1.0 if slot.before or slot.after else 0.001
