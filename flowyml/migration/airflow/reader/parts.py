"""What is anywhere in a value: tasks, edges' ends, defaults, unknowns; and whether it can be walked over at all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from flowyml.migration.airflow.reader.nodes import Dag, Group, Label, MappedArgument, Task, XCom
from flowyml.migration.airflow.reader.values import (
    Class,
    Foreign,
    Function,
    Instance,
    Module,
    Native,
    Once,
    Soft,
    Unknown,
    hard,
)

__all__ = ["CONTAINERS", "LIGHT", "flat", "is_node", "light", "mentions", "operators_in", "settle", "size"]

LIGHT = 100_000
"""How many parts a value may have that is walked over, where one that is shared counts each time."""
_DICTS: tuple[dict[Any, Any], ...] = ({}, OrderedDict())
_VIEWS: tuple[Any, ...] = tuple(type(view) for one in _DICTS for view in (one.keys(), one.values(), one.items()))
_LISTS: tuple[Any, ...] = (list, tuple, set, frozenset, *_VIEWS)
CONTAINERS: tuple[Any, ...] = (*_LISTS, dict)
_LETTERS = 100
"""So many letters of a text count as a part more."""
_HASHED = 2**61 - 1
_OF_LARGE_NUMBERS = 2_000
"""So many parts more a number counts as which a file can choose to have the hash of others: ``k * (2**61 - 1)``."""


def operators_in(value: Any, depth: int = 0) -> Iterator[Task]:
    """The tasks whose results are anywhere in a value."""
    value = hard(value)
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
    """The items of nested lists, tuples and sets; a list of the value itself for any other."""
    value = hard(value)
    return [one for each in value for one in flat(each)] if isinstance(value, (list, tuple, set)) else [value]


def is_node(value: Any) -> bool:
    """Whether an edge can be drawn to it."""
    return isinstance(hard(value), (Task, Group, XCom, Label))


def mentions(value: Any) -> tuple[bool, int]:
    """Whether a DAG, task or group is anywhere in a value (in its first 20,000 parts), and how many were looked at."""
    todo, count = [value], 0
    while todo and count < 20_000:
        one = hard(todo.pop())
        count += 1
        if isinstance(one, (Task, Group, XCom, Dag)):
            return True, count
        if isinstance(one, _LISTS):
            todo += one
        elif isinstance(one, dict):
            todo += one.values()
    return False, count


def light(value: Any) -> bool:
    """Whether a value can be walked over: it has few parts."""
    return size(value) <= LIGHT


def size(value: Any) -> int:
    """How many parts a value has at any depth, at most a few more than ``LIGHT``. A long text counts as several."""
    todo, count = [value], 0
    while todo and count <= LIGHT:
        one = hard(todo.pop())
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


def settle(args: Any, kwargs: Any = None) -> tuple[Any, Any, list[Soft], bool, int]:
    """Arguments without marks of defaults at any depth, those marks, whether everything in them is known, and how many
    parts were looked at."""
    soft: list[Soft] = []
    state: list[Any] = [True, 0]

    def clean(value: Any, depth: int) -> Any:
        state[1] += 1
        if state[1] > _MOST:
            state[0] = False
            return value
        if type(value) is Soft:
            soft.append(value)
            return clean(value.value, depth)
        if isinstance(value, (str, bytes)):
            state[1] += len(value) // _LETTERS
            return value
        if isinstance(value, (Unknown, Foreign, Instance, Function, Class, Module, Native)) or depth > 30:
            state[0] = False
            return value
        if type(value) in (list, tuple, set, frozenset, Once):
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
"""How many parts an argument may have that a function of Python gets; one of more counts as not known."""


def _rebuilt(old: Any, new: Any) -> Any:
    """The container itself where nothing in it changed: natives may change it in place."""
    if isinstance(old, dict):
        return old if all(new.get(key) is value for key, value in old.items()) else new
    if all(one is other for one, other in zip(old, new, strict=False)):
        return old
    return type(old)(new)
