"""Draw a plan as boxes and lines for a terminal, or as a list of stages if boxes do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flowyml.core.plain_text import safe_line
from flowyml.graph.arrows import lines_of
from flowyml.graph.closing import PlanToDraw, plan_to_draw
from flowyml.graph.execution_groups import SharedProcess
from flowyml.graph.layout import Line, Slot, layers_of, place, stages
from flowyml.graph.lines import Canvas, Wire, tracks
from flowyml.graph.text import cut, title_of, width
from flowyml.plan.groups import Branch, Cleanup, Loop
from flowyml.plan.model import Plan, Step

__all__ = ["terminal"]

_MOST_STEPS = 60
_LONGEST_NAME = 32
_GAP = 3
_MARKS = {Loop: "⟳", Branch: "?", Cleanup: "⏏", SharedProcess: "▤"}
_CLOSED = "⊞"
_MOST_GROUPS = 20


def terminal(plan: Plan, *, columns: int = 100, expand: bool = False) -> str:
    """Return the graph, top to bottom; as a list of stages if it is wider than ``columns``, or too tangled.

    Steps have marks for their groups, which are explained below the graph. A sub-pipeline is one box; with ``expand``,
    its steps are drawn.
    """
    picture = plan_to_draw(plan, expand=expand)
    return _steps(picture, columns) + _legend(picture, columns)


def _steps(picture: PlanToDraw, columns: int) -> str:
    if len(picture.plan.steps) > _MOST_STEPS:
        return _listed(picture, columns)
    lines = lines_of(picture.plan)
    layers = layers_of(_box_widths(picture, lines), lines, 1)
    place(layers, _GAP)
    boxes = _left_edges(layers)
    if max((left + int(slot.size) for slot, left in boxes.items()), default=0) > columns:
        return _listed(picture, columns)
    return _drawn(picture, layers, boxes) or _listed(picture, columns)


def _box_widths(picture: PlanToDraw, lines: Iterable[Line]) -> dict[str, float]:
    """Return the widths of boxes: for the name, and an arrow from each step before; odd, so that a box has a middle."""
    arrows = Counter(line.end for line in lines)
    rooms = {step.name: max(width(_name(picture, step)) + 4, 2 * arrows[step.name] + 3) for step in picture.plan}
    return {name: room if room % 2 else room + 1 for name, room in rooms.items()}


def _left_edges(layers: list[list[Slot]]) -> dict[Slot, int]:
    """Return the column where each slot begins. A line that passes several layers stays in its column if possible."""
    edges: dict[Slot, int] = {}
    for layer in layers:
        for slot in layer:
            edges[slot] = round(slot.position - slot.size / 2)
        for index, slot in enumerate(layer):
            if not slot.is_node and not (before := slot.before[0].start).is_node:
                left = edges[layer[index - 1]] + layer[index - 1].size if index else -1
                right = edges[layer[index + 1]] if index + 1 < len(layer) else left + 1000
                if abs(edges[before] - edges[slot]) <= 2 and left < edges[before] < right - 1:
                    edges[slot] = edges[before]
    return edges


def _drawn(picture: PlanToDraw, layers: list[list[Slot]], boxes: dict[Slot, int]) -> str | None:
    """Return the drawing; None if lines would overlap."""
    canvas, row = Canvas(), 0
    for index, layer in enumerate(layers):
        for slot in layer:
            if slot.is_node:
                canvas.box(row, boxes[slot], int(slot.size), _name(picture, picture.plan.by_name[slot.node]))
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
    """Return one wire for each slot of the layer: from a port below it to a port above each following slot."""
    ports: dict[Slot, dict[int, bool]] = {slot: {} for slot in layer}
    for slot in following:
        links = sorted(slot.before, key=lambda link: link.start.position)
        for link, column in zip(links, _entries(slot, [boxes[link.start] for link in links], boxes), strict=True):
            ports[link.start][column] = slot.is_node
    taken = {column: slot for slot, columns in ports.items() for column in columns}
    return [
        Wire(_exit(slot, list(columns), taken, boxes), columns, slot.is_node)
        for slot, columns in ports.items()
        if columns
    ]


def _entries(slot: Slot, starts: list[int], boxes: dict[Slot, int]) -> list[int]:
    """Return the columns where lines enter: straight down for one line, side by side in the middle for several."""
    left, size = boxes[slot], int(slot.size)
    middle = left + size // 2
    if not slot.is_node:
        return [left]
    if len(starts) == 1:
        start = slot.before[0].start
        column = boxes[start] + int(start.size) // 2
        return [min(max(column, left + 2), left + size - 3) if abs(column - middle) <= 2 else middle]
    spread = min(4, max(2, (size - 3) // (len(starts) - 1) // 2 * 2))
    first = middle - spread * (len(starts) - 1) // 2
    return [first + spread * index for index in range(len(starts))]


def _exit(slot: Slot, ends: list[int], taken: dict[int, Slot], boxes: dict[Slot, int]) -> int:
    """Return the column where the line leaves: straight down if possible, never above the entry of another line."""
    left, size = boxes[slot], int(slot.size)
    middle = left + size // 2
    if not slot.is_node:
        return left
    inside = range(left + 1, left + size - 1)
    straight = sorted((column for column in ends if column in inside), key=lambda column: abs(column - middle))
    if straight and (len(ends) == 1 or abs(straight[0] - middle) <= 1):
        return straight[0]
    near = sorted(inside, key=lambda column: (abs(column - middle), column))
    return next((column for column in near if taken.get(column, slot) is slot), middle)


def _listed(picture: PlanToDraw, columns: int) -> str:
    """Return one line for each step, by stage, with the steps that it waits for."""
    plan, arrows = picture.plan, lines_of(picture.plan)
    stage = stages([step.name for step in plan], arrows)
    before: dict[str, list[str]] = {}
    for arrow in arrows:
        before.setdefault(arrow.end, []).append(arrow.start)
    longest = max(width(_name(picture, step)) for step in plan)
    digits = len(str(max(stage.values()) + 1))
    members: dict[int, list[Step]] = {}
    for step in plan:
        members.setdefault(stage[step.name], []).append(step)
    lines = []
    for number in sorted(members):
        for index, step in enumerate(members[number]):
            label = str(number + 1) if index == 0 else ""
            name = _name(picture, step)
            line = f"{label:>{digits}} {_branch(index, len(members[number]))} {name}{' ' * (longest - width(name))}"
            if step.name in before:
                line = cut(safe_line(f"{line}  ← {', '.join(before[step.name])}"), columns)
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def _name(picture: PlanToDraw, step: Step) -> str:
    """Return the name with marks for a loop, a branch, a clean-up, an execution group, a sub-pipeline."""
    structure = picture.plan.structure
    around = (_MARKS.get(type(structure.by_name[name]), "") for name in structure.path(step.group))
    marks = "".join(around) + (_CLOSED if step.name in picture.closed else "")
    return cut(safe_line(f"{step.name} {marks}" if marks else step.name), _LONGEST_NAME)


def _legend(picture: PlanToDraw, columns: int) -> str:
    """Return a line for each group, with its steps and the groups in it; empty for a plan without groups."""
    structure = picture.plan.structure
    lines = []
    for group in structure:
        inside = [step.name for step in picture.plan if step.group == group.name]
        inside += [title_of(inner) for inner in structure if inner.parent == group.name]
        if structure.members(group.name) and type(group) in _MARKS:
            lines.append(f"{_MARKS[type(group)]} {title_of(group)}: {', '.join(inside)}")
    lines += [f"{_CLOSED} pipeline {name}: {', '.join(inside)}" for name, inside in picture.closed.items()]
    if len(lines) > _MOST_GROUPS:
        lines = [*lines[: _MOST_GROUPS - 1], f"  … {len(lines) - _MOST_GROUPS + 1} more"]
    return "".join(f"{cut(safe_line(line), columns)}\n" for line in ["", *lines]) if lines else ""


def _branch(index: int, members: int) -> str:
    if members == 1:
        return "──"
    return "┬─" if index == 0 else "╰─" if index == members - 1 else "├─"
