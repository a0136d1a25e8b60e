"""The possible results of a function that chooses among tasks, as far as its text shows them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, product
from math import prod
from typing import Any

_MOST = 200
"""The largest number of values of a choice."""
_LONGEST = 250
"""The largest number of characters in an id, as in Airflow."""
_STEPS = 10_000
"""The largest number of expressions that are inspected for one function."""
_UNKNOWN = "its choice is only known when it runs"


class Unclear(Exception):
    """The choices of a function are unknown: the reason."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice that a task makes for the tasks after it.

    ``values`` are the ids that a branching function can return, None for a short circuit. ``listed``: it returns lists
    of ids. ``may_be_none``: it can return None, which skips all. ``whole``: a short circuit that skips all tasks after
    it, whatever their trigger rules.
    """

    values: tuple[str, ...] | None = None
    listed: bool = False
    may_be_none: bool = False
    whole: bool = False


def choice_of(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
    arguments: Mapping[str, Any],
    constant: Callable[[str], ast.expr | None],
) -> Choice:
    """Return the ids that a function can return. Raises ``Unclear``.

    ``arguments`` are its own, by position or by name; ``constant`` finds the value that the module assigns to a name,
    once.
    """
    try:
        reader = _OfFunction(function, arguments, constant)
        found = [value for each in reader.returned() for value in reader.values(each)]
    except RecursionError:
        raise Unclear("its choice nests too deeply") from None
    may_be_none = None in found or _may_fall_through(function.body)
    some = [value for value in found if value is not None]
    if all(isinstance(value, str) for value in some):
        return Choice(tuple(dict.fromkeys(some)), may_be_none=may_be_none)
    if may_be_none or not all(isinstance(value, tuple) for value in some):
        raise Unclear("it returns a mix of ids, lists of ids and None")
    ids = [each for value in some for each in value]
    if not all(isinstance(each, str) for each in ids):
        raise Unclear("it returns something other than ids")
    return Choice(tuple(dict.fromkeys(ids)), listed=True)


class _OfModule:
    """Values of expressions in the module, such as arguments' defaults."""

    def __init__(self, constant: Callable[[str], ast.expr | None], steps: Iterator[int]) -> None:
        self.constant = constant
        self.steps = steps
        self.open: set[str] = set()
        self.known: dict[str, list[Any]] = {}

    def values(self, node: ast.expr) -> list[Any]:
        """Return the possible values of an expression: texts, None, or tuples of them."""
        if next(self.steps) > _STEPS:
            raise Unclear(f"its choice takes more than {_STEPS:,} steps to find")
        found = list(dict.fromkeys(self._values(node)))
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
                return [tuple(row) for row in _rows([self._items(each) for each in parts])]
            case ast.JoinedStr(parts):
                return [_joined(row) for row in _rows([self.values(each) for each in parts])]
            case ast.FormattedValue(value, conversion=-1, format_spec=None):
                return self.values(value)
            case ast.Call(ast.Attribute(ast.Name("random"), "choice"), [among], []):
                lists = self.values(among)
                if not all(isinstance(each, tuple) for each in lists):
                    raise Unclear(_UNKNOWN)
                return [each for some in lists for each in some]
            case ast.Name(name):
                return self.named(name)
        raise Unclear(_UNKNOWN)

    def _items(self, node: ast.expr) -> list[Any]:
        """Return the values of an item of a list; lists within lists have no further ones."""
        found = self.values(node)
        if any(isinstance(inner, tuple) for each in found if isinstance(each, tuple) for inner in each):
            raise Unclear(_UNKNOWN)
        return found

    def named(self, name: str) -> list[Any]:
        """Return the values of a name."""
        if name not in self.known:
            if name in self.open:
                raise Unclear(_UNKNOWN)
            self.open.add(name)
            self.known[name] = self._found(name)
        return self.known[name]

    def _found(self, name: str) -> list[Any]:
        value = self.constant(name)
        if value is None:
            raise Unclear(_UNKNOWN)
        return self.values(value)


