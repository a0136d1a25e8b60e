"""Loops of a DAG file, which are loops in its pipeline too: statements that differ only in texts and numbers."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowyml.migration.airflow.writer.values import in_f_string
from flowyml.plan.layout import Group, Pair, Part, source, value

if TYPE_CHECKING:
    from flowyml.migration.airflow.writer.text.names import Names

_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Hole:
    """A literal that differs between iterations: its values, and the text around the part that differs."""

    values: tuple[Any, ...]
    before: str = ""
    after: str = ""


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
    read = (tokenize.generate_tokens(io.StringIO(text).readline) for text in texts)
    tokens = [[each for each in some if each.type != tokenize.NL] for some in read]
    if len({tuple(_shape(each) for each in one) for one in tokens}) > 1:
        return ""
    literals = {
        number: tuple(ast.literal_eval(each.string) for each in column)
        for number, column in enumerate(zip(*tokens, strict=True))
        if len({each.string for each in column}) > 1
    }
    if not literals:
        return ""
    targets, columns = names.columns(loop, len(texts))
    of_loop = {number: explained(values, columns) for number, values in literals.items()}
    holes = {number: each for number, each in of_loop.items() if each}
    over: Part = f"{names.source_of(loop.iter)}:"
    if len(holes) < len(literals):
        holes = {number: trimmed(values) for number, values in literals.items()}
        columns = list(dict.fromkeys(each.values for each in holes.values()))
        wanted = loop.target.id if isinstance(loop.target, ast.Name) else "item"
        targets = [wanted if not number else f"{wanted}_{number + 1}" for number in range(len(columns))]
        over = Group(
            "[", [value(each[0] if len(each) == 1 else list(each)) for each in zip(*columns, strict=True)], "]:"
        )
    used = [any(hole.values == column for hole in holes.values()) for column in columns]
    variables = [variable(name) if is_used else "_" for name, is_used in zip(targets, used, strict=True)]
    head = source(Pair(f"for {', '.join(variables)} in ", over), depth)
    lines = texts[0].split("\n")
    for number, hole in sorted(holes.items(), reverse=True):
        (row, first), (_, last) = tokens[0][number].start, tokens[0][number].end
        made = _written(hole, variables[columns.index(hole.values)])
        lines[row - 1] = lines[row - 1][:first] + made + lines[row - 1][last:]
    text = "\n".join([f"{'    ' * depth}{head}", *(f"    {line}" for line in lines)])
    is_better = max(map(len, text.split("\n"))) <= 120 and len(text) < sum(map(len, texts))
    if is_better and isinstance(over, str):
        words = {each.id for each in ast.walk(loop.iter) if isinstance(each, ast.Name)} - {"enumerate", "range"}
        names.keep(words)
    return text if is_better else ""


def _shape(token: tokenize.TokenInfo) -> tuple[int, str]:
    """Return a token without the value of a literal. A text over several lines, or with a prefix, keeps it."""
    is_text = token.type == tokenize.STRING and token.string[0] in "\"'" and token.start[0] == token.end[0]
    return token.type, "" if is_text or token.type == tokenize.NUMBER else token.string


def explained(values: tuple[Any, ...], columns: Sequence[tuple[Any, ...]]) -> Hole | None:
    """Return a literal as the value of a loop's variable, or as one text around it; None if it is neither."""
    for column in columns:
        if values == column and [*map(type, values)] == [*map(type, column)]:
            return Hole(column)
        if all(isinstance(each, str) for each in values):
            for found in re.finditer(re.escape(str(column[0])), values[0]):
                before, after = values[0][: found.start()], values[0][found.end() :]
                if (before or after) and values == tuple(f"{before}{each}{after}" for each in column):
                    return Hole(column, before, after)
    return None


def trimmed(values: tuple[Any, ...]) -> Hole:
    """Take the words that all texts begin and end with away from the part that differs."""
    if not all(isinstance(each, str) for each in values):
        return Hole(values)
    words = [re.split(r"([^A-Za-z0-9]+)", each) for each in values]
    shortest, head, tail = min(map(len, words)), 0, 0
    while head < shortest - 1 and len({each[head] for each in words}) == 1:
        head += 1
    while tail < shortest - 1 - head and len({each[-1 - tail] for each in words}) == 1:
        tail += 1
    parts = tuple("".join(each[head : len(each) - tail]) for each in words)
    return Hole(parts, "".join(words[0][:head]), "".join(words[0][len(words[0]) - tail :]))


def _written(hole: Hole, variable: str) -> str:
    if not hole.before and not hole.after:
        return variable
    return f'f"{in_f_string(hole.before)}{{{variable}}}{in_f_string(hole.after)}"'
