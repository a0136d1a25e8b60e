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
from flowyml.migration.airflow.reader.library.items import in_rows, keys_of
from flowyml.migration.airflow.reader.library.natives import natives, plain
from flowyml.migration.airflow.reader.operations import LARGEST
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Items, NotKnown, Once, Unknown, hard

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
    """``defaultdict(factory, items)``; without a factory a dictionary."""
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


def _chained(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    froms = [given.value for given in arguments.positional]
    lists = [machine.items_of(one, node) for one in froms]
    if arguments.open:
        raise NotKnown
    return machine.once(lambda: list(itertools.chain(*lists)), node, *froms)


def _chained_from(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    outer = machine.items_of(arguments.value("iterable", 0), node)
    return _chained(machine, Arguments([Given(one) for one in outer]), node)


def _combined(function: Callable[..., Any], lists: int) -> Callable[..., Any]:
    """Return a function of itertools whose first ``lists`` arguments are iterables."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        froms = [given.value for given in arguments.positional]
        args = [machine.iterate(value, node) if index < lists else hard(value) for index, value in enumerate(froms)]
        kwargs = {name: hard(given.value) for name, given in arguments.named.items()}
        repeat = kwargs.get("repeat", 1)
        if not isinstance(repeat, int) or repeat > 10 or arguments.open:
            raise NotKnown
        if any(isinstance(one, Unknown) or one is None for one in args) or not args:
            raise NotKnown

        def rows() -> list[Any]:
            found: list[Any] = []
            count = 0
            for row in function(*args, **kwargs):
                count += len(row) if isinstance(row, tuple) else 1
                if count > LARGEST or len(found) == _MOST:
                    raise NotKnown
                found.append(row)
            machine.step(len(found) + count // 10)
            return found

        found = machine.attempt(node, rows)
        return machine.once(lambda: found, node, *froms) if isinstance(found, list) else found

    return call


def _grouped(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.groupby``: pairs of a key and the list of its run."""
    items = machine.items_of(arguments.value("iterable", 0), node)
    keys = keys_of(machine, items, arguments.value("key", 1), node)
    rows: list[Any] = []
    for one, name in zip(items, keys, strict=True):
        if rows and machine.truth(machine.compare(ast.Eq, rows[-1][0], name, node)):
            rows[-1][1].append(one)
        else:
            rows.append((name, [one]))
    return machine.once(lambda: rows, node, arguments.value("iterable", 0))


def _sliced(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.islice``, which leaves the rest in the iterator."""
    given, *rest = arguments.positional
    limits = [hard(one.value) for one in rest]
    value = hard(given.value)
    stop = limits[0] if len(limits) == 1 else limits[1] if limits else None
    if not all(one is None or isinstance(one, int) for one in limits):
        raise NotKnown
    if isinstance(value, Once):
        items = machine.take(value, len(value) if stop is None else max(stop, 0), node)
    else:
        items = machine.items_of(value, node)
    found = machine.attempt(node, lambda items: list(itertools.islice(items, *limits)), items)
    return machine.once(lambda: found, node, value) if isinstance(found, list) else found


def _zipped(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    filler = arguments.value("fillvalue")
    return in_rows(machine, arguments, node, lambda each: itertools.zip_longest(*each, fillvalue=filler))


def _called_with_two(machine: Any, function: Any, node: ast.AST) -> Callable[[Any, Any], Any]:
    """Return a function of the file, by default addition, as one that Python can call."""
    if function is None:
        return lambda one, other: machine.operate(ast.Add, one, other, node)
    return lambda one, other: machine.call(function, Arguments([Given(one), Given(other)]), node)


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


def _counted(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    counted = itertools.count(arguments.expect(int, "start", 0, 0), arguments.expect(int, "step", 1, 1))
    machine.step(_ENDLESS // 10)
    return machine.once(lambda: list(itertools.islice(counted, _ENDLESS)), node)


def _cycled(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    given = arguments.value("iterable", 0)
    items = machine.items_of(given, node)
    machine.step(_ENDLESS // 10)
    return machine.once(lambda: list(itertools.islice(itertools.cycle(items), _ENDLESS)), node, given)


def _starred(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.starmap``."""
    function, given = arguments.value("function", 0), arguments.value("iterable", 1)
    rows = [machine.items_of(row, node) for row in machine.items_of(given, node)]
    calls = [Arguments([Given(one) for one in row]) for row in rows]
    return machine.once(lambda: [machine.call(function, each, node) for each in calls], node, given)


def _shuffled(machine: Any, arguments: Arguments, node: ast.AST) -> None:
    machine.warn("unknown-call", f"the order that `{machine.source(node)[:80]}` makes is unknown", node)


def _queue(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``collections.deque``, as a list. One with ``maxlen`` is unknown."""
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
    "itertools.chain": _chained,
    "itertools.chain.from_iterable": _chained_from,
    "itertools.product": _combined(itertools.product, lists=100),
    "itertools.combinations": _combined(itertools.combinations, lists=1),
    "itertools.combinations_with_replacement": _combined(itertools.combinations_with_replacement, lists=1),
    "itertools.permutations": _combined(itertools.permutations, lists=1),
    "itertools.pairwise": _combined(itertools.pairwise, lists=1),
    "itertools.islice": _sliced,
    "itertools.repeat": _combined(itertools.repeat, lists=0),
    "itertools.zip_longest": _zipped,
    "itertools.accumulate": _accumulated,
    "itertools.starmap": _starred,
    "itertools.tee": _teed,
    "itertools.count": _counted,
    "random.shuffle": _shuffled,
    "itertools.cycle": _cycled,
    "collections.deque": _queue,
})  # fmt: skip
