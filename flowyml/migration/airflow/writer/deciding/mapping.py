"""The lists of mapped tasks."""

from __future__ import annotations

from collections.abc import Mapping as Items
from dataclasses import replace
from itertools import product
from typing import Any

from flowyml.migration.airflow.model import DagModel, FunctionModel, GroupModel, Mapping, TaskModel, ValueEdge
from flowyml.migration.airflow.writer.deciding.decision import Hole, Loop
from flowyml.migration.airflow.writer.values import is_plain


def lists_of(task: TaskModel) -> dict[str, Any]:
    """Return the lists of a mapped task, by argument, equally long."""
    if task.mapping is None:
        return {}
    arguments = {each.name: each.value for each in task.mapping.arguments}
    if task.mapping.kind != "expand":
        return _rows(arguments)
    if any(isinstance(value, dict) for value in arguments.values()):
        raise Hole("it is mapped over a dict")
    if len(arguments) == 1:
        return _one_list(*next(iter(arguments.items())))
    lists = [list(value) if isinstance(value, list | tuple) else None for value in arguments.values()]
    if any(value is None or not is_plain(value) for value in lists):
        raise Hole("it is mapped over several lists, not all of them constant")
    rows = list(product(*(value or [] for value in lists)))
    return {name: [row[number] for row in rows] for number, name in enumerate(arguments)}


def _rows(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the lists in the argument of ``expand_kwargs``: each argument's values, row by row."""
    rows = next(iter(arguments.values())) if len(arguments) == 1 else None
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Hole("it is mapped by expand_kwargs over what is only known when it runs")
    if len({tuple(sorted(row, key=str)) for row in rows}) > 1 or not is_plain(list(rows)):
        raise Hole("it is mapped by expand_kwargs over items of different kinds")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _one_list(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, ValueEdge) and not value.path and value.key == "return_value":
        return {name: value}
    if isinstance(value, list | tuple) and is_plain(list(value)):
        return {name: list(value)}
    raise Hole(f"it is mapped over {name}, which is neither a list nor what one task returned")


def over_parameters(task: TaskModel, function: FunctionModel) -> TaskModel:
    """Convert a mapped PythonOperator to one that is mapped over the parameters of its function. Raises ``Hole``."""
    over = lists_of(task)
    name, rows = next(iter(over.items()), ("", None))
    if task.mapping is None or len(over) != 1 or name not in ("op_args", "op_kwargs") or not isinstance(rows, list):
        raise Hole(f"it is mapped over {' and '.join(over)}, and not over one list in the file")
    if name == "op_args":
        rows = [_as_named(row, function) for row in rows]
    argument = replace(task.mapping.arguments[0], value=rows)
    return replace(task, mapping=Mapping("expand_kwargs", (argument,)))


def _as_named(row: Any, function: FunctionModel) -> dict[str, Any]:
    if not isinstance(row, list | tuple) or len(row) > len(function.parameters):
        raise Hole("it is mapped over op_args that its function has no names for")
    return by_names({str(number): each for number, each in enumerate(row)}, function)


def by_names(arguments: Items[str, Any], function: FunctionModel) -> dict[str, Any]:
    """Return arguments by the names of a function's parameters, including positional ones."""
    names = function.parameters
    if beyond := [name for name in arguments if name.isdigit() and int(name) >= len(names)]:
        raise Hole(f"argument {beyond[0]} of its function has no name")
    return {names[int(name)] if name.isdigit() else name: value for name, value in arguments.items()}


def loop_of(dag: DagModel, task: TaskModel) -> Loop | None:
    """Return the list of the mapped task group around a task, if there is one. Raises ``Hole``."""
    groups = {each.group_id: each for each in dag.groups}
    mapped: list[GroupModel] = []
    name = task.group
    while name is not None:
        mapped += [groups[name]] if groups[name].mapping is not None else []
        name = groups[name].parent
    if not mapped:
        return None
    mapping = mapped[0].mapping
    if len(mapped) > 1 or task.mapped:
        raise Hole("it is mapped within a mapped task group")
    if mapping is None or mapping.kind != "expand" or len(mapping.arguments) != 1:
        raise Hole("its task group is mapped over several arguments")
    (argument,) = mapping.arguments
    if isinstance(argument.value, dict):
        raise Hole("its task group is mapped over a dict")
    return Loop(mapped[0].group_id, *next(iter(_one_list(argument.name, argument.value).items())))


def mapped_names(task: TaskModel) -> list[str]:
    """Return the arguments that a mapped task takes from its items. Raises ``Hole``."""
    return list(lists_of(task))