class _OfFunction(_OfModule):
    """Values of expressions in a function."""

    def __init__(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef, arguments: Mapping[str, Any],
        constant: Callable[[str], ast.expr | None],
    ) -> None:  # fmt: skip
        super().__init__(constant, count(1))
        self.module = _OfModule(constant, self.steps)
        self.nodes = [each for statement in function.body for each in _own(statement)]
        self.sets = Counter(
            node.id for node in self.nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        )
        self.assigned: dict[str, list[ast.expr]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self.assigned.setdefault(target.id, []).append(node.value)
        every = [each for statement in function.body for each in ast.walk(statement)]
        self.unclear = {name for node in self.nodes for name in _bound(node)}
        self.unclear |= {
            target.id for node in self.nodes if isinstance(node, ast.Assign) and node.targets[1:]
            and not isinstance(node.value, ast.Constant) for target in node.targets if isinstance(target, ast.Name)
        }  # fmt: skip
        self.unclear |= {name for node in every if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
        self.unclear |= {each.arg for each in (function.args.vararg, function.args.kwarg) if each}
        self.uses = Counter(_loaded(every))
        self.uses.subtract(name for node in every for name in _loaded(_looked_at(node)))
        self.parameters = _arguments(function.args, arguments)

    def returned(self) -> Iterator[ast.expr]:
        for node in self.nodes:
            if isinstance(node, ast.Yield | ast.YieldFrom):
                raise Unclear("it is a generator")
            if isinstance(node, ast.Return):
                yield node.value or ast.Constant(None)

    def _found(self, name: str) -> list[Any]:
        assigned = self.assigned.get(name, [])
        if name in self.unclear or self.sets[name] != len(assigned):
            raise Unclear(_UNKNOWN)
        if name in self.parameters:
            found = list(self._values_of(self.parameters[name]))
        else:
            found = [] if assigned else list(self.module.named(name))
        found += [each for one in assigned for each in self.values(one)]
        if self.uses[name] and any(isinstance(each, tuple) for each in found):  # something may change the list
            raise Unclear(_UNKNOWN)
        return found

    def _values_of(self, value: Any) -> list[Any]:
        if isinstance(value, ast.expr):
            return self.module.values(value)
        if value is None or (isinstance(value, str) and "{" not in value):
            return [value]
        if isinstance(value, list | tuple) and all(isinstance(each, str) and "{" not in each for each in value):
            return [tuple(value)]
        raise Unclear(_UNKNOWN)


def _arguments(spec: ast.arguments, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each argument, else its default, else ``Unclear``."""
    names = [each.arg for each in (*spec.posonlyargs, *spec.args)]
    found: dict[str, Any] = {names[-1 - n]: each for n, each in enumerate(reversed(spec.defaults))}
    found |= {arg.arg: each for arg, each in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if each}
    found |= {
        names[int(name)] if name.isdigit() and int(name) < len(names) else name: value
        for name, value in arguments.items()
    }
    return {name: found.get(name, Unclear) for name in (*names, *(each.arg for each in spec.kwonlyargs))}


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield names that a node binds to something other than an expression of the function."""
    match node:
        case ast.FunctionDef(name=str(name)) | ast.AsyncFunctionDef(name=str(name)) | ast.ClassDef(name=str(name)):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
        case ast.Import(names) | ast.ImportFrom(names=names):
            yield from (each.asname or each.name.partition(".")[0] for each in names)


def _loaded(nodes: Iterable[ast.AST]) -> Iterator[str]:
    return (node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


def _looked_at(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that cannot change, whatever they are."""
    match node:
        case ast.Return(ast.IfExp(_, one, other)):
            yield from (one, other)
        case ast.Return(ast.expr() as value) | ast.For(iter=value) | ast.comprehension(iter=value):
            yield value
        case ast.If(test=value) | ast.IfExp(test=value) | ast.UnaryOp(ast.Not(), value):
            yield value
        case ast.Compare(left, comparators=others):
            yield from (left, *others)
        case ast.Call(ast.Name("len" | "print" | "str") | ast.Attribute(ast.Name("random"), "choice"), arguments):
            yield from arguments


def _rows(parts: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    if prod(map(len, parts)) > _MOST:
        raise Unclear(f"it has more than {_MOST} choices")
    return product(*parts)


def _joined(row: tuple[Any, ...]) -> str:
    if not all(isinstance(each, str) for each in row):
        raise Unclear(_UNKNOWN)
    if sum(map(len, row)) > _LONGEST:
        raise Unclear(f"its choice has more than {_LONGEST} characters")
    return "".join(row)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and its content, without functions in it."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return
    for child in ast.iter_child_nodes(node):
        yield from _own(child)


def _may_fall_through(body: list[ast.stmt]) -> bool:
    """Return whether the end of a block may be reached; True if that is not certain."""
    match body[-1]:
        case ast.Return() | ast.Raise():
            return False
        case ast.If(_, some, others):
            return not others or _may_fall_through(some) or _may_fall_through(others)
        case ast.With([ast.withitem(ast.Call(ast.Name("open")))], inner):  # any other may swallow an exception
            return _may_fall_through(inner)
        case ast.Try(some, handlers, others, final):
            if final and not _may_fall_through(final):
                return False
            return _may_fall_through(others or some) or any(_may_fall_through(each.body) for each in handlers)
    return True
