"""Python source from parts, laid out as ruff would: on one line if it fits, else one item per line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LINE_LENGTH", "FreeNames", "Group", "Lines", "Part", "Pair", "Text", "docstring", "source",
           "text_literal", "value"]  # fmt: skip

LINE_LENGTH = 120
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Group:
    """A bracket: ``f(``, its items, ``)``."""

    opening: str
    items: Sequence[Part]
    closing: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Text before an item: ``"name="``, ``'"key": '``."""

    lead: str
    item: Part


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal that may become several, one below the other in parentheses."""

    text: str


@dataclass(frozen=True, slots=True)
class Lines:
    """A literal or, if it is too long, several equivalent ones, one below the other in parentheses."""

    whole: str
    pieces: Sequence[str]


Part = str | Group | Pair | Text | Lines


def source(part: Part, depth: int = 0, *, lead: int = 0, trail: int = 0) -> str:
    """Return the text of a part that begins at ``depth`` levels plus ``lead`` columns.

    ``trail`` more columns follow it.
    """
    if isinstance(part, Pair):
        return part.lead + source(part.item, depth, lead=lead + _width(part.lead), trail=trail)
    flat = _flat(part)
    if isinstance(part, str) or depth * len(_INDENT) + lead + _width(flat) + trail <= LINE_LENGTH:
        return flat
    inner = _INDENT * (depth + 1)
    if isinstance(part, Text):
        part = Lines(flat, [text_literal(piece) for piece in _pieces(part.text, LINE_LENGTH - len(inner) - 4)])
    if isinstance(part, Lines):
        pieces = part.pieces
        lines = [f"{inner}{piece}\n" for piece in pieces]
        return f"(\n{''.join(lines)}{_INDENT * depth})" if len(pieces) > 1 else flat
    if not part.items:
        return flat
    lines = [f"{inner}{source(item, depth + 1, trail=1)},\n" for item in part.items]
    return f"{part.opening}\n{''.join(lines)}{_INDENT * depth}{part.closing}"


def value(plain: Any) -> Part:
    """Return a JSON value as Python source. Raises ``TypeError`` for any other value.

    >>> source(value({"a": [1, None, True], 'b"': -0.5}))
    '{"a": [1, None, True], \\'b"\\': -0.5}'
    """
    if isinstance(plain, str):
        return text_literal(plain)
    if isinstance(plain, Mapping):
        return Group("{", [Pair(f"{text_literal(key)}: ", value(item)) for key, item in plain.items()], "}")
    if isinstance(plain, list | tuple):
        return Group("[", [value(item) for item in plain], "]")
    if not isinstance(plain, bool | int | float | None):
        raise TypeError(f"a {type(plain).__name__} is not JSON")
    return repr(plain).replace("e+", "e")  # as in 1e16


def text_literal(text: str) -> str:
    """Return a string literal in double quotes, unless single ones need fewer escapes.

    >>> print(text_literal("it's"), text_literal('say "hi"'), text_literal("a\\nb"))
    "it's" 'say "hi"' "a\\nb"
    """
    body = repr(f'{text}"')[1:-2]  # the added quote makes repr escape single quotes, if it has to choose
    body = body.replace("\\'", "'")
    quote = '"' if text.count('"') <= text.count("'") else "'"
    return quote + body.replace(quote, f"\\{quote}") + quote


def docstring(text: str, indent: str = "") -> str:
    """Return a docstring with a text, quotes and backslashes included. Nothing in the text ends it."""
    lines = [line.rstrip() for line in text.expandtabs().split("\n")]
    body = "\n".join(lines).strip().replace("\\", "\\\\")
    body = re.sub(r'"""|"+\Z', lambda quotes: '\\"' * len(quotes[0]), body)
    body = "".join(char if char == "\n" or char.isprintable() else repr(char)[1:-1] for char in body)
    indented = "\n".join(f"{indent}{line}" if line else "" for line in body.split("\n")).strip()
    return f'"""{indented}\n{indent}"""' if "\n" in body else f'"""{indented}"""'


class FreeNames:
    """Names in generated text: all different, and none hides a taken one."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def fresh(self, wanted: str, suffix: str = "_") -> str:
        """Reserve and return a name like the wanted one."""
        while wanted in self.taken:
            wanted += suffix
        self.taken.add(wanted)
        return wanted


def _flat(part: Part) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Text):
        return text_literal(part.text)
    if isinstance(part, Lines):
        return part.whole
    if isinstance(part, Pair):
        return part.lead + _flat(part.item)
    return f"{part.opening}{', '.join(map(_flat, part.items))}{part.closing}"


def _pieces(text: str, width: int) -> list[str]:
    """Return lines, the long ones split between words; joined, they are the text again."""
    pieces: list[str] = []
    for line in text.splitlines(keepends=True):
        piece = ""
        for word in re.split("(?<= )", line):
            if piece and _width(text_literal((piece + word).removesuffix(" "))) > width:
                pieces.append(piece)
                piece = ""
            piece += word
        pieces.append(piece)
    return pieces


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)
