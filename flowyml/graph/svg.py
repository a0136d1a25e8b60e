"""Draw a plan as a self-contained SVG picture, without fonts or scripts, for light and dark themes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from flowyml.core.durations import counted, span_text
from flowyml.graph.arrows import Piece, levels
from flowyml.graph.closing import PlanToDraw, plan_to_draw
from flowyml.graph.execution_groups import SharedProcess
from flowyml.graph.layout import Line, Link, Slot, layers_of, place
from flowyml.graph.text import cut, title_of, width
from flowyml.plan.groups import Branch, Cleanup, Loop, Section
from flowyml.plan.model import Constant, FromEither, FromItem, FromParameter, FromStep, Plan, Source, Step
from flowyml.plan.parameters import in_words

__all__ = ["svg"]

_CELL, _SMALL_CELL = 7.9, 6.7
_HEIGHT, _GAP, _MARGIN, _HEADER = 46, 18, 28, 72
_TITLE, _PADDING = 32, 16  # of a frame: above its content, and on the other sides
_LONGEST_NAME, _LONGEST_TITLE = 32, 60
_KINDS = {Loop: "loop", Branch: "branch", Cleanup: "cleanup", Section: "", SharedProcess: "together"}
# Attributes that every program understands. Librsvg, Inkscape, LaTeX and office programs know no custom properties;
# browsers use those of the style sheet, which wins over attributes (source: SVG 2, 6.6 Presentation attributes).
_PLAIN = {
    "ground": 'fill="#ffffff"',
    "box": 'fill="#f7f8fb" stroke="#cdd3de"',
    "bar": 'fill="#4c5fd5"',
    "frame": 'fill="#5b6577" fill-opacity="0.05" stroke="#5b6577" stroke-opacity="0.5"',
    "frame loop": 'fill="#4c5fd5" fill-opacity="0.07" stroke="#4c5fd5" stroke-opacity="0.6"',
    "frame branch": 'fill="#b7791f" fill-opacity="0.08" stroke="#b7791f" stroke-opacity="0.7"',
    "frame cleanup": 'fill="#2f855a" fill-opacity="0.08" stroke="#2f855a" stroke-opacity="0.6"',
    "frame together": 'fill="#5b6577" fill-opacity="0.05" stroke="#5b6577" stroke-dasharray="5 4"',
    "group": 'font-size="11" font-weight="600" fill="#1d2433"',
    "tip": 'fill="#8a94a6"',
    "name": 'font-size="13" font-weight="600" fill="#1d2433"',
    "note": 'font-size="11" fill="#5b6577"',
    "title": 'font-size="17" font-weight="700" fill="#1d2433"',
    "line": 'fill="none" stroke="#8a94a6" stroke-width="1.5"',
    "line order": 'fill="none" stroke="#8a94a6" stroke-width="1.5" stroke-dasharray="4 4"',
}
_FONT = "font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\""
_STYLE = """
  @supports (fill: var(--line)) {
    .flowyml {
      --ground: #ffffff; --box: #f7f8fb; --edge: #cdd3de; --line: #8a94a6;
      --text: #1d2433; --dim: #5b6577; --bar: #4c5fd5; --branch: #b7791f; --cleanup: #2f855a;
    }
    @media (prefers-color-scheme: dark) {
      .flowyml {
        --ground: #14171f; --box: #1e2330; --edge: #39415a; --line: #7d89a3;
        --text: #e8ebf4; --dim: #9aa5bd; --bar: #8c9bff; --branch: #e0aa52; --cleanup: #6cc495;
      }
    }
    .flowyml .ground { fill: var(--ground); }
    .flowyml .box { fill: var(--box); stroke: var(--edge); }
    .flowyml .bar { fill: var(--bar); }
    .flowyml .tip { fill: var(--line); }
    .flowyml .line { stroke: var(--line); }
    .flowyml .frame { fill: var(--dim); stroke: var(--dim); }
    .flowyml .loop { fill: var(--bar); stroke: var(--bar); }
    .flowyml .branch { fill: var(--branch); stroke: var(--branch); }
    .flowyml .cleanup { fill: var(--cleanup); stroke: var(--cleanup); }
    .flowyml .name, .flowyml .title, .flowyml .group { fill: var(--text); }
    .flowyml .note { fill: var(--dim); }
  }
