"""What is anywhere in a value: tasks, edges' ends, defaults, unknowns; and whether it can be walked over at all."""

from __future__ import annotations

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

__all__ = ["flat", "is_node", "light", "mentions", "operators_in", "settle"]


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


def _parts(value: Any, most: int) -> Iterator[Any]:
    """A value and what is in it, at any depth, up to so many parts."""
    todo = [value]
    for _ in range(most):
        if not todo:
            return
        one = hard(todo.pop())
        yield one
        if isinstance(one, (list, tuple, set)):
            todo += one
        elif isinstance(one, dict):
            todo += one.values()


def mentions(value: Any) -> bool:
    """Whether a DAG, task or group is anywhere in a value (in its first 20,000 parts)."""
    return any(isinstance(one, (Task, Group, XCom, Dag)) for one in _parts(value, 20_000))


def light(value: Any) -> bool:
    """Whether a value can be walked over: it has few parts, where one that is shared counts each time."""
    value = hard(value)
    if not isinstance(value, (list, tuple, set, dict)):
        return True
    return sum(1 for _ in _parts(value, 100_001)) <= 100_000


def settle(args: Any, kwargs: Any = None) -> tuple[Any, Any, list[Soft], bool]:
    """Arguments without marks of defaults at any depth, those marks, and whether everything in them is known."""
    soft: list[Soft] = []
    state = [True, 0]

    def clean(value: Any, depth: int) -> Any:
        state[1] += 1
        if type(value) is Soft:
            soft.append(value)
            return clean(value.value, depth)
        if isinstance(value, (Unknown, Foreign, Instance, Function, Class, Module, Native)) or depth > 30:
            state[0] = False
            return value
        if state[1] > 200_000:
            state[0] = False
            return value
        if type(value) in (list, tuple, set, Once):
            return _rebuilt(value, [clean(one, depth + 1) for one in value])
        if isinstance(value, dict):
            return _rebuilt(value, {clean(key, depth + 1): clean(one, depth + 1) for key, one in value.items()})
        return value

    return clean(list(args), 0), clean(dict(kwargs or {}), 0), soft, bool(state[0])


def _rebuilt(old: Any, new: Any) -> Any:
    """The container itself where nothing in it changed: natives may change it in place."""
    if isinstance(old, dict):
        return old if all(new.get(key) is value for key, value in old.items()) else new
    if all(one is other for one, other in zip(old, new, strict=False)):
        return old
    return type(old)(new)
