"""A plan as boxes and lines for a terminal, or as a list of stages where boxes would not fit."""

from __future__ import annotations

from flowyml.core.plain_text import safe_line
from flowyml.graph.layout import Slot, layers_of, place, stages
from flowyml.graph.lines import Canvas, Wire, tracks
from flowyml.graph.text import cut, width
from flowyml.plan.groups import Branch, Cleanup, Loop
from flowyml.plan.model import Plan, Step

__all__ = ["terminal"]

_MOST_STEPS = 60
_LONGEST_NAME = 32
_GAP = 3
_MARKS = {Loop: "⟳", Branch: "?", Cleanup: "⏏"}


def terminal(plan: Plan, *, columns: int = 100) -> str:
    """The graph, top to bottom; as a list of stages when that is wider than ``columns``, or too much to follow."""
    if len(plan.steps) > _MOST_STEPS:
        return _listed(plan, columns)
    layers = layers_of(plan, lambda step: _box_width(plan, step), 1)
    place(layers, _GAP)
    boxes = _left_edges(layers)
    if max((left + int(slot.size) for slot, left in boxes.items()), default=0) > columns:
        return _listed(plan, columns)
    return _drawn(plan, layers, boxes) or _listed(plan, columns)


def _box_width(plan: Plan, step: Step) -> int:
    """Room for the name, and for an arrow from each step before; odd, so that it has a middle."""
    room = max(width(_name(plan, step)) + 4, 2 * len(plan.structure.upstream(step)) + 3)
    return room if room % 2 else room + 1


def _left_edges(layers: list[list[Slot]]) -> dict[Slot, int]:
    """The column where each slot begins. A line that passes several layers stays on its column where there is room."""
    edges: dict[Slot, int] = {}
    for layer in layers:
        for slot in layer:
            edges[slot] = round(slot.position - slot.size / 2)
        for index, slot in enumerate(layer):
            if slot.step is None and (before := slot.before[0].start).step is None:
                left = edges[layer[index - 1]] + layer[index - 1].size if index else -1
                right = edges[layer[index + 1]] if index + 1 < len(layer) else left + 1000
                if abs(edges[before] - edges[slot]) <= 2 and left < edges[before] < right - 1:
                    edges[slot] = edges[before]
    return edges


def _drawn(plan: Plan, layers: list[list[Slot]], boxes: dict[Slot, int]) -> str | None:
    """The drawing; None for a tangle, whose lines would lie on one another."""
    canvas, row = Canvas(), 0
    for index, layer in enumerate(layers):
        for slot in layer:
            if slot.step:
                canvas.box(row, boxes[slot], int(slot.size), _name(plan, slot.step))
        if index == len(layers) - 1:
            break
        wires = _wires(layer, layers[index + 1], boxes)
        rows = tracks(wires)
        if rows is None:
            return None
        for wire in wires:
            canvas.leave(row, wire)
        row = canvas.wire(row + 3, wires, rows)
    return canvas.text()


def _wires(layer: list[Slot], following: list[Slot], boxes: dict[Slot, int]) -> list[Wire]:
    """One wire for each slot of the layer: from a port at its bottom to a port at the top of each that follows."""
    ports: dict[Slot, dict[int, bool]] = {slot: {} for slot in layer}
    for slot in following:
        links = sorted(slot.before, key=lambda link: link.start.position)
        for link, column in zip(links, _entries(slot, [boxes[link.start] for link in links], boxes), strict=True):
            ports[link.start][column] = slot.step is not None
    taken = {column: slot for slot, columns in ports.items() for column in columns}
    return [
        Wire(_exit(slot, list(columns), taken, boxes), columns, slot.step is not None)
        for slot, columns in ports.items()
        if columns
    ]


def _entries(slot: Slot, starts: list[int], boxes: dict[Slot, int]) -> list[int]:
    """The columns where lines enter: straight down if there is one, side by side in the middle if there are more."""
    left, size = boxes[slot], int(slot.size)
    middle = left + size // 2
    if slot.step is None:
        return [left]
    if len(starts) == 1:
        start = slot.before[0].start
        column = boxes[start] + int(start.size) // 2
        return [min(max(column, left + 2), left + size - 3) if abs(column - middle) <= 2 else middle]
    spread = min(4, max(2, (size - 3) // (len(starts) - 1) // 2 * 2))
    first = middle - spread * (len(starts) - 1) // 2
    return [first + spread * index for index in range(len(starts))]


def _exit(slot: Slot, ends: list[int], taken: dict[int, Slot], boxes: dict[Slot, int]) -> int:
    """The column where the line leaves: straight down if it can, never above the entry of another line."""
    left, size = boxes[slot], int(slot.size)
    middle = left + size // 2
    if slot.step is None:
        return left
    inside = range(left + 1, left + size - 1)
    straight = sorted((column for column in ends if column in inside), key=lambda column: abs(column - middle))
    if straight and (len(ends) == 1 or abs(straight[0] - middle) <= 1):
        return straight[0]
    near = sorted(inside, key=lambda column: (abs(column - middle), column))
    return next((column for column in near if taken.get(column, slot) is slot), middle)


def _listed(plan: Plan, columns: int) -> str:
    """One line a step, by stage, each with those it waits for."""
    stage = stages(plan)
    longest = max(width(_name(plan, step)) for step in plan)
    digits = len(str(max(stage.values()) + 1))
    lines = []
    for number in range(max(stage.values()) + 1):
        members = [step for step in plan if stage[step.name] == number]
        for index, step in enumerate(members):
            label = str(number + 1) if index == 0 else ""
            name = _name(plan, step)
            before = plan.structure.upstream(step)
            line = f"{label:>{digits}} {_branch(index, len(members))} {name}{' ' * (longest - width(name))}"
            lines.append(cut(safe_line(f"{line}  ← {', '.join(before)}"), columns) if before else line.rstrip())
    return "\n".join(lines) + "\n"


def _name(plan: Plan, step: Step) -> str:
    """The name with a mark: of a loop, of a branch, of the end."""
    around = [plan.structure.by_name[name] for name in plan.structure.path(step.group)]
    marks = "".join(_MARKS[type(group)] for group in around if type(group) in _MARKS)
    return cut(safe_line(f"{step.name} {marks}" if marks else step.name), _LONGEST_NAME)


def _branch(index: int, members: int) -> str:
    if members == 1:
        return "──"
    return "┬─" if index == 0 else "╰─" if index == members - 1 else "├─"