"""


def svg(plan: Plan, *, expand: bool = False) -> str:
    """Return the picture, left to right. A dashed line is an order without data.

    Each box shows its details when hovered.

    Loops, branches, clean-up and execution groups are frames around their steps; so are sub-pipelines with ``expand``,
    else each is one box.
    """
    picture = _Picture(plan_to_draw(plan, expand=expand))
    notes = _parameters(plan)
    titles = [2 * _MARGIN + width(text) * cell for text, cell in ((_title(plan), 10.4), (notes, _SMALL_CELL))]
    across = max(2 * _MARGIN + picture.whole.width, *titles)
    bottom = _HEADER + picture.whole.height + _MARGIN
    body = [
        f'<rect {_drawn_as("ground")} width="{across:.0f}" height="{bottom:.0f}" rx="10"/>',
        _text("title", _MARGIN, 36, _title(plan)),
        _text("note", _MARGIN, 55, notes),
        *picture.drawn(picture.whole, _MARGIN, _HEADER),
    ]
    size = f'viewBox="0 0 {across:.0f} {bottom:.0f}" width="{across:.0f}" height="{bottom:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="flowyml" role="img" {_FONT} {size}>'
    return "\n".join(
        (head, f"<title>{_safe(plan.name)}</title>", f"<style>{_STYLE}</style>", _tip(), *body, "</svg>\n")
    )


@dataclass(frozen=True, slots=True)
class _Column:
    """The position of a layer, and the width of its steps' boxes."""

    left: float
    width: float
    boxes: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """The content of a group, laid out from the group's left and top."""

    layers: Sequence[Sequence[Slot]]
    columns: Sequence[_Column]
    width: float
    height: float
    inner: Mapping[str, _Frame]

    @property
    def slots(self) -> Iterator[Slot]:
        return (slot for layer in self.layers for slot in layer)

    def port(self, name: str) -> float:
        """Return the point where a line enters or leaves, from the middle of the frame."""
        y = next(slot.position for slot in self.slots if slot.is_node and slot.node == name)
        return _TITLE + y - (self.height + _TITLE + _PADDING) / 2


