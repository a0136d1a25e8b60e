"""How wide text is in a terminal, and cutting it there."""

from __future__ import annotations

import unicodedata

__all__ = ["cut", "width"]


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
