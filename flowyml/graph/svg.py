"""A plan as an SVG picture that needs nothing else: no font, no script; it follows a light or dark theme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from flowyml.graph.layout import Link, Slot, layers_of, place
from flowyml.graph.text import cut, title_of, width
from flowyml.plan.model import Constant, FromEither, FromItem, FromParameter, FromStep, Plan, Source, Step

__all__ = ["svg"]

_CELL, _SMALL_CELL = 7.9, 6.7
_HEIGHT, _GAP, _MARGIN, _HEADER = 46, 18, 28, 72
_LONGEST_NAME = 32
# What every program understands. Librsvg, Inkscape, LaTeX and office programs know no custom properties; browsers take
# those of the style sheet, which wins over attributes (source: SVG 2, 6.6 Presentation attributes).
_PLAIN = {
    "ground": 'fill="#ffffff"',
    "box": 'fill="#f7f8fb" stroke="#cdd3de"',
    "bar": 'fill="#4c5fd5"',
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
      --text: #1d2433; --dim: #5b6577; --bar: #4c5fd5;
    }
    @media (prefers-color-scheme: dark) {
      .flowyml {
        --ground: #14171f; --box: #1e2330; --edge: #39415a; --line: #7d89a3;
        --text: #e8ebf4; --dim: #9aa5bd; --bar: #8c9bff;
      }
    }
    .flowyml .ground { fill: var(--ground); }
    .flowyml .box { fill: var(--box); stroke: var(--edge); }
    .flowyml .bar { fill: var(--bar); }
    .flowyml .tip { fill: var(--line); }
    .flowyml .line { stroke: var(--line); }
    .flowyml .name, .flowyml .title { fill: var(--text); }
    .flowyml .note { fill: var(--dim); }
  }
"""


def svg(plan: Plan) -> str:
    """The picture, left to right. A dashed line is an order without data; each box shows its details when hovered."""
    layers = layers_of(plan, lambda _: _HEIGHT, 6)
    place(layers, _GAP)
    columns = list(_columns(plan, layers))
    right = columns[-1][0] + columns[-1][1] + _MARGIN
    bottom = _HEADER + max(slot.position + slot.size / 2 for layer in layers for slot in layer) + _MARGIN
    notes = _parameters(plan)
    across = max(
        right, *(2 * _MARGIN + width(text) * cell for text, cell in ((_title(plan), 10.4), (notes, _SMALL_CELL)))
    )
    body = [
        f'<rect {_drawn_as("ground")} width="{across:.0f}" height="{bottom:.0f}" rx="10"/>',
        _text("title", _MARGIN, 36, _title(plan)),
        _text("note", _MARGIN, 55, notes),
        *(_line(link, columns) for layer in layers for slot in layer for link in slot.after),
        *(_passing(slot, columns) for layer in layers for slot in layer if slot.step is None),
        *(_box(plan, slot, slot.step, columns) for layer in layers for slot in layer if slot.step),
    ]
    size = f'viewBox="0 0 {across:.0f} {bottom:.0f}" width="{across:.0f}" height="{bottom:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="flowyml" role="img" {_FONT} {size}>'
    return "\n".join(
        (head, f"<title>{_safe(plan.name)}</title>", f"<style>{_STYLE}</style>", _tip(), *body, "</svg>\n")
    )


def _drawn_as(kind: str) -> str:
    """The attributes of one kind of element."""
    return f'class="{kind}" {_PLAIN[kind]}'


def _tip() -> str:
    return (
        '<defs><marker id="flowyml-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path {_drawn_as("tip")} d="M0 0.5 L8 4 L0 7.5 z"/>'
        "</marker></defs>"
    )


def _columns(plan: Plan, layers: Sequence[Sequence[Slot]]) -> Iterator[tuple[float, float]]:
    """Left edge and width of each layer."""
    left: float = _MARGIN
    for layer in layers:
        wide = max((_box_width(plan, slot.step) for slot in layer if slot.step), default=0.0)
        yield left, wide
        left += wide + 52 + min(60, 2 * sum(len(slot.after) for slot in layer))


def _box_width(plan: Plan, step: Step) -> float:
    name, note = cut(step.name, _LONGEST_NAME), cut(_note(plan, step), _LONGEST_NAME)
    return max(72, width(name) * _CELL + 30, width(note) * _SMALL_CELL + 30)


def _box(plan: Plan, slot: Slot, step: Step, columns: Sequence[tuple[float, float]]) -> str:
    left, wide = columns[slot.layer]
    top = _HEADER + slot.position - _HEIGHT / 2
    note = cut(_note(plan, step), _LONGEST_NAME)
    parts = [
        f"<g><title>{_safe(_details(step))}</title>",
        f'<rect {_drawn_as("box")} x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{_HEIGHT}" rx="7"/>',
        f'<rect {_drawn_as("bar")} x="{left:.1f}" y="{top + 8:.1f}" width="3" height="{_HEIGHT - 16}" rx="1.5"/>',
        _text("name", left + 15, top + (20 if note else 28), cut(step.name, _LONGEST_NAME)),
        _text("note", left + 15, top + 36, note) if note else "",
        "</g>",
    ]
    return "".join(parts)


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text {_drawn_as(kind)} x="{x:.1f}" y="{y:.1f}">{_safe(text)}</text>'


def _line(link: Link, columns: Sequence[tuple[float, float]]) -> str:
    left, wide = columns[link.start.layer]
    x, y = left + wide, _HEADER + link.start.position
    to_x, to_y = columns[link.end.layer][0], _HEADER + link.end.position
    bend = (to_x - x) / 2
    tip = ' marker-end="url(#flowyml-tip)"' if link.end.step else ""
    path = f"M{x:.1f} {y:.1f} C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    return f'<path {_drawn_as(_kind(link.data))} d="{path}"{tip}/>'


def _passing(slot: Slot, columns: Sequence[tuple[float, float]]) -> str:
    left, wide = columns[slot.layer]
    y = _HEADER + slot.position
    return f'<path {_drawn_as(_kind(slot.before[0].data))} d="M{left:.1f} {y:.1f} H{left + wide:.1f}"/>'


def _kind(data: bool) -> str:
    return "line" if data else "line order"


def _note(plan: Plan, step: Step) -> str:
    """What a step gives, unless that is its name, and what it asks for."""
    parts = [title_of(plan.structure.by_name[name]) for name in plan.structure.path(step.group)]
    if step.outputs and step.outputs != (step.name,):
        parts.append(f"→ {', '.join(step.outputs)}")
    if step.retry and step.retry.max_attempts > 1:
        parts.append(f"{step.retry.max_attempts} attempts")
    if step.timeout_seconds is not None:
        parts.append(f"{step.timeout_seconds:g} s")
    if step.resources and step.resources.gpu:
        parts.append(f"{step.resources.gpu} GPU")
    return " · ".join(parts)


def _details(step: Step) -> str:
    lines = [step.name, step.function, step.description]
    lines += [f"{item.name} = {_source(item.source)}" for item in step.inputs]
    return "\n".join(line for line in lines if line)


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
    given = [p.name if p.required else f"{p.name} = {cut(repr(p.default), 24)}" for p in plan.parameters]
    return cut(", ".join(given) or f"{len(plan.steps)} steps", 100)


def _safe(text: str) -> str:
    """Escaped for XML, without the characters that XML cannot hold even escaped."""
    allowed = "".join(
        char for char in text if char in "\n\t" or (char.isprintable() and char < "\ufffe") or char > "\uffff"
    )
    return escape(allowed)
