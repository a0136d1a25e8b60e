"""Collections, copies of them, and what itertools makes of several."""

from __future__ import annotations

import ast
import collections
import copy
import itertools
from collections.abc import Callable
from typing import Any

from flowyml.migration.airflow.reader.library.items import keys_of
from flowyml.migration.airflow.reader.library.natives import known, plain
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Native, Unknown, hard

__all__ = ["NAMES"]


class _Defaults(dict[Any, Any]):
    """``defaultdict`` whose factory the evaluator calls."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> Any:
        self[key] = self._make()
        return self[key]

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)


def _defaultdict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    factory = arguments.positional[0].value if arguments.positional else None
    return _Defaults(lambda: machine.call(factory, Arguments(), node))


def _copied(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return _deep(machine, arguments.value("x", 0), 0)


def _deep(machine: Any, value: Any, depth: int) -> Any:
    machine.step()
    if depth > 30:
        return value
    if type(value) in (list, tuple, set):
        return type(value)(_deep(machine, one, depth + 1) for one in value)
    if isinstance(value, dict):
        return {key: _deep(machine, one, depth + 1) for key, one in value.items()}
    if type(value) is Instance:
        return Instance(value.cls, {key: _deep(machine, one, depth + 1) for key, one in value.attributes.items()})
    return value


def _shallow(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("x", 0))
    return copy.copy(value) if isinstance(value, (list, dict, set)) else _deep(machine, value, 29)


def _chained(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    lists = [machine.iterate(given.value, node) for given in arguments.positional]
    return machine.unknown(node) if None in lists else [one for each in lists for one in each]


def _chained_from(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    outer = machine.iterate(arguments.value("iterable", 0), node)
    if outer is None:
        return machine.unknown(node)
    return _chained(machine, Arguments([Given(one) for one in outer]), node)


def _combined(function: Callable[..., Any]) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        count = len(arguments.positional)
        args = [
            machine.iterate(given.value, node)
            if isinstance(hard(given.value), (list, tuple, str))
            else hard(given.value)
            for given in arguments.positional
        ]
        kwargs = {name: hard(given.value) for name, given in arguments.named.items()}
        repeat = kwargs.get("repeat", 1)
        if not isinstance(repeat, int) or repeat > 10:
            return machine.unknown(node)
        if any(isinstance(one, Unknown) or one is None for one in args) or not count:
            return machine.unknown(node)
        found = machine.attempt(node, lambda: list(itertools.islice(function(*args, **kwargs), 10_000)))
        machine.step(len(found) if isinstance(found, list) else 1)
        return found

    return Native("combined", call)


def _grouped(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.groupby``: pairs of a key and the list of its run."""
    items = machine.iterate(arguments.value("iterable", 0), node)
    if items is None:
        return machine.unknown(node)
    keys = keys_of(machine, items, arguments.value("key", 1), node)
    rows: list[Any] = []
    for one, name in zip(items, keys, strict=True):
        if rows and machine.truth(machine.compare(ast.Eq, rows[-1][0], name, node)):
            rows[-1][1].append(one)
        else:
            rows.append((name, [one]))
    return rows


def _reduce(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function, items = arguments.value("function", 0), machine.iterate(arguments.value("iterable", 1), node)
    if items is None:
        return machine.unknown(node)
    items = [*([arguments.positional[2].value] if len(arguments.positional) > 2 else []), *items]
    if not items:
        return machine.unknown(node)
    value = items[0]
    for one in items[1:]:
        value = machine.call(function, Arguments([Given(value), Given(one)]), node)
    return value


NAMES: dict[str, Any] = {
    "itertools.groupby": known(_grouped),
    "functools.reduce": known(_reduce),
    "collections.defaultdict": known(_defaultdict),
    "collections.Counter": plain(lambda items=(): dict(collections.Counter(items))),
    "collections.ChainMap": plain(lambda *maps: dict(collections.ChainMap(*maps))),
    "copy.copy": known(_shallow),
    "copy.deepcopy": known(_copied),
    "itertools.chain": known(_chained),
    "itertools.chain.from_iterable": known(_chained_from),
    "itertools.product": _combined(itertools.product),
    "itertools.combinations": _combined(itertools.combinations),
    "itertools.permutations": _combined(itertools.permutations),
    "itertools.pairwise": _combined(itertools.pairwise),
    "itertools.islice": _combined(itertools.islice),
    "itertools.repeat": _combined(itertools.repeat),
    "itertools.zip_longest": _combined(itertools.zip_longest),
    "itertools.accumulate": _combined(itertools.accumulate),
}