class _Picture:
    """The layout of a plan, and the elements of its drawing."""

    def __init__(self, what: PlanToDraw) -> None:
        self.plan = what.plan
        self.closed = what.closed
        self.levels = levels(what.plan)
        self.whole = self._laid_out("")

    def _laid_out(self, group: str) -> _Frame:
        level = self.levels[group]
        inner = {node: self._laid_out(_name(node)) for node in level.nodes if node.startswith("group ")}
        sizes = {node: _size(node, inner) for node in level.nodes}
        lines = [_line_of(piece, inner) for piece in level.pieces]
        layers = layers_of(sizes, lines, 6, level.ports("in"), level.ports("out"))
        place(layers, _GAP, straight_out=bool(level.ports("out")))
        columns = list(self._columns(group, layers, inner))
        right = columns[-1].left + columns[-1].width
        if group:
            is_left = bool(level.ports("out"))
            right = max(width(self._title(group)) * _SMALL_CELL + 2 * _PADDING, right if is_left else right + _PADDING)
            columns[-1] = _Column(right, 0.0, 0.0) if is_left else columns[-1]
        bottom = max(slot.position + slot.size / 2 for layer in layers for slot in layer)
        return _Frame(layers, columns, right, bottom, inner)

    def _columns(self, group: str, layers: Sequence[Sequence[Slot]], inner: Mapping[str, _Frame]) -> Iterator[_Column]:
        level = self.levels[group]
        edges = {0} if level.ports("in") else set()
        edges |= {len(layers) - 2} if level.ports("out") else set()
        left: float = _PADDING if group and not level.ports("in") else 0
        for index, layer in enumerate(layers):
            boxes = max((self._box_width(self._step(slot)) for slot in layer if _is_step(slot)), default=0.0)
            frames = (inner[slot.node].width for slot in layer if slot.is_node and slot.node in inner)
            column = _Column(left, max(boxes, *frames, 0.0), boxes)
            yield column
            left += column.width + (24 if index in edges else 52) + min(60, 2 * sum(len(slot.after) for slot in layer))

    def _box_width(self, step: Step) -> float:
        name, note = cut(step.name, _LONGEST_NAME), cut(self._note(step), _LONGEST_NAME)
        return max(72, width(name) * _CELL + 30, width(note) * _SMALL_CELL + 30)

    def _step(self, slot: Slot) -> Step:
        return self.plan.by_name[_name(slot.node)]

    def drawn(self, frame: _Frame, left: float, top: float) -> Iterator[str]:
        """Yield the elements of a frame and of the frames in it: frames lie below lines, lines below boxes."""
        for slot in frame.slots:
            if slot.is_node and slot.node in frame.inner:
                x, y = left + frame.columns[slot.layer].left, top + slot.position - slot.size / 2
                yield self._frame(_name(slot.node), frame.inner[slot.node], x, y)
                yield from self.drawn(frame.inner[slot.node], x, y + _TITLE)
        yield from (_line(link, frame, left, top) for slot in frame.slots for link in slot.after)
        yield from (_passing(slot, frame, left, top) for slot in frame.slots if not slot.is_node)
        yield from (self._box(slot, frame, left, top) for slot in frame.slots if _is_step(slot))

    def _frame(self, name: str, frame: _Frame, left: float, top: float) -> str:
        group = self.plan.structure.by_name[name]
        kind = f"frame {_KINDS[type(group)]}".strip()
        size = f'width="{frame.width:.1f}" height="{frame.height + _TITLE + _PADDING:.1f}"'
        details = "\n".join(text for text in (title_of(group), getattr(group, "description", "")) if text)
        return (
            f"<g><title>{_safe(details)}</title>"
            f'<rect {_drawn_as(kind)} x="{left:.1f}" y="{top:.1f}" {size} rx="9"/>'
            f"{_text('group', left + _PADDING, top + 20, self._title(name))}</g>"
        )

    def _title(self, group: str) -> str:
        return cut(title_of(self.plan.structure.by_name[group]), _LONGEST_TITLE)

    def _box(self, slot: Slot, frame: _Frame, left: float, top: float) -> str:
        step, column = self._step(slot), frame.columns[slot.layer]
        left, top, wide = left + column.left, top + slot.position - _HEIGHT / 2, column.boxes
        note = cut(self._note(step), _LONGEST_NAME)
        size = f'width="{wide:.1f}" height="{_HEIGHT}"'
        shadow = f'<rect {_drawn_as("box")} x="{left + 4:.1f}" y="{top + 4:.1f}" {size} rx="7"/>'
        parts = [
            f"<g><title>{_safe(self._details(step))}</title>",
            shadow if step.name in self.closed else "",
            f'<rect {_drawn_as("box")} x="{left:.1f}" y="{top:.1f}" {size} rx="7"/>',
            f'<rect {_drawn_as("bar")} x="{left:.1f}" y="{top + 8:.1f}" width="3" height="{_HEIGHT - 16}" rx="1.5"/>',
            _text("name", left + 15, top + (20 if note else 28), cut(step.name, _LONGEST_NAME)),
            _text("note", left + 15, top + 36, note) if note else "",
            "</g>",
        ]
        return "".join(parts)

    def _note(self, step: Step) -> str:
        """Return the note of a step: its outputs, unless that is its name, its retries, timeout and resources."""
        around = (name for name in self.plan.structure.path(step.group) if name not in self.levels)
        parts = [title_of(self.plan.structure.by_name[name]) for name in around]
        if step.name in self.closed:
            count = len(self.closed[step.name])
            parts.append(counted(count, "step"))
        if step.outputs and step.outputs != (step.name,):
            parts.append(f"→ {', '.join(step.outputs)}")
        if step.run_if not in ("all_success", "all_done" if self.plan.structure.is_cleanup(step.group) else ""):
            parts.append(f"if {step.run_if}")
        if step.retry and step.retry.max_attempts > 1:
            parts.append(f"{step.retry.max_attempts} attempts")
        if step.timeout_seconds is not None:
            parts.append(span_text(step.timeout_seconds))
        if step.resources and step.resources.gpu:
            parts.append(f"{step.resources.gpu} GPU")
        return " · ".join(parts)

    def _details(self, step: Step) -> str:
        if step.name in self.closed:
            return "\n".join(text for text in (step.name, step.description, *self.closed[step.name]) if text)
        lines = [step.name, step.function, step.description]
        lines += [f"{item.name} = {_source(item.source)}" for item in step.inputs]
        return "\n".join(line for line in lines if line)


