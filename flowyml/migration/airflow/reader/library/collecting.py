"""Collections, copies of them, and itertools."""

from __future__ import annotations

import ast
import collections
import copy
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from flowyml.migration.airflow.reader.library.items import NAMES as BUILT
from flowyml.migration.airflow.reader.library.items import iterating, keys_of
from flowyml.migration.airflow.reader.library.natives import natives, plain
from flowyml.migration.airflow.reader.values import Arguments, Instance, Items, NotKnown, hard

_MOST = 10_000
"""The largest number of results of a function of itertools; more are unknown."""
_ENDLESS = 5_000
"""The number of items of an iterator without an end."""


class _Defaults(dict[Any, Any]):
    """``defaultdict`` whose factory the evaluator calls."""

    def __init__(self, make: Callable[[], Any], items: Mapping[Any, Any]) -> None:
        super().__init__(items)
        self._make = make

    def __missing__(self, key: Any) -> Any:
        self[key] = self._make()
        return self[key]

    def __copy__(self) -> _Defaults:
        return _Defaults(self._make, self)

    copy = __copy__


def _defaultdict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return ``defaultdict(factory, items)``; without a factory a dictionary."""
    factory = arguments.value("default_factory", 0)
    items = BUILT["dict"].call(machine, arguments.rest(), node)
    if not isinstance(hard(items), dict) or factory is None:
        return items
    return machine.soft(_Defaults(lambda: machine.call(factory, Arguments(), node), hard(items)), items)


def _counter(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    is_light = all(map(machine.light, arguments.values()))
    return plain(collections.Counter).call(machine, arguments, node) if is_light else machine.unknown(node)


def _ordered_dict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = BUILT["dict"].call(machine, arguments, node)
    return machine.soft(collections.OrderedDict(hard(items)), items) if isinstance(hard(items), dict) else items


def _deep(machine: Any, value: Any, depth: int = 0) -> Any:
    machine.step()
    if depth > 30:
        return value
    if type(value) in (list, tuple, set):
        return type(value)(_deep(machine, one, depth + 1) for one in value)
    if isinstance(value, Items) and value.cls is not None:
        copied = Items(value.cls)
        copied.update({key: _deep(machine, one, depth + 1) for key, one in value.items()})
        return copied
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, one in value.items():
            made[key] = _deep(machine, one, depth + 1)
        return made
    if type(value) is Instance:
        return Instance(value.cls, {key: _deep(machine, one, depth + 1) for key, one in value.attributes.items()})
    return value


def _shallow(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("x", 0))
    if type(value) is Instance:
        return Instance(value.cls, dict(value.attributes))
    return copy.copy(value) if isinstance(value, (list, dict, set)) else value


def _grouped(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return the pairs of ``itertools.groupby``, each of a key and the list of its run."""
    items = machine.items_of(arguments.value("iterable", 0), node)
    keys = keys_of(machine, items, arguments.value("key", 1), node)
    rows: list[Any] = []
    for one, name in zip(items, keys, strict=True):
        if rows and machine.truth(machine.compare(ast.Eq, rows[-1][0], name, node)):
            rows[-1][1].append(one)
        else:
            rows.append((name, [one]))
    return machine.once(lambda: rows, node, arguments.value("iterable", 0))


def _called_with_two(machine: Any, function: Any, node: ast.AST) -> Callable[[Any, Any], Any]:
    """Return a function of the file, by default addition, as one that Python can call."""
    if function is None:
        return lambda one, other: machine.operate(ast.Add, one, other, node)
    return lambda one, other: machine.call(function, Arguments.of(one, other), node)


def _accumulated(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    given, join = arguments.value("iterable", 0), _called_with_two(machine, arguments.value("func", 1), node)
    items, start = machine.items_of(given, node), arguments.value("initial")
    initial = start if hard(start) is not None else None
    return machine.once(lambda: list(itertools.accumulate(items, join, initial=initial)), node, given)


def _reduce(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.items_of(arguments.value("iterable", 1), node)
    items = [*(given.value for given in arguments.positional[2:3]), *items]
    if not items:
        raise NotKnown
    return functools.reduce(_called_with_two(machine, arguments.value("function", 0), node), items)


def _teed(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    given = arguments.value("iterable", 0)
    items, count = machine.items_of(given, node), arguments.expect(int, "n", 1, 2)
    if not 0 <= count <= 10:
        raise NotKnown
    return tuple(machine.once(lambda: list(items), node, given) for _ in range(count))


def _shuffled(machine: Any, arguments: Arguments, node: ast.AST) -> None:
    machine.warn("unknown-call", f"the order that `{machine.source(node)[:80]}` makes is unknown", node)


def _queue(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return a ``collections.deque`` as a list. One with ``maxlen`` is unknown."""
    items = machine.items_of(arguments.value("iterable", 0, ()), node)
    if hard(arguments.value("maxlen", 1)) is not None:
        raise NotKnown
    return list(items)


NAMES = natives({
    "itertools.groupby": _grouped,
    "functools.reduce": _reduce,
    "collections.defaultdict": _defaultdict,
    "collections.Counter": _counter,
    "collections.OrderedDict": _ordered_dict,
    "collections.ChainMap": plain(lambda *maps: dict(collections.ChainMap(*maps))),
    "copy.copy": _shallow,
    "copy.deepcopy": lambda machine, arguments, node: _deep(machine, arguments.value("x", 0)),
    "itertools.chain": iterating(itertools.chain, "iterable"),
    "itertools.chain.from_iterable": iterating(itertools.chain.from_iterable, "iterables"),
    "itertools.product": iterating(itertools.product, "iterable", most=_MOST),
    "itertools.combinations": iterating(itertools.combinations, "iterable", "r", most=_MOST),
    "itertools.combinations_with_replacement": iterating(
        itertools.combinations_with_replacement, "iterable", "r", most=_MOST
    ),
    "itertools.permutations": iterating(itertools.permutations, "iterable", "r", most=_MOST),
    "itertools.pairwise": iterating(itertools.pairwise, "iterable"),
    "itertools.islice": iterating(itertools.islice, "iterable", "stop"),
    "itertools.repeat": iterating(itertools.repeat, "object", "times", most=_MOST),
    "itertools.zip_longest": iterating(itertools.zip_longest, "iterable"),
    "itertools.accumulate": _accumulated,
    "itertools.starmap": iterating(itertools.starmap, "function", "iterables"),
    "itertools.tee": _teed,
    "itertools.count": iterating(itertools.count, "start", "step", most=_ENDLESS, is_cut=True),
    "random.shuffle": _shuffled,
    "itertools.cycle": iterating(itertools.cycle, "iterable", most=_ENDLESS, is_cut=True),
    "collections.deque": _queue,
})  # fmt: skip
