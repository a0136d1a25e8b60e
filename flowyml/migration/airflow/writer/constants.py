"""Constants of a DAG file that its pipelines can keep: plain data under a name that the file defines once."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

TIMES: dict[str, Callable[..., Any]] = {"datetime": datetime, "timedelta": timedelta}
"""Classes of the standard library that a constant may call."""


class Constants:
    """The constants of one DAG file.

    ``definition`` returns the expression of one by its name, and ``is_time`` whether a name means one of ``TIMES``.
    """

    def __init__(self, definition: Callable[[str], ast.expr | None], is_time: Callable[[str], bool]) -> None:
        self._definition = definition
        self._is_time = is_time

    def value(self, node: ast.expr) -> Any:
        """Return the value of literals, times, texts made of these, and other constants. Raises ``ValueError``."""
        match node:
            case ast.Name(id=name) if (definition := self._definition(name)) is not None:
                return self.value(definition)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
                return kind(map(self.value, parts))
            case ast.Dict(keys=keys, values=parts) if None not in keys:
                return {self.value(key): self.value(part) for key, part in zip(keys, parts, strict=True) if key}
            case ast.JoinedStr(values=parts):
                return "".join(map(self._text, parts))
            case ast.Call(func=ast.Name(id=name)) if name in TIMES and self._is_time(name):
                named = {each.arg or "": self.value(each.value) for each in node.keywords}
                try:
                    return TIMES[name](*map(self.value, node.args), **named)
                except (TypeError, OverflowError) as error:
                    raise ValueError(str(error)) from error
        return ast.literal_eval(node)

    def _text(self, node: ast.expr) -> str:
        match node:
            case ast.FormattedValue(value=inner, conversion=-1, format_spec=None):
                return str(self.value(inner))
            case ast.Constant(value=str() as text):
                return text
        raise ValueError("a text in a form of its own")

    def known(self, node: ast.expr) -> Any:
        """Return the value; None if it is not known."""
        try:
            return self.value(node)
        except (ValueError, TypeError, RecursionError):
            return None

    def needed_by(self, name: str) -> frozenset[str]:
        """Return the names in the definition of a constant whose value is known, and its own."""
        definition = self._definition(name)
        inner = (
            {each.id for each in ast.walk(definition) if isinstance(each, ast.Name)}
            if definition is not None
            else set()
        )
        return frozenset({name}.union(*(self.needed_by(each) if each not in TIMES else {each} for each in inner)))