def _name(node: str) -> str:
    return node.partition(" ")[2]


def _is_step(slot: Slot) -> bool:
    return slot.is_node and slot.node.startswith("step ")


def _size(node: str, inner: Mapping[str, _Frame]) -> float:
    if node in inner:
        return inner[node].height + _TITLE + _PADDING
    return _HEIGHT if node.startswith("step ") else 6


def _line_of(piece: Piece, inner: Mapping[str, _Frame]) -> Line:
    """Draw a line that ends at a frame to its title; a line that enters or leaves a frame passes its edge at a port."""
    leave = inner[piece.start].port(f"out {piece.step}") if piece.start in inner else 0.0
    enter = 0.0
    if piece.end in inner:
        enter = 16 - _size(piece.end, inner) / 2 if piece.arrives else inner[piece.end].port(f"in {piece.step}")
    arrives = piece.arrives and not piece.end.startswith("out ")
    return Line(piece.start, piece.end, piece.data, arrives, piece.step, leave, enter)


def _drawn_as(kind: str) -> str:
    return f'class="{kind}" {_PLAIN[kind]}'


def _tip() -> str:
    return (
        '<defs><marker id="flowyml-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path {_drawn_as("tip")} d="M0 0.5 L8 4 L0 7.5 z"/>'
        "</marker></defs>"
    )


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text {_drawn_as(kind)} x="{x:.1f}" y="{y:.1f}">{_safe(text)}</text>'


def _line(link: Link, frame: _Frame, left: float, top: float) -> str:
    """Draw a line straight to the end of the column, which a frame may make wide, and then to the next column."""
    column = frame.columns[link.start.layer]
    is_frame = link.start.is_node and link.start.node in frame.inner
    starts = frame.inner[link.start.node].width if is_frame else column.boxes if link.start.is_node else column.width
    x, edge, to_x = (
        left + column.left + starts,
        left + column.left + column.width,
        left + frame.columns[link.end.layer].left,
    )
    y, to_y = top + link.begins, top + link.ends
    bend = (to_x - edge) / 2
    tip = ' marker-end="url(#flowyml-tip)"' if link.arrives else ""
    out = f" H{edge:.1f}" if edge > x else ""
    path = f"M{x:.1f} {y:.1f}{out} C{edge + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    return f'<path {_drawn_as(_kind(link.data))} d="{path}"{tip}/>'


def _passing(slot: Slot, frame: _Frame, left: float, top: float) -> str:
    column = frame.columns[slot.layer]
    x, y = left + column.left, top + slot.position
    return f'<path {_drawn_as(_kind(slot.before[0].data))} d="M{x:.1f} {y:.1f} H{x + column.width:.1f}"/>'


def _kind(data: bool) -> str:
    return "line" if data else "line order"


def _source(source: Source) -> str:
    match source:
        case FromStep(step, output):
            return f"{output} of {step}"
        case FromParameter(name):
            return f"parameter {name}"
        case Constant(value):
            return cut(repr(value), 60)
        case FromItem(loop, _):
            return f"item of {loop}"
        case FromEither(outputs):
            return " or ".join(map(_source, outputs))


def _title(plan: Plan) -> str:
    return cut(plan.name, 60)


def _parameters(plan: Plan) -> str:
    parameters = [
        p.name if p.required else f"{p.name} = {cut(in_words(p.default) or repr(p.default), 24)}"
        for p in plan.parameters
    ]
    return cut(", ".join(parameters) or counted(len(plan.steps), "step"), 100)


def _safe(text: str) -> str:
    """Escape text for XML, without the characters that XML cannot contain even escaped."""
    allowed = "".join(
        char for char in text if char in "\n\t" or (char.isprintable() and char < "\ufffe") or char > "\uffff"
    )
    return escape(allowed)
