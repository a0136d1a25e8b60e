"""Markdown in which foreign text is never markup: for UIs of engines, reports and docs.

Sources: CommonMark, *Backslash escapes* and *Code spans*; GitHub Flavored Markdown, *Tables* and *Autolinks*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import punctuation

__all__ = ["code", "escaped", "table"]

# After a backslash, each of these stands for itself.
_MARKUP = frozenset(punctuation) - frozenset(",;%/?'\"")


# The first of Prefect's two UIs shows HTML entities literally, as ``&amp;``. Some programs that render files, such as
# Python-Markdown, which MkDocs uses, do not support a backslash before these three.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escaped(text: object, *, in_file: bool = False) -> str:
    """Escape a text for one line anywhere: in a cell, a heading, an item of a list.

    ``in_file`` is for files that any program may render, not only UIs of engines: HTML is then safe in more of them.

    >>> print(escaped("<b>|*x*"))
    \\<b\\>\\|\\*x\\*
    """
    entities = _ENTITIES if in_file else {}
    return "".join(entities.get(char) or (f"\\{char}" if char in _MARKUP else char) for char in _line(text))


def code(text: object, *, in_cell: bool = False) -> str:
    """Write a name or a path on one line, as code, which is also readable in the file.

    A bar ends a cell even within code, and only in tables is the backslash before it removed: use ``in_cell`` there.

    >>> print(code("a|b"), code("a|b", in_cell=True), code("a`b"))
    `a|b` `a\\|b` `` a`b ``
    """
    line = _line(text)
    if not line:
        return ""
    if in_cell:
        if "\\|" in line:  # code in a cell cannot contain this
            return escaped(line, in_file=True)
        line = line.replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if len(ticks) > 1 else f"`{line}`"


def table(titles: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))


def _line(text: object) -> str:
    return "".join(char if char.isprintable() else "�" for char in " ".join(str(text).split()))
