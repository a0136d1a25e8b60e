"""How wide text is in a terminal, cutting it there, and groups in words."""

from __future__ import annotations

import unicodedata

from flowyml.plan.groups import Branch, Cleanup, Group, Loop, Section

__all__ = ["cut", "title_of", "width"]


def width(text: str) -> int:
    """Cells of a terminal: two for wide characters, none for those that sit on the one before."""
    return sum(_cells(char) for char in text)


def cut(text: str, most: int) -> str:
    """The text itself, or its beginning with an ellipsis, in at most so many cells.

    >>> cut("preprocess", 6)
    'prepr…'
    """
    if width(text) <= most:
        return text
    kept, used = [], 0
    for char in text:
        used += _cells(char)
        if used > most - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def title_of(group: Group) -> str:
    """A group in words: ``each of configs``, ``if score > 0.9``."""
    match group:
        case Loop(max_parallel=int(most)):
            return f"{_each(group)}, {most} at a time"
        case Loop():
            return _each(group)
        case Branch(condition=None) | Cleanup():
            return group.name
        case Branch():
            return f"{'if' if group.choice == group.name else 'else if'} {group.name}"
        case Section():
            return group.name


def _each(loop: Loop) -> str:
    return loop.name if loop.name.startswith("each ") else f"each item of {loop.name}"
