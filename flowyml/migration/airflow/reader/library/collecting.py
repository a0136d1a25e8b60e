"""Collections, copies of them, and itertools."""

from __future__ import annotations

import ast
import collections
import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from flowyml.migration.airflow.reader.library.items import NAMES as BUILT
from flowyml.migration.airflow.reader.library.items import in_rows, keys_of
from flowyml.migration.airflow.reader.library.natives import known, plain
from flowyml.migration.airflow.reader.operations import LARGEST, TooLarge
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Items, Native, Once, Unknown, hard

__all__ = ["NAMES"]


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
    items = BUILT["dict"].call(machine, Arguments(arguments.positional[1:], arguments.named, arguments.open), node)
    if not isinstance(hard(items), dict) or factory is None:
        return items
    return machine.soft(_Defaults(lambda: machine.call(factory, Arguments(), node), hard(items)), items)


def _counter(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    is_light = all(map(machine.light, arguments.values()))
    return plain(collections.Counter).call(machine, arguments, node) if is_light else machine.unknown(node)


def _ordered_dict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = BUILT["dict"].call(machine, arguments, node)
    return machine.soft(collections.OrderedDict(hard(items)), items) if isinstance(hard(items), dict) else items


def _copied(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return _deep(machine, arguments.value("x", 0), 0)


def _deep(machine: Any, value: Any, depth: int) -> Any:
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
    lists = [machine.iterate(one, node) for one in froms]
    if arguments.open or any(one is None for one in lists):
        return machine.unknown(node)
    return machine.once(lambda: [one for each in lists for one in each], node, *froms)


def _chained_from(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    outer = machine.iterate(arguments.value("iterable", 0), node)
    if outer is None:
        return machine.unknown(node)
    return _chained(machine, Arguments([Given(one) for one in outer]), node)


def _combined(function: Callable[..., Any], lists: int) -> Native:
    """Return a function of itertools whose first ``lists`` arguments are iterables.

    More than 10,000 results are unknown.
    """

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        count = len(arguments.positional)
        args = [
            machine.iterate(given.value, node) if index < lists else hard(given.value)
            for index, given in enumerate(arguments.positional)
        ]
        kwargs = {name: hard(given.value) for name, given in arguments.named.items()}
        repeat = kwargs.get("repeat", 1)
        if not isinstance(repeat, int) or repeat > 10 or arguments.open:
            return machine.unknown(node)
        if any(isinstance(one, Unknown) or one is None for one in args) or not count:
            return machine.unknown(node)

        def rows() -> list[Any]:
            found: list[Any] = []
            count = 0
            for row in function(*args, **kwargs):
                count += len(row) if isinstance(row, tuple) else 1
                if count > LARGEST or len(found) == _MOST:
                    raise TooLarge
                found.append(row)
            machine.step(len(found) + count // 10)
            return found

        found = machine.attempt(node, rows)
        froms = [given.value for given in arguments.positional]
        return machine.once(lambda: found, node, *froms) if isinstance(found, list) else found

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
    return machine.once(lambda: rows, node, arguments.value("iterable", 0))


def _sliced(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.islice``, which leaves the rest in the iterator."""
    given, *rest = arguments.positional
    limits = [hard(one.value) for one in rest]
    value = hard(given.value)
    stop = limits[0] if len(limits) == 1 else limits[1] if limits else None
    if not all(one is None or isinstance(one, int) for one in limits):
        return machine.unknown(node)
    if isinstance(value, Once):
        items = machine.take(value, len(value) if stop is None else max(stop, 0), node)
    else:
        items = machine.iterate(value, node)
    if items is None:
        return machine.unknown(node)
    found = machine.attempt(node, lambda items: list(itertools.islice(items, *limits)), items)
    return machine.once(lambda: found, node, value) if isinstance(found, list) else found


def _zipped(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.zip_longest``."""
    filler = arguments.value("fillvalue")
    return in_rows(machine, arguments, node, lambda each: itertools.zip_longest(*each, fillvalue=filler))


def _accumulated(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    given, function = arguments.value("iterable", 0), arguments.value("func", 1)
    items = machine.iterate(given, node)
    if items is None:
        return machine.unknown(node)
    if (start := arguments.get("initial")) is not None and hard(start.value) is not None:
        items = [start.value, *items]

    def joined(one: Any, other: Any) -> Any:
        if function is None:
            return machine.operate(ast.Add, one, other, node)
        return machine.call(function, Arguments([Given(one), Given(other)]), node)

    return machine.once(lambda: list(itertools.accumulate(items, joined)), node, given)


def _teed(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    given, count = arguments.value("iterable", 0), hard(arguments.value("n", 1, 2))
    items = machine.iterate(given, node)
    if items is None or not isinstance(count, int) or not 0 <= count <= 10:
        return machine.unknown(node)
    return tuple(machine.once(lambda: list(items), node, given) for _ in range(count))


def _counted(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    start, step = hard(arguments.value("start", 0, 0)), hard(arguments.value("step", 1, 1))
    if not isinstance(start, int) or not isinstance(step, int):
        return machine.unknown(node)
    machine.step(_ENDLESS // 10)
    return machine.once(lambda: [start + number * step for number in range(_ENDLESS)], node)


def _cycled(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    given = arguments.value("iterable", 0)
    items = machine.iterate(given, node)
    if items is None:
        return machine.unknown(node)
    machine.step(_ENDLESS // 10)
    return machine.once(lambda: list(itertools.islice(itertools.cycle(items), _ENDLESS)), node, given)


def _starred(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.starmap``."""
    function, given = arguments.value("function", 0), arguments.value("iterable", 1)
    rows = machine.iterate(given, node)
    items = None if rows is None else [machine.iterate(row, node) for row in rows]
    if items is None or any(one is None for one in items):
        return machine.unknown(node)
    calls = [Arguments([Given(one) for one in row]) for row in items]
    return machine.once(lambda: [machine.call(function, each, node) for each in calls], node, given)


def _shuffled(machine: Any, arguments: Arguments, node: ast.AST) -> None:
    machine.warn("unknown-call", f"the order that `{machine.source(node)[:80]}` makes is unknown", node)


def _queue(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``collections.deque``, as a list. One with ``maxlen`` is unknown."""
    items = machine.iterate(arguments.value("iterable", 0, ()), node)
    bounded = hard(arguments.value("maxlen", 1)) is not None
    return machine.unknown(node) if items is None or bounded else list(items)


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


_MOST = 10_000
_ENDLESS = 5_000
"""The number of items of an iterator without an end."""
NAMES: dict[str, Any] = {
    "itertools.groupby": known(_grouped),
    "functools.reduce": known(_reduce),
    "collections.defaultdict": known(_defaultdict),
    "collections.Counter": known(_counter),
    "collections.OrderedDict": known(_ordered_dict),
    "collections.ChainMap": plain(lambda *maps: dict(collections.ChainMap(*maps))),
    "copy.copy": known(_shallow),
    "copy.deepcopy": known(_copied),
    "itertools.chain": known(_chained),
    "itertools.chain.from_iterable": known(_chained_from),
    "itertools.product": _combined(itertools.product, lists=100),
    "itertools.combinations": _combined(itertools.combinations, lists=1),
    "itertools.combinations_with_replacement": _combined(itertools.combinations_with_replacement, lists=1),
    "itertools.permutations": _combined(itertools.permutations, lists=1),
    "itertools.pairwise": _combined(itertools.pairwise, lists=1),
    "itertools.islice": known(_sliced),
    "itertools.repeat": _combined(itertools.repeat, lists=0),
    "itertools.zip_longest": known(_zipped),
    "itertools.accumulate": known(_accumulated),
    "itertools.starmap": known(_starred),
    "itertools.tee": known(_teed),
    "itertools.count": known(_counted),
    "random.shuffle": known(_shuffled),
    "itertools.cycle": known(_cycled),
    "collections.deque": known(_queue),
}
