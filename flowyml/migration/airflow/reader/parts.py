"""Search a value at any depth: tasks, edges' ends, defaults, unknowns; and bound the size of that search."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.nodes import Dag, Group, Label, MappedArgument, Task, XCom

LIGHT = 100_000
"""The largest number of parts of a value that is traversed; a shared part counts each time."""
_DICTS: tuple[dict[Any, Any], ...] = ({}, OrderedDict())
_VIEWS: tuple[Any, ...] = tuple(type(view) for one in _DICTS for view in (one.keys(), one.values(), one.items()))
_LISTS: tuple[Any, ...] = (list, tuple, set, frozenset, *_VIEWS)
CONTAINERS: tuple[Any, ...] = (*_LISTS, dict)
_LETTERS = 100
"""The number of letters of a text that count as an additional part."""
_HASHED = 2**61 - 1
_OF_LARGE_NUMBERS = 2_000
"""The number of parts that a number counts as if its hash can be chosen to collide: ``k * (2**61 - 1)``."""


def operators_in(value: Any, depth: int = 0) -> Iterator[Task]:
    """Yield the tasks whose results are anywhere in a value."""
    value = values.hard(value)
    if isinstance(value, XCom):
        yield from value.tasks()
    elif isinstance(value, MappedArgument):
        for one in value.mapped.values():
            yield from operators_in(one, depth + 1)
    elif depth < 20 and isinstance(value, (list, tuple, set)):
        for one in value:
            yield from operators_in(one, depth + 1)
    elif depth < 20 and isinstance(value, dict):
        for one in value.values():
            yield from operators_in(one, depth + 1)


def flat(value: Any) -> list[Any]:
    """Return the items of nested lists, tuples and sets; a list of the value itself for any other."""
    value = values.hard(value)
    return [one for each in value for one in flat(each)] if isinstance(value, (list, tuple, set)) else [value]


def is_node(value: Any) -> bool:
    """Return whether an edge can lead to a value."""
    return isinstance(values.hard(value), (Task, Group, XCom, Label))


def mentions(value: Any) -> tuple[bool, int]:
    """Return whether a DAG, task or group is in a value (its first 20,000 parts), and the number of visited parts."""
    todo, count = [value], 0
    while todo and count < 20_000:
        one = values.hard(todo.pop())
        count += 1
        if isinstance(one, (Task, Group, XCom, Dag)):
            return True, count
        if isinstance(one, _LISTS):
            todo += one
        elif isinstance(one, dict):
            todo += one.values()
    return False, count


def light(value: Any) -> bool:
    """Return whether a value has few enough parts to be traversed."""
    return size(value) <= LIGHT


def size(value: Any) -> int:
    """Return the number of parts of a value at any depth, up to slightly more than ``LIGHT``.

    A long text counts as several.
    """
    todo, count = [value], 0
    while todo and count <= LIGHT:
        one = values.hard(todo.pop())
        count += 1
        if isinstance(one, (str, bytes)):
            count += len(one) // _LETTERS
        elif isinstance(one, (int, float)):
            count += 0 if -_HASHED < one < _HASHED else _OF_LARGE_NUMBERS
        elif isinstance(one, CONTAINERS):
            if len(one) > LIGHT:
                return LIGHT + 1
            todo += one
            if isinstance(one, dict):
                count -= len(one)  # a key that is short text counts together with its value
                todo += one.values()
    return count


def settle(args: Any, kwargs: Any = None) -> tuple[Any, Any, list[values.Soft], bool, int]:
    """Remove marks of defaults from arguments, at any depth.

    Also returns those marks, whether everything in the arguments is known, and the number of parts that were visited.
    """
    soft: list[values.Soft] = []
    state: list[Any] = [True, 0]

    def clean(value: Any, depth: int) -> Any:
        state[1] += 1
        if state[1] > _MOST:
            state[0] = False
            return value
        if type(value) is values.Soft:
            soft.append(value)
            return clean(value.value, depth)
        if isinstance(value, (str, bytes)):
            state[1] += len(value) // _LETTERS
            return value
        if (
            isinstance(
                value,
                (
                    values.Unknown,
                    values.Foreign,
                    values.Instance,
                    values.Function,
                    values.Class,
                    values.Module,
                    values.Native,
                ),
            )
            or depth > 30
        ):
            state[0] = False
            return value
        if type(value) in (list, tuple, set, frozenset, values.Once):
            return _rebuilt(value, [clean(one, depth + 1) for one in value])
        if isinstance(value, _VIEWS):
            items = list(value)
            found = _rebuilt(items, [clean(one, depth + 1) for one in items])
            return value if found is items else found
        if isinstance(value, dict):
            return _rebuilt(value, {clean(key, depth + 1): clean(one, depth + 1) for key, one in value.items()})
        return value

    return clean(list(args), 0), clean(dict(kwargs or {}), 0), soft, state[0] and state[1] <= _MOST, state[1]


_MOST = 200_000
"""The largest number of parts of an argument that a function of Python gets; a larger one counts as unknown."""


def _rebuilt(old: Any, new: Any) -> Any:
    """Return the container itself if nothing in it changed: natives may change it in place."""
    if isinstance(old, dict):
        return old if all(new.get(key) is value for key, value in old.items()) else new
    if all(one is other for one, other in zip(old, new, strict=False)):
        return old
    return type(old)(new)
