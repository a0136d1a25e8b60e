"""Loops of a DAG file, which are loops in its pipeline too: statements that differ only in texts and numbers."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowyml.migration.airflow.writer.values import in_f_string
from flowyml.plan.layout import Group, Pair, Part, source, value

if TYPE_CHECKING:
    from flowyml.migration.airflow.writer.text.names import Names

_FEWEST = 3
_LONGEST = 20_000


Column = tuple[Any, ...]
"""The values of a variable, one for each iteration."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A literal that differs between iterations: a column alone, or a text of texts and columns."""

    parts: tuple[str | Column, ...]
    is_text: bool = True

    @property
    def columns(self) -> list[Column]:
        """Its columns."""
        return [part for part in self.parts if isinstance(part, tuple)]


def repeated(lines: Sequence[object], start: int) -> tuple[int, int]:
    """Return how many statements repeat from ``start`` by their source lines, and how often; (0, 0) for none.

    >>> repeated([3, 7, 8, 7, 8, 7, 8, 9], 1), repeated([3, 4, 5], 0)
    ((2, 3), (0, 0))
    """
    for size in range(1, (len(lines) - start) // _FEWEST + 1):
        block = lines[start : start + size]
        count = 1
        while lines[start + count * size : start + (count + 1) * size] == block:
            count += 1
        if count >= _FEWEST:
            return size, count
    return 0, 0


def rolled(texts: Sequence[str], loop: ast.For, names: Names, variable: Callable[[str], str], depth: int) -> str:
    """Return statements as a loop, each text being one iteration; "" if they differ in more than literals.

    It goes over what ``loop`` in the DAG file goes over, if ``names`` knows that and it explains the literals.
    ``variable`` returns a free name for a variable.
    """
    tokens = [list(_tokens(text)) for text in texts]
    if len({tuple(_shape(each) for each in one) for one in tokens}) > 1:
        return ""
    differing = {
        number: tuple(each.string for each in column)
        for number, column in enumerate(zip(*tokens, strict=True))
        if len({each.string for each in column}) > 1
    }
    if not differing:
        return ""
    targets, columns = names.columns(loop, len(texts))
    of_loop = {number: _explained(written, columns) for number, written in differing.items()}
    holes = {number: each for number, each in of_loop.items() if each}
    over: Part = f"{names.source_of(loop.iter)}:"
    if len(holes) < len(differing):
        if any(written[0].startswith("f") for written in differing.values()):
            return ""
        holes = {number: trimmed(tuple(map(ast.literal_eval, written))) for number, written in differing.items()}
        columns = list(dict.fromkeys(column for each in holes.values() for column in each.columns))
        wanted = loop.target.id if isinstance(loop.target, ast.Name) else "item"
        targets = [wanted if not number else f"{wanted}_{number + 1}" for number in range(len(columns))]
        over = Group(
            "[", [value(each[0] if len(each) == 1 else list(each)) for each in zip(*columns, strict=True)], "]:"
        )
    used = [any(column in hole.columns for hole in holes.values()) for column in columns]
    variables = [variable(name) if is_used else "_" for name, is_used in zip(targets, used, strict=True)]
    head = source(Pair(f"for {', '.join(variables)} in ", over), depth)
    lines = texts[0].split("\n")
    for number, hole in sorted(holes.items(), reverse=True):
        (row, first), (_, last) = tokens[0][number].start, tokens[0][number].end
        made = _written(hole, columns, variables, raw=differing[number][0].startswith("f"))
        lines[row - 1] = lines[row - 1][:first] + made + lines[row - 1][last:]
    text = "\n".join([f"{'    ' * depth}{head}", *(f"    {line}".rstrip() for line in lines)])
    is_better = max(map(len, text.split("\n"))) <= 120 and len(text) < sum(map(len, texts))
    if is_better and isinstance(over, str):
        names.keep(_constants(loop))
    return text if is_better else ""


def listed(texts: Sequence[str], loop: ast.For, names: Names) -> str:
    """Return texts as a comprehension over what a loop of the DAG file goes over.

    "" if that does not explain them, or is longer.
    """
    targets, columns = names.columns(loop, len(texts))
    if (hole := explained(tuple(texts), columns)) is None:
        return ""
    variables = ", ".join(
        name if column in hole.columns else "_" for name, column in zip(targets, columns, strict=True)
    )
    written = _written(hole, columns, targets)
    made = f"{written} for {variables} in {names.source_of(loop.iter)}"
    if len(made) > sum(len(text) + len('"", ') for text in texts):
        return ""
    names.keep(_constants(loop))
    return made


def _constants(loop: ast.For) -> set[str]:
    """Return the constants of the file in what a loop goes over."""
    return {each.id for each in ast.walk(loop.iter) if isinstance(each, ast.Name)} - {"enumerate", "range"}


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """Yield the tokens of a text, an f-string as one of them on any Python."""
    lines, opened = text.split("\n"), list[tokenize.TokenInfo]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            opened.append(token)
        elif kind == "FSTRING_END":
            first = opened.pop()
            if not opened and first.start[0] == token.end[0]:
                line = lines[token.end[0] - 1]
                string = line[first.start[1] : token.end[1]]
                yield token._replace(type=tokenize.STRING, string=string, start=first.start)
            elif not opened:
                yield token._replace(string=text)  # over several lines: equal to none
        elif not opened and token.type != tokenize.NL:
            yield token


def _shape(token: tokenize.TokenInfo) -> tuple[int, str]:
    """Return a token without the value of a literal. A text over several lines keeps it."""
    is_text = token.type == tokenize.STRING and token.start[0] == token.end[0]
    if is_text and token.string.startswith(('"', "'", 'f"')):
        return token.type, "f" if token.string[0] == "f" else ""
    return token.type, "" if token.type == tokenize.NUMBER else token.string


def _explained(written: Sequence[str], columns: Sequence[Column]) -> Hole | None:
    if not written[0].startswith("f"):
        return explained(tuple(map(ast.literal_eval, written)), columns)
    plain = [column for column in columns if all(re.fullmatch(r"[\w ./:-]*", str(each)) for each in column)]
    return _split([each[2:-1] for each in written], plain)


def explained(values: tuple[Any, ...], columns: Sequence[Column]) -> Hole | None:
    """Return a literal as the value of a loop's variable, or as a text with such values; None if it is neither."""
    if any(repr(values) == repr(column) for column in columns):
        return Hole((values,), is_text=False)
    return _split(values, columns) if all(isinstance(each, str) for each in values) else None


def _split(texts: Sequence[str], columns: Sequence[Column]) -> Hole | None:
    """Return texts as what all have in common, and the values of columns; None if there is more to them.

    >>> _split(["a1b", "a2b"], [(1, 2)])
    Hole(parts=('a', (1, 2), 'b'), is_text=True)
    """
    ends, seen = tuple(map(len, texts)), set[tuple[int, ...]]()
    todo: list[tuple[tuple[int, ...], tuple[str | Column, ...]]] = [((0,) * len(texts), ())]
    while todo:
        starts, parts = todo.pop()
        if starts == ends:
            return Hole(parts)
        if starts in seen or len(seen) > _LONGEST:
            continue
        seen.add(starts)
        letters = [text[start : start + 1] for text, start in zip(texts, starts, strict=True)]
        if letters[0] and len({*letters}) == 1:
            last = parts[-1] if parts else ()
            grown = (*parts[:-1], last + letters[0]) if isinstance(last, str) else (*parts, letters[0])
            todo.append((tuple(start + 1 for start in starts), grown))
        for column in columns:
            shown = [str(each) for each in column]
            places = zip(shown, texts, starts, strict=True)
            if all(each and text.startswith(each, start) for each, text, start in places):
                next_starts = tuple(start + len(each) for start, each in zip(starts, shown, strict=True))
                todo.append((next_starts, (*parts, column)))
    return None


def trimmed(values: tuple[Any, ...]) -> Hole:
    """Take the words that all texts begin and end with away from the part that differs."""
    if not all(isinstance(each, str) for each in values):
        return Hole((values,), is_text=False)
    words = [re.split(r"([^A-Za-z0-9]+)", each) for each in values]
    shortest, head, tail = min(map(len, words)), 0, 0
    while head < shortest - 1 and len({each[head] for each in words}) == 1:
        head += 1
    while tail < shortest - 1 - head and len({each[-1 - tail] for each in words}) == 1:
        tail += 1
    before, after = "".join(words[0][:head]), "".join(words[0][len(words[0]) - tail :])
    if not before and not after:
        return Hole((values,), is_text=False)
    middle = tuple("".join(each[head : len(each) - tail]) for each in words)
    return Hole(tuple(part for part in (before, middle, after) if part))


def _written(hole: Hole, columns: Sequence[Column], variables: Sequence[str], *, raw: bool = False) -> str:
    """Return a hole as source; ``raw`` if its texts are parts of an f-string already."""
    if not hole.is_text:
        return variables[columns.index(hole.columns[0])]
    shown = (
        f"{{{variables[columns.index(part)]}}}" if isinstance(part, tuple) else part if raw else in_f_string(part)
        for part in hole.parts
    )
    return f'f"{"".join(shown)}"'
