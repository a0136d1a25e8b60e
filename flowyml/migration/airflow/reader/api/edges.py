"""Edges between tasks, and the entering of ``with``."""

from __future__ import annotations

import ast
from collections.abc import KeysView, Mapping, ValuesView
from typing import Any

from flowyml.migration.airflow.reader.api.making import Handler, Making, Method
from flowyml.migration.airflow.reader.context import chain, close_bracket, linear, link, open_bracket
from flowyml.migration.airflow.reader.nodes import Dag, Group, Label, Task, TaskFactory, XCom
from flowyml.migration.airflow.reader.parts import flat, is_node
from flowyml.migration.airflow.reader.values import Arguments, Either, Foreign, Unknown, hard, shape


def join(world: Making, before: Any, after: Any, node: ast.AST) -> None:
    """Add the edges of ``before >> after``, with a warning for values that cannot be joined."""
    one_of_several = any(
        isinstance(one, Either) for side in (before, after) if world.machine.light(side) for one in flat(side)
    )
    world.context.uncertain += one_of_several
    _lost(world, link(world.context, _sides(world, before, node), _sides(world, after, node)), node)
    world.context.uncertain -= one_of_several
    if world.context.hollow:
        world.context.hollow = False
        world.machine.warn(
            "unknown-edge",
            "an edge leads to or from a group without tasks, but for teardowns: Airflow 2 draws none",
            node,
        )


def suspect(world: Making, before: Any, after: Any, node: ast.AST) -> None:
    """Warn of a possible edge if neither side is known."""
    if all(
        any(isinstance(one, Unknown) for one in flat(side)) for side in (before, after) if world.machine.light(side)
    ):
        text = f"`{world.machine.source(node)[:60]}` may be an edge: neither side is known"
        world.machine.warn("unknown-edge", text, node)


def _lost(world: Making, lost: list[Any], node: ast.AST) -> None:
    for one in lost:
        if isinstance(one, TaskFactory):
            world.machine.fail("TypeError", "a @task function is joined without being called", node)
        else:
            text = f"an edge leads to what is unknown: {shape(one) if one is not None else None}"
            world.machine.warn("unknown-edge", text, node)


def _sides(world: Making, value: Any, node: ast.AST) -> Any:
    """Return the nodes of one side of an edge; if a value is one of several, all of them."""
    value = hard(value)
    if not world.machine.light(value):
        world.machine.warn("unknown-edge", "what is joined has too many parts", node)
        return []
    if isinstance(value, Either):
        world.machine.warn("unknown-edge", f"`{value.source[:60]}` is one of several: all are joined", node)
        return [_sides(world, one, node) for one in value.options if joins(one)]
    if isinstance(value, (list, tuple, set, ValuesView, KeysView)):
        return [_sides(world, one, node) for one in value]
    return value


def _chain(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
    parts = [_sides(world, given.value, node) for given in arguments.positional]
    if arguments.open:
        world.machine.warn("unknown-edge", "what is chained is unknown", node)
    _lost(world, chain(world.context, parts), node)


def _linear(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
    parts = [_sides(world, given.value, node) for given in arguments.positional]
    _lost(world, linear(world.context, parts), node)


def _cross(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
    before, after = arguments.value("from_tasks", 0), arguments.value("to_tasks", 1)
    join(world, before, after, node)


def _label(world: Making, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
    return Label(arguments.value("label", 0))


def enter(world: Making, value: Any, node: ast.AST) -> Any:
    """Enter ``with value as …:``. Returns the value that ``as`` names."""
    value = _chosen(value)
    if isinstance(value, Dag):
        world.context.dags.append(value)
    elif isinstance(value, Group):
        world.context.groups.append(value)
    elif tasks := _bracketed(value):
        if any(outer.by_teardown is not tasks[0].teardown for outer in world.context.brackets):
            text = "a setup and a teardown are opened within one another: Airflow draws other edges between them"
            world.machine.warn("unknown-edge", text, node)
        open_bracket(world.context, tasks)
    elif isinstance(value, Unknown):
        return world.machine.unknown(node)
    return value


def _bracketed(value: Any) -> list[Task]:
    found = [one.task if isinstance(one, XCom) else one for one in flat(value)]
    marked = [one for one in found if isinstance(one, Task) and (one.setup or one.teardown)]
    return marked if len(marked) == len(found) else []


def leave(world: Making, value: Any, node: ast.AST) -> None:
    value = _chosen(value)
    if isinstance(value, Dag):
        if value in world.context.dags:
            world.context.dags.remove(value)
        value.registered = True
    elif isinstance(value, Group):
        if value in world.context.groups:
            world.context.groups.remove(value)
    elif world.context.brackets and _bracketed(value):
        close_bracket(world.context)


def joins(value: Any) -> bool:
    """Return whether an edge can lead to a value, or to one of several."""
    value = hard(value)
    if isinstance(value, Either):
        return any(joins(one) for one in value.options)
    if isinstance(value, (list, tuple)):
        return any(joins(one) for one in value)
    return is_node(value)


def _chosen(value: Any) -> Any:
    """Return the first DAG or group of several possible values."""
    if isinstance(value, Either):
        return next((one for one in value.options if isinstance(hard(one), (Dag, Group))), value)
    return value


NAMES: Mapping[str, Handler] = {
    "chain": _chain,
    "chain_linear": _linear,
    "cross_downstream": _cross,
    "Label": _label,
    "EdgeModifier": _label,
}


RELATIONS: Mapping[str, Method] = {
    "set_downstream": lambda world, value, given, node: join(world, value, given.value("task_or_task_list", 0), node),
    "set_upstream": lambda world, value, given, node: join(world, given.value("task_or_task_list", 0), value, node),
}
"""Methods of objects with edges."""
ENTERING: Mapping[str, Method] = {
    "__enter__": lambda world, value, _, node: enter(world, value, node),
    "__exit__": lambda world, value, _, node: leave(world, value, node),
}
"""The methods that ``with`` calls."""
