"""The text of a DAG file: its loops, and the comments above and in its statements."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping
from functools import cached_property

_FOR_TOOLS = re.compile(r"#\s*(noqa|type:|fmt:|isort|mypy|pragma|pylint|pyright|ruff|\[(START|END)\b)")
"""Comments that are addressed to tools, or mark a part for a page of documentation."""


class Source:
    """The statements and comments of a text, by line."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def tree(self) -> ast.Module:
        """Its tree."""
        return ast.parse(self.text)

    @cached_property
    def loops(self) -> Mapping[int, ast.For]:
        """By line, the innermost ``for`` around it."""
        found = (node for node in ast.walk(self.tree) if isinstance(node, ast.For))
        return {line: node for node in found for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}

    @cached_property
    def _statements(self) -> Mapping[int, range]:
        """By line, the lines of the statement there; of one with a block, those of its head."""
        found: dict[int, range] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.stmt):
                inner = (each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.stmt))
                head = [each for one in inner for each in ast.walk(one) if isinstance(each, ast.expr)]
                last = max([node.lineno, *(each.end_lineno or 0 for each in head)])
                found |= dict.fromkeys(range(node.lineno, last + 1), range(node.lineno, last + 1))
        return found

    @cached_property
    def _comments(self) -> Mapping[int, str]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {each.start[0]: each.string for each in tokens if each.type == tokenize.COMMENT}

    def lines_at(self, line: int) -> range:
        """Return the lines of the statement at a line."""
        return self._statements.get(line, range(line, line + 1))

    def comments_at(self, line: int) -> list[str]:
        """Return the comments right above the statement at a line, and those in it."""
        lines, text = self.lines_at(line), self.text.split("\n")
        first = lines[0]
        while first > 1 and text[first - 2].lstrip().startswith("#"):
            first -= 1
        found = (self._comments.get(number, "") for number in range(first, lines[-1] + 1))
        return [each for each in found if each and not _FOR_TOOLS.match(each)]
