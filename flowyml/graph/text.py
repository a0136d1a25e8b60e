"""The width of text in a terminal, cutting text to a width, and titles of groups."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from flowyml.graph.execution_groups import SharedProcess
from flowyml.plan.groups import Branch, Cleanup, Group, Loop, Section
from flowyml.plan.values import FromEither, FromParameter, FromStep, Source

__all__ = ["cut", "label_of", "title_of", "width"]


def width(text: str) -> int:
    """Return the width in cells of a terminal: two for wide characters, none for combining ones."""
    return len(text) if text.isascii() else sum(_cells(char) for char in text)


def cut(text: str, cells: int) -> str:
    """Return the text, or its beginning with an ellipsis, in at most so many ``cells`` of a terminal.

    >>> cut("preprocess", 6)
    'prepr…'
    """
    if width(text) <= cells:
        return text
    kept, used = [], 0
    for char in text:
        used += _cells(char)
        if used > cells - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


@lru_cache(1024)
def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def title_of(group: Group) -> str:
    """Return the title of a group: ``each rate of configs``, ``if score > 0.9``, ``otherwise (too low)``."""
    match group:
        case Loop(max_parallel=int(most)):
            return f"{_each(group)}, {most} at a time"
        case Loop():
            return _each(group)
        case Branch(condition=condition):
            verb = "if" if group.choice == group.name else "else if"
            text, label = "otherwise" if condition is None else str(condition), label_of(group)
            title = text if condition is None else f"{verb} {text}"
            return title if label == text else f"{title} ({label})"
        case SharedProcess(pipeline=name):
            return f"execution group {name}"
        case Section() | Cleanup():
            return group.name


def label_of(branch: Branch) -> str:
    """Return the label of a branch: the name that a person chose, or the condition, or ``otherwise``."""
    return _unnumbered(branch.name, "otherwise" if branch.condition is None else str(branch.condition))


def _each(loop: Loop) -> str:
    if loop.name.startswith("each "):
        return loop.name
    if [item.name for item in loop.over] == ["item"]:  # a block with a name
        return f"each item of {loop.name}"
    lists = ", ".join(name for item in loop.over if (name := _list_name(item.source)))
    return f"each {', '.join(item.name for item in loop.over)}{' of ' if lists else ''}{lists}"


def _list_name(source: Source) -> str:
    match source:
        case FromStep(_, output):
            return output
        case FromParameter(name):
            return name
        case FromEither(outputs):
            return " or ".join(output.output for output in outputs)
        case _:
            return ""


def _unnumbered(name: str, text: str) -> str:
    """Return the text from which a name was derived; the name itself if a person chose it."""
    return text if re.fullmatch(rf"{re.escape(text)}_\d+", name) else name
