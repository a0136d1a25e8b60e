"""Builtins that create containers and iterate."""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flowyml.migration.airflow.reader.library.natives import known
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Native, Once, Unknown, hard

__all__ = ["NAMES", "from_keys", "in_rows", "keys_of", "pulled", "sort_in_place"]


def _len(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = arguments.value("obj", 0)
    if isinstance(hard(value), (list, tuple, dict, set, str, bytes, range)):
        return machine.soft(len(hard(value)), value)
    if isinstance(hard(value), Instance) and (method := hard(value).special("__len__")):
        return machine.call(machine.bound(method, hard(value), node), Arguments(), node)
    items = machine.iterate(value, node)
    return machine.unknown(node) if items is None else len(items)


def _container(kind: Callable[..., Any]) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        if not arguments.positional and not arguments.named and not arguments.open:
            return kind()
        items = machine.iterate(arguments.value("iterable", 0), node)
        if items is None or arguments.open or (kind in (set, frozenset) and not machine.light(items)):
            return machine.unknown(node)
        return machine.attempt(node, kind, items)

    return Native(getattr(kind, "__name__", "container"), call)


def _dict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    found: dict[Any, Any] = {}
    if arguments.open:
        return machine.unknown(node)
    if arguments.positional:
        first = hard(arguments.positional[0].value)
        items = first if isinstance(first, dict) else machine.iterate(first, node)
        if items is None:
            return machine.unknown(node)
        if not machine.light([list(one)[:1] for one in items if isinstance(one, (list, tuple))]):
            return machine.unknown(node)
        made = machine.attempt(node, dict, items)
        if not isinstance(made, dict):
            return made
        found = made
    found.update({name: given.value for name, given in arguments.named.items()})
    return found


def from_keys(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    if items is None or not machine.light(items):
        return machine.unknown(node)
    return machine.attempt(node, dict.fromkeys, [hard(one) for one in items], arguments.value("value", 1))


def _zip(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return in_rows(machine, arguments, node, lambda each: zip(*each, strict=False))


def in_rows(
    machine: Any, arguments: Arguments, node: ast.AST, join: Callable[[list[Iterator[Any]]], Iterable[Any]]
) -> Any:
    """Apply ``join`` to several iterables. An iterator that is in it twice gives its items to either in turn."""
    froms = [given.value for given in arguments.positional]
    each = [pulled(machine, one, node) for one in froms]
    if arguments.open or any(one is None for one in each):
        return machine.unknown(node)
    most = _CELLS // max(len(each), 1)

    def rows() -> list[Any]:
        return list(itertools.islice(join([one for one in each if one is not None]), most + 1))

    found = machine.once(rows, node, *froms)
    machine.step(len(found) * len(each) // 10)
    return machine.unknown(node) if len(found) > most else found


_CELLS = 1_000_000
"""The largest number of items in rows of several iterables together; more are unknown."""


def pulled(machine: Any, value: Any, node: ast.AST) -> Iterator[Any] | None:
    """Return the items of a value one by one, or those left in an iterator; None if they are unknown."""
    one = hard(value)
    if isinstance(one, Once):
        return _in_turn(machine, one, node)
    items = machine.iterate(value, node)
    return None if items is None else iter(items)


def _in_turn(machine: Any, items: Once, node: ast.AST) -> Iterator[Any]:
    while items:
        machine.step()
        yield from machine.take(items, 1, node)


def _enumerate(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    given = arguments.value("iterable", 0)
    items = machine.iterate(given, node)
    start = hard(arguments.value("start", 1, 0))
    if items is None or not isinstance(start, int):
        return machine.unknown(node)
    return machine.once(lambda: list(enumerate(items, start)), node, given)


def _map(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function, *rest = [given.value for given in arguments.positional]
    lists = [machine.iterate(one, node) for one in rest]
    if arguments.open or any(one is None for one in lists):
        return _tried(machine, function, len(lists), node)
    rows = zip(*lists, strict=False)
    return machine.once(
        lambda: [machine.call(function, Arguments([Given(one) for one in row]), node) for row in rows], node, *rest
    )


def _tried(machine: Any, function: Any, count: int, node: ast.AST) -> Any:
    """Call a function once for unknown items."""
    before = machine.context.effects
    machine.context.uncertain += 1
    machine.call(function, Arguments([Given(machine.unknown(node)) for _ in range(count)]), node)
    machine.context.uncertain -= 1
    if machine.context.effects != before:
        text = f"what `{machine.source(node)[:80]}` goes over is unknown: its tasks are read once"
        machine.warn("unknown-loop", text, node)
    return machine.unknown(node)


def _filter(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function, given = arguments.value("function", 0), arguments.value("iterable", 1)
    items = machine.iterate(given, node)
    if items is None:
        return machine.unknown(node)
    unsure: list[Any] = []

    def keeps(one: Any) -> bool:
        answer = machine.truth(one if function is None else machine.call(function, Arguments([Given(one)]), node))
        unsure.extend([one] if answer is None else [])
        return answer is not False

    found = machine.once(lambda: [one for one in items if keeps(one)], node, given)
    if unsure and not machine.mentions(list(found)):
        return machine.unknown(node)
    if unsure:
        machine.warn(
            "unknown-condition", f"what `{machine.source(node)[:80]}` keeps is unknown: everything is kept", node
        )
    return found


def keys_of(machine: Any, items: list[Any], key: Any, node: ast.AST) -> list[Any]:
    """Return the results of ``key`` for each item; the items themselves without ``key``."""
    return items if key is None else [machine.call(key, Arguments([Given(one)]), node) for one in items]


def _ordered(machine: Any, items: list[Any], arguments: Arguments, node: ast.AST) -> Any:
    keys = keys_of(machine, items, arguments.value("key"), node)
    plain_keys, _, _, all_known = machine.settle(keys)
    if not all_known and any(isinstance(hard(one), Unknown) for one in keys):
        return machine.unknown(node)
    order = (
        plain_keys.__getitem__ if all_known else functools.cmp_to_key(lambda *pair: _before(machine, keys, pair, node))
    )
    try:
        rows = sorted(range(len(items)), key=order, reverse=bool(hard(arguments.value("reverse"))))
    except _NotKnown:
        return machine.unknown(node)
    return [items[index] for index in rows]


class _NotKnown(Exception):
    """The order of two items is unknown."""


def _before(machine: Any, keys: list[Any], pair: tuple[int, ...], node: ast.AST) -> int:
    """Compare two keys by their classes' ``<``."""
    one, other = (keys[index] for index in pair)
    for left, right, found in ((one, other, -1), (other, one, 1)):
        answer = machine.truth(machine.compare(ast.Lt, left, right, node))
        if answer is None:
            raise _NotKnown
        if answer:
            return found
    return 0


def _sorted(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    if items is None:
        return machine.unknown(node)
    return machine.attempt(node, _ordered, machine, items, arguments, node)


def sort_in_place(machine: Any, value: list[Any], arguments: Arguments, node: ast.AST) -> None:
    """``value.sort(key=…, reverse=…)``."""
    found = machine.attempt(node, _ordered, machine, list(value), arguments, node)
    if isinstance(found, list):
        machine.context.changed += 1
        value[:] = found
    else:
        machine.warn("unknown-call", f"the order that `{machine.source(node)[:80]}` makes is unknown", node)


def _extreme(largest: bool) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        many = len(arguments.positional) > 1
        first = [given.value for given in arguments.positional] if many else arguments.value("iterable", 0)
        items = machine.iterate(first, node)
        if not items:
            return machine.unknown(node) if items is None else arguments.value("default", None, machine.unknown(node))
        named = {"key": given} if (given := arguments.get("key")) else {}
        named["reverse"] = Given(largest)  # so that the first of equals is the first here, too
        found = machine.attempt(node, _ordered, machine, items, Arguments([], named), node)
        return found[0] if isinstance(found, list) else found

    return Native("max" if largest else "min", call)


def _sum(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    if items is None:
        return machine.unknown(node)
    total = arguments.value("start", 1, 0)
    for one in items:
        total = machine.operate(ast.Add, total, one, node)
    return total


def _quantifier(stop: bool) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        items = pulled(machine, arguments.value("iterable", 0), node)
        if items is None:
            return machine.unknown(node)
        certain = True
        for one in items:
            if (answer := machine.truth(one)) is stop:
                return stop
            certain = certain and answer is not None
        return not stop if certain else machine.unknown(node)

    return Native("any" if stop else "all", call)


def _next(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("iterator", 0))
    if isinstance(value, Once) and value:
        return machine.take(value, 1, node)[0]
    if isinstance(value, Once) and len(arguments.positional) > 1:
        return arguments.positional[1].value
    if isinstance(value, Once):
        return machine.fail("StopIteration", "nothing is left", node)
    if isinstance(value, list) and value:
        return value.pop(0)  # Python would iterate lazily, such as over the files of a folder
    return machine.unknown(node)


def _iterator(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("iterable", 0))
    if isinstance(value, Once) or len(arguments.positional) > 1:
        return value if len(arguments.positional) == 1 else machine.unknown(node)
    items = machine.iterate(value, node)
    return machine.unknown(node) if items is None else machine.once(lambda: items, node)


def _reversed(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("sequence", 0), node)
    return machine.unknown(node) if items is None else machine.once(lambda: items[::-1], node)


def _of_defaults(native: Native, within: bool = False) -> Native:
    """Return a native whose result is marked if its iterable is a default; ``within``, or one of its items."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        given = list(arguments.values())
        froms = [*given, *(machine.settle(given)[2] if within and machine.light(given) else [])]
        return machine.of_defaults(native.call(machine, arguments, node), froms, node)

    return Native(native.name, call)


_MAKERS: dict[str, Any] = {
    "len": known(_len),
    "list": _container(list),
    "tuple": _container(tuple),
    "set": _container(set),
    "frozenset": _container(frozenset),
    "dict": known(_dict),
    "zip": known(_zip),
    "enumerate": known(_enumerate),
    "map": known(_map),
    "filter": known(_filter),
    "reversed": known(_reversed),
    "next": known(_next),
    "iter": known(_iterator),
}
_ANSWERS: dict[str, Any] = {
    "sorted": known(_sorted),
    "max": _extreme(True),
    "min": _extreme(False),
    "sum": known(_sum),
    "any": _quantifier(True),
    "all": _quantifier(False),
}
NAMES: dict[str, Any] = {name: _of_defaults(native) for name, native in _MAKERS.items()}
NAMES |= {name: _of_defaults(native, within=True) for name, native in _ANSWERS.items()}
