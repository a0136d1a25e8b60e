"""Edges as Airflow draws them between tasks, groups, results and labels.

The rules are those of ``airflow.sdk.bases.operator`` (``chain`` and the like) and ``definitions/taskgroup.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from flowyml.migration.airflow.reader.context import Context
from flowyml.migration.airflow.reader.nodes import Group, Label, Task, XCom
from flowyml.migration.airflow.reader.parts import flat
from flowyml.migration.airflow.reader.values import Raised, hard

__all__ = ["chain", "linear", "link"]


def link(context: Context, before: Any, after: Any) -> list[Any]:
    """``before >> after``. Returns the values that cannot have an edge."""
    lost: list[Any] = []
    if isinstance(before, Label):
        _label(context, before, flat(after), "after", lost)
    elif isinstance(after, Label):
        # ``result >> label`` is drawn from the tasks of the result; in a list the result itself stays
        nodes = before.tasks() if isinstance(before, XCom) else flat(before)
        _label(context, after, nodes, "before", lost)
    else:
        for one in flat(before):
            for other in flat(after):
                _link(context, one, other, lost)
    return lost


def _link(context: Context, one: Any, other: Any, lost: list[Any]) -> None:
    if isinstance(one, Label) or isinstance(other, Label):
        lost += link(context, one, other)
        return
    if not isinstance(one, (Task, Group, XCom)) or not isinstance(other, (Task, Group, XCom)):
        lost.append(other if isinstance(one, (Task, Group, XCom)) else one)
        return
    _join(context, one, other, None)


def _join(context: Context, one: Any, other: Any, label: Any) -> None:
    for side in (one, other):
        if isinstance(side, Group):
            context.charge(sum(1 for _ in side.members()))
    before, after = _tail(one), _head(other)
    if (isinstance(one, Group) and not one.leaves()) or (isinstance(other, Group) and not after):
        context.hollow = True
    if isinstance(other, Group):
        context.charge(len(before) * len(other.upstream) // 50)
        other.upstream += [task for task in before if task not in other.upstream]
    for task in before:
        for following in after:
            context.edge(task, following, label)


def _tail(node: Any) -> list[Task]:
    if isinstance(node, Group):
        return node.ends()
    return node.tasks() if isinstance(node, XCom) else [node]


def _head(node: Any) -> list[Task]:
    if isinstance(node, Group):
        return node.roots()
    return node.tasks() if isinstance(node, XCom) else [node]


def _label(context: Context, label: Label, nodes: list[Any], side: str, lost: list[Any]) -> None:
    """Set one side of a label. When both are known, a task of the label stands for its group, if the groups differ.

    Source: ``EdgeModifier._convert_streams_to_task_groups``.
    """
    found = [one for one in nodes if isinstance(one, (Task, Group, XCom))]
    lost += [one for one in nodes if one not in found and not isinstance(one, Label)]
    getattr(label, side).extend(found)
    if label.before and label.after and len({_group_of(one) for one in (*label.before, *label.after)}) != 1:
        label.before, label.after = [list(map(_widened, stream)) for stream in (label.before, label.after)]
    for held in label.before if side == "after" else label.after:
        for one in found:
            before, after = (held, one) if side == "after" else (one, held)
            _join(context, before, after, label.text)


def _group_of(node: Any) -> Group | None:
    """Return the group of a side of a label: the side itself, or the group around it; None for the DAG itself."""
    group = node if isinstance(node, Group) else node.task.group if isinstance(node, XCom) else node.group
    return group if group is not None and group.own_id else None


def _widened(node: Any) -> Any:
    return node if isinstance(node, XCom) else _group_of(node) or node


def chain(context: Context, parts: Sequence[Any]) -> list[Any]:
    """Airflow's ``chain``. Raises if two neighbouring lists have different lengths."""
    lost: list[Any] = []
    parts = [hard(part) for part in parts]
    for before, after in itertools.pairwise(parts):
        if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            if len(before) != len(after):
                raise Raised("AirflowException", "chain() joins lists of different lengths")
            for one, other in zip(before, after, strict=True):
                lost += link(context, one, other)
        else:
            lost += link(context, before, after)
    return lost


def linear(context: Context, parts: Sequence[Any]) -> list[Any]:
    """Airflow's ``chain_linear``."""
    lost: list[Any] = []
    for before, after in itertools.pairwise(parts):
        lost += link(context, before, after)
    return lost
