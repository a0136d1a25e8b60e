"""Lines and boxes on a canvas of terminal cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowyml.graph.text import width

__all__ = ["Canvas", "Wire", "tracks"]

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = {
    _UP | _DOWN: "│", _LEFT | _RIGHT: "─", _DOWN | _RIGHT: "╭", _DOWN | _LEFT: "╮", _UP | _RIGHT: "╰", _UP | _LEFT: "╯",
    _UP | _DOWN | _RIGHT: "├", _UP | _DOWN | _LEFT: "┤", _DOWN | _LEFT | _RIGHT: "┬", _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Wire:
    """From column ``start`` at the bottom of a layer to columns of the next, which are True if they end in an arrow."""

    start: int
    ends: Mapping[int, bool]
    from_box: bool

    @property
    def left(self) -> int:
        return min(self.start, *self.ends)

    @property
    def right(self) -> int:
        return max(self.start, *self.ends)


def tracks(wires: Sequence[Wire]) -> dict[Wire, int] | None:
    """Return the row on which each wire runs sideways, from 0, without wires that only go down.

    None if it cannot be drawn.

    Two wires on one row never touch. A wire that leaves above the point where another enters runs above that wire, so
    that they do not overlap.
    """
    rows: dict[Wire, int] = {}
    bent = [wire for wire in wires if wire.left != wire.right]
    order = sorted(
        bent, key=lambda wire: -wire.start if wire.right - wire.start > wire.start - wire.left else wire.start
    )
    while order:
        wire = next((wire for wire in order if not any(_is_above(other, wire) for other in order)), None)
        if wire is None:  # each would have to run above the other
            return None
        order.remove(wire)
        lowest = max((row + 1 for other, row in rows.items() if _is_above(other, wire)), default=0)
        while any(row == lowest and _overlap(other, wire) for other, row in rows.items()):
            lowest += 1
        rows[wire] = lowest
    return rows


def _is_above(wire: Wire, other: Wire) -> bool:
    return wire is not other and wire.start in other.ends


def _overlap(wire: Wire, other: Wire) -> bool:
    return wire.left <= other.right + 1 and other.left <= wire.right + 1


class Canvas:
    """Cells by row and column, and their text in the end."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], str] = {}
        self._lines: dict[tuple[int, int], int] = {}

    def box(self, row: int, left: int, size: int, name: str) -> None:
        """Return a box of three rows with a name in its middle."""
        space = size - 2 - width(name)
        content = " " * (space // 2) + name + " " * (space - space // 2)
        for offset, text in enumerate((f"╭{'─' * (size - 2)}╮", f"│{content}│", f"╰{'─' * (size - 2)}╯")):
            self._write(row + offset, left, text)

    def leave(self, row: int, wire: Wire) -> None:
        """Draw the port where a wire leaves a box, or the segment of a line that only passes the layer at ``row``."""
        if wire.from_box:
            self._cells[row + 2, wire.start] = "┬"
            return
        for offset in range(3):
            self._add(row + offset, wire.start, _UP | _DOWN)

    def wire(self, row: int, wires: Sequence[Wire], rows: Mapping[Wire, int]) -> int:
        """Draw the wires of a channel that begins at ``row``; return the row below it."""
        below = row + max(rows.values(), default=-1) + 1
        for wire in wires:
            bend = row + rows.get(wire, 0)
            if below > row:
                self._down(wire.start, row, bend, is_turn_below=True)
            for end, is_arrow in wire.ends.items():
                self._down(end, bend, below - 1, is_turn_below=False)
                if is_arrow:
                    self._cells[below, end] = "▼"
        for wire, bend in rows.items():
            self._sideways(row + bend, wire)
        return below

    def text(self) -> str:
        """Return all rows, without trailing white space."""
        cells = {place: _LINES[bits] for place, bits in self._lines.items()} | self._cells
        lines: dict[int, list[str]] = {}
        for row, column in sorted(cells):
            line = lines.setdefault(row, [])
            line.extend(" " * (column - len(line)))
            line.append(cells[row, column])
        return "".join("".join(lines[row]).rstrip() + "\n" for row in sorted(lines))

    def _write(self, row: int, column: int, text: str) -> None:
        """Write text; a wide character takes two cells, of which the second is empty."""
        for char in text:
            cells = width(char)
            if cells == 0:
                self._cells[row, column - 1] += char
                continue
            self._cells.setdefault((row, column), char)
            if cells == 2:
                self._cells[row, column + 1] = ""
            column += cells

    def _down(self, column: int, top: int, bottom: int, *, is_turn_below: bool) -> None:
        """Draw a line from ``top`` to ``bottom``; a corner at one of them is drawn later."""
        for row in range(top, bottom + 1):
            if row == (bottom if is_turn_below else top):
                self._add(row, column, _UP if is_turn_below else _DOWN)
            else:
                self._add(row, column, _UP | _DOWN)

    def _sideways(self, row: int, wire: Wire) -> None:
        """Draw a line between the columns of a wire. It passes below the lines of others, which stay whole."""
        for column in range(wire.left, wire.right + 1):
            is_own = column == wire.start or column in wire.ends
            if is_own or (row, column) not in self._lines:
                sides = (_LEFT if column > wire.left else 0) | (_RIGHT if column < wire.right else 0)
                self._add(row, column, sides)

    def _add(self, row: int, column: int, bits: int) -> None:
        self._lines[row, column] = self._lines.get((row, column), 0) | bits
