"""Builtins that create containers and iterate."""

from __future__ import annotations

import ast
import functools
import io
from collections.abc import Callable, Iterator
from typing import Any

from flowyml.migration.airflow.reader.library.natives import natives
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Native, NotKnown, Once, Unknown, hard


def _len(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = arguments.value("obj", 0)
    if isinstance(hard(value), (list, tuple, dict, set, str, bytes, range)):
        return machine.soft(len(hard(value)), value)
    if isinstance(hard(value), Instance) and (method := hard(value).special("__len__")):
        return machine.call(machine.bound(method, hard(value), node), Arguments(), node)
    return len(machine.items_of(value, node))


def _container(kind: Callable[..., Any]) -> Callable[..., Any]:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        if not arguments.positional and not arguments.named and not arguments.open:
            return kind()
        items = machine.items_of(arguments.value("iterable", 0), node)
        if arguments.open or (kind in (set, frozenset) and not machine.light(items)):
            raise NotKnown
        return machine.attempt(node, kind, items)

    return call


def _dict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if arguments.open:
        raise NotKnown
    first = machine.as_dict(arguments.positional[0].value, node) if arguments.positional else {}
    items = first if isinstance(first, dict) else machine.items_of(first, node)
    if not machine.light([list(one)[:1] for one in items if isinstance(one, (list, tuple))]):
        raise NotKnown
    made = machine.attempt(node, dict, items)
    return made | {name: given.value for name, given in arguments.named.items()} if isinstance(made, dict) else made


def from_keys(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.items_of(arguments.value("iterable", 0), node)
    if not machine.light(items):
        raise NotKnown
    return machine.attempt(node, dict.fromkeys, [hard(one) for one in items], arguments.value("value", 1))


_CELLS = 1_000_000
"""The largest number of items in rows of several iterables together; more are unknown."""


def iterating(function: Callable[..., Any], *names: str, most: int = _CELLS, is_cut: bool = False) -> Native:
    """Return a function of Python that returns an iterator, as a native. Its iterables and functions are the file's.

    ``names`` are its parameters: ``iterable`` (an iterator that is given twice gives its items to either in turn),
    ``function``, ``object`` for anything, another name for a number; the last one is that of all further arguments. An
    iterator with more than ``most`` results is unknown, or is cut there.
    """

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        if arguments.open:
            raise NotKnown
        args = [
            _converted(machine, names[min(place, len(names) - 1)], given.value, node)
            for place, given in enumerate(arguments.positional)
        ]
        kwargs = {name: _converted(machine, name, given.value, node) for name, given in arguments.named.items()}

        def taken() -> list[Any]:
            rows: list[Any] = []
            left = _CELLS
            for row in function(*args, **kwargs):
                left -= len(row) if isinstance(row, tuple) else 1
                if is_cut and len(rows) == most:
                    break
                if left < 0 or len(rows) == most:
                    raise NotKnown
                rows.append(row)
            machine.step((_CELLS - left) // 10)
            return rows

        def made() -> list[Any]:
            found = machine.attempt(node, taken)
            if not isinstance(found, list):
                raise NotKnown
            return found

        return machine.once(made, node, *arguments.values())

    return Native(function.__name__, call)


def _converted(machine: Any, name: str, value: Any, node: ast.AST) -> Any:
    """Return an argument of a parameter for a function of Python. Raises ``NotKnown``."""
    match name:
        case "iterable":
            return _pulled(machine, value, node)
        case "iterables":
            return [machine.items_of(one, node) for one in machine.items_of(value, node)]
        case "function":
            return lambda *given: machine.call(value, Arguments.of(*given), node)
        case "object" | "fillvalue":
            return value
    number = hard(value)
    if number is not None and (not isinstance(number, int) or number > _LARGEST_NUMBERS.get(name, number)):
        raise NotKnown
    return number


_LARGEST_NUMBERS = {"r": 1000, "repeat": 10}
"""The largest lengths of a row, by their parameter: a row is in memory as a whole."""


def _pulled(machine: Any, value: Any, node: ast.AST) -> Iterator[Any]:
    """Return the items of a value one by one, or those left in an iterator. Raises ``NotKnown``."""
    one = hard(value)
    return _in_turn(machine, one, node) if isinstance(one, Once) else iter(machine.items_of(value, node))


def _in_turn(machine: Any, items: Once, node: ast.AST) -> Iterator[Any]:
    while items:
        machine.step()
        yield from machine.take(items, 1, node)


def _map(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function, *rest = [given.value for given in arguments.positional]
    lists = [machine.iterate(one, node) for one in rest]
    if arguments.open or any(one is None for one in lists):
        return _tried(machine, function, len(lists), node)
    rows = zip(*lists, strict=False)
    return machine.once(lambda: [machine.call(function, Arguments.of(*row), node) for row in rows], node, *rest)


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
    items = machine.items_of(given, node)
    unsure: list[Any] = []

    def keeps(one: Any) -> bool:
        answer = machine.truth(one if function is None else machine.call(function, Arguments.of(one), node))
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
    return items if key is None else [machine.call(key, Arguments.of(one), node) for one in items]


def _ordered(machine: Any, items: list[Any], arguments: Arguments, node: ast.AST) -> Any:
    keys = keys_of(machine, items, arguments.value("key"), node)
    plain_keys, _, _, all_known = machine.settle(keys)
    if not all_known and any(isinstance(hard(one), Unknown) for one in keys):
        raise NotKnown
    order = (
        plain_keys.__getitem__ if all_known else functools.cmp_to_key(lambda *pair: _before(machine, keys, pair, node))
    )
    rows = sorted(range(len(items)), key=order, reverse=bool(hard(arguments.value("reverse"))))
    return [items[index] for index in rows]


def _before(machine: Any, keys: list[Any], pair: tuple[int, ...], node: ast.AST) -> int:
    """Compare two keys by their classes' ``<``."""
    one, other = (keys[index] for index in pair)
    for left, right, found in ((one, other, -1), (other, one, 1)):
        answer = machine.truth(machine.compare(ast.Lt, left, right, node))
        if answer is None:
            raise NotKnown
        if answer:
            return found
    return 0


def _sorted(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.items_of(arguments.value("iterable", 0), node)
    return machine.attempt(node, _ordered, machine, items, arguments, node)


def sort_in_place(machine: Any, value: list[Any], arguments: Arguments, node: ast.AST) -> None:
    """Sort a list by ``value.sort(key=…, reverse=…)``."""
    found = machine.attempt(node, _ordered, machine, list(value), arguments, node)
    if isinstance(found, list):
        machine.context.changed += 1
        value[:] = found
    else:
        machine.warn("unknown-call", f"the order that `{machine.source(node)[:80]}` makes is unknown", node)


def _extreme(largest: bool) -> Callable[..., Any]:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        many = len(arguments.positional) > 1
        first = [given.value for given in arguments.positional] if many else arguments.value("iterable", 0)
        items = machine.items_of(first, node)
        if not items:
            return arguments.value("default", None, machine.unknown(node))
        named = {"key": given} if (given := arguments.get("key")) else {}
        named["reverse"] = Given(largest)  # so that the first of equals is the first here, too
        found = machine.attempt(node, _ordered, machine, items, Arguments([], named), node)
        return found[0] if isinstance(found, list) else found

    return call


def _sum(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.items_of(arguments.value("iterable", 0), node)
    total = arguments.value("start", 1, 0)
    for one in items:
        total = machine.operate(ast.Add, total, one, node)
    return total


def _quantifier(stop: bool) -> Callable[..., Any]:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        certain = True
        for one in _pulled(machine, arguments.value("iterable", 0), node):
            if (answer := machine.truth(one)) is stop:
                return stop
            certain = certain and answer is not None
        return not stop if certain else machine.unknown(node)

    return call


def _next(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("iterator", 0))
    if isinstance(value, Once) and value:
        return machine.take(value, 1, node)[0]
    if isinstance(value, Once) and len(arguments.positional) > 1:
        return arguments.positional[1].value
    if isinstance(value, Once):
        return machine.fail("StopIteration", "nothing is left", node)
    if isinstance(value, io.StringIO):
        return machine.attempt(node, next, value, *(given.value for given in arguments.positional[1:]))
    if isinstance(value, list) and value:
        return value.pop(0)  # Python would iterate lazily, such as over the files of a folder
    raise NotKnown


def _iterator(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("iterable", 0))
    if len(arguments.positional) > 1:
        raise NotKnown
    if isinstance(value, Once):
        return value
    items = machine.items_of(value, node)
    return machine.once(lambda: items, node)


def _reversed(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.items_of(arguments.value("sequence", 0), node)
    return machine.once(lambda: items[::-1], node)


def _of_defaults(native: Native, within: bool = False) -> Native:
    """Return a native whose result is marked if its iterable is a default; ``within``, or one of its items."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        given = list(arguments.values())
        froms = [*given, *(machine.settle(given)[2] if within and machine.light(given) else [])]
        return machine.of_defaults(native.call(machine, arguments, node), froms, node)

    return Native(native.name, call)


_MAKERS = natives({
    "len": _len,
    "list": _container(list),
    "tuple": _container(tuple),
    "set": _container(set),
    "frozenset": _container(frozenset),
    "dict": _dict,
    "zip": iterating(zip, "iterable"),
    "enumerate": iterating(enumerate, "iterable", "start"),
    "map": _map,
    "filter": _filter,
    "reversed": _reversed,
    "next": _next,
    "iter": _iterator,
})  # fmt: skip
_ANSWERS = natives({
    "sorted": _sorted,
    "max": _extreme(True),
    "min": _extreme(False),
    "sum": _sum,
    "any": _quantifier(True),
    "all": _quantifier(False),
})  # fmt: skip
NAMES: dict[str, Any] = {name: _of_defaults(native) for name, native in _MAKERS.items()}
NAMES |= {name: _of_defaults(native, within=True) for name, native in _ANSWERS.items()}
