"""Edges as Airflow draws them between tasks, groups, results and labels.

The rules are those of ``airflow.sdk.bases.operator`` (``chain`` and its kin) and ``definitions/taskgroup.py``.
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
    """``before >> after``. Returns what no edge can be drawn to."""
    lost: list[Any] = []
    for one in flat(before):
        for other in flat(after):
            _link(context, one, other, lost)
    return lost


def _link(context: Context, one: Any, other: Any, lost: list[Any]) -> None:
    if isinstance(one, Label) and isinstance(other, Label):
        return
    if isinstance(one, Label) or isinstance(other, Label):
        _label(context, one, other, lost)
        return
    if not isinstance(one, (Task, Group, XCom)) or not isinstance(other, (Task, Group, XCom)):
        lost.append(other if isinstance(one, (Task, Group, XCom)) else one)
        return
    _join(context, one, other, None)


def _join(context: Context, one: Any, other: Any, label: Any) -> None:
    before, after = _tail(one), _head(other)
    if any(isinstance(side, Group) and not any(side.members()) for side in (one, other)):
        context.hollow = True
    if isinstance(other, Group):
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


def _label(context: Context, one: Any, other: Any, lost: list[Any]) -> None:
    label, node, stream = (one, other, "after") if isinstance(one, Label) else (other, one, "before")
    if not isinstance(node, (Task, Group, XCom)):
        lost.append(node)
        return
    getattr(label, stream).append(node)
    before = label.before if stream == "after" else [node]
    after = label.after if stream == "before" else [node]
    for first in before:
        for second in after:
            _join(context, first, second, label.text)


def chain(context: Context, parts: Sequence[Any]) -> list[Any]:
    """Airflow's ``chain``. Raises where two lists beside each other are of different lengths."""
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
