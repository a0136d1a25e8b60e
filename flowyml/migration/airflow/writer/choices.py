"""What a function that chooses among tasks can return, as far as its text says it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

__all__ = ["Choice", "Unclear", "choice_of"]

_MOST = 200
"""How many values a choice has at most."""


class Unclear(Exception):
    """Why the choices of a function are not known."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a task decides about those after it.

    ``values`` are the ids that a branching function can return, None for one that short-circuits. ``listed``: it
    returns lists of them. ``may_be_none``: it can return None, which skips all. ``whole``: a short circuit that skips
    all that comes after it, whatever the trigger rules.
    """

    values: tuple[str, ...] | None = None
    listed: bool = False
    may_be_none: bool = False
    whole: bool = False


def choice_of(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
    given: Mapping[str, Any],
    constant: Callable[[str], ast.expr | None],
) -> Choice:
    """The ids that a function can return. Raises ``Unclear``.

    ``given`` are its arguments, by place or by name; ``constant`` finds what the module sets a name to, once.
    """
    reader = _Reader(function, given, constant)
    found = [value for each in reader.returned() for value in reader.values(each)]
    may_be_none = None in found or _may_fall_through(function.body)
    some = [value for value in found if value is not None]
    if all(isinstance(value, str) for value in some):
        return Choice(tuple(dict.fromkeys(some)), may_be_none=may_be_none)
    if may_be_none or not all(isinstance(value, tuple) for value in some):
        raise Unclear("it returns ids, lists of ids or None by turns")
    ids = [each for value in some for each in value]
    if not all(isinstance(each, str) for each in ids):
        raise Unclear("it returns what is no id")
    return Choice(tuple(dict.fromkeys(ids)), listed=True)


class _Reader:
    def __init__(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef, given: Mapping[str, Any],
        constant: Callable[[str], ast.expr | None],
    ) -> None:  # fmt: skip
        self.nodes = [each for statement in function.body for each in _own(statement)]
        self.constant = constant
        spec = function.args
        names = [each.arg for each in (*spec.posonlyargs, *spec.args)]
        self.parameters: dict[str, Any] = {names[-1 - n]: each for n, each in enumerate(reversed(spec.defaults))}
        self.parameters |= {arg.arg: each for arg, each in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if each}
        self.parameters |= {
            names[int(name)] if name.isdigit() and int(name) < len(names) else name: value
            for name, value in given.items()
        }
        every = (*names, *(each.arg for each in spec.kwonlyargs))
        self.parameters = {name: self.parameters.get(name, Unclear) for name in every}
        self.open: set[str] = set()

    def returned(self) -> Iterator[ast.expr]:
        for node in self.nodes:
            if isinstance(node, ast.Yield | ast.YieldFrom):
                raise Unclear("it is a generator")
            if isinstance(node, ast.Return):
                yield node.value or ast.Constant(None)

    def values(self, node: ast.expr) -> list[Any]:
        """What an expression can be: texts, None, or tuples of them."""
        found = self._values(node)
        if len(found) > _MOST:
            raise Unclear(f"it has more than {_MOST} choices")
        return found

    def _values(self, node: ast.expr) -> list[Any]:
        match node:
            case ast.Constant(None | str() as value):
                return [value]
            case ast.IfExp(_, one, other):
                return [*self.values(one), *self.values(other)]
            case ast.List(parts) | ast.Tuple(parts):
                return [tuple(row) for row in _rows([self.values(each) for each in parts])]
            case ast.JoinedStr(parts):
                texts = [self.values(each) for each in parts]
                if not all(isinstance(each, str) for text in texts for each in text):
                    raise Unclear("its choice is only known when it runs")
                return ["".join(row) for row in _rows(texts)]
            case ast.FormattedValue(value, conversion=-1, format_spec=None):
                return self.values(value)
            case ast.Call(ast.Attribute(ast.Name("random"), "choice"), [among], []):
                return [each for some in self.values(among) if isinstance(some, tuple) for each in some]
            case ast.Name(name):
                return self._named(name)
        raise Unclear("its choice is only known when it runs")

    def _named(self, name: str) -> list[Any]:
        set_to = [node for node in self.nodes if isinstance(node, ast.Name) and node.id == name
                  and not isinstance(node.ctx, ast.Load)]  # fmt: skip
        assigned = [
            node.value for node in self.nodes if isinstance(node, ast.Assign)
            for target in node.targets if isinstance(target, ast.Name) and target.id == name
        ]  # fmt: skip
        if name in self.open or len(set_to) != len(assigned):
            raise Unclear("its choice is only known when it runs")
        self.open.add(name)
        try:
            if name in self.parameters:
                return [*self._given(self.parameters[name]), *(each for one in assigned for each in self.values(one))]
            if assigned:
                return [each for one in assigned for each in self.values(one)]
            found = self.constant(name)
            if found is None:
                raise Unclear("its choice is only known when it runs")
            return self.values(found)
        finally:
            self.open.discard(name)

    def _given(self, value: Any) -> list[Any]:
        if isinstance(value, ast.expr):
            return self.values(value)
        if value is None or (isinstance(value, str) and "{" not in value):
            return [value]
        if isinstance(value, list | tuple) and all(isinstance(each, str) and "{" not in each for each in value):
            return [tuple(value)]
        raise Unclear("its choice is only known when it runs")


def _rows(parts: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    count = 1
    for each in parts:
        count *= len(each)
    if count > _MOST:
        raise Unclear(f"it has more than {_MOST} choices")
    return product(*parts)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """A node with what is in it, but for functions in it."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return
    for child in ast.iter_child_nodes(node):
        yield from _own(child)


def _may_fall_through(body: list[ast.stmt]) -> bool:
    """Whether the end of a block may be reached; True where that is not certain."""
    match body[-1]:
        case ast.Return() | ast.Raise():
            return False
        case ast.If(_, some, others):
            return not others or _may_fall_through(some) or _may_fall_through(others)
        case ast.With(_, inner) | ast.AsyncWith(_, inner):
            return _may_fall_through(inner)
        case ast.Try(some, handlers, others, final):
            if final and not _may_fall_through(final):
                return False
            return _may_fall_through(others or some) or any(_may_fall_through(each.body) for each in handlers)
    return True
