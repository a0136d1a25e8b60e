"""Which tasks of an ended run are cleared, so that Airflow runs them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowyml.core.runs import labelled
from flowyml_airflow.flow_reading import index_of, map_index, name_of

__all__ = ["Marker", "to_clear"]

Marker = tuple[str, int]
"""A task and a map index; -1 for a task as a whole."""

_FAILED = ("failed", "upstream_failed", "removed")
_UNDONE = (*_FAILED, "skipped", None)


def to_clear(
    tasks: Sequence[Mapping[str, Any]],
    graph: Mapping[str, Iterable[str]],
    facts: Mapping[str, Any],
    *,
    steps: Sequence[str] | None,
    was_cancelled: bool,
) -> set[Marker]:
    """What failed or was stopped, and what waits for it; with ``steps`` those, and what comes after them.

    ``tasks`` are those of the run, ``graph`` says what comes right after each. What was skipped is decided anew where
    it comes after something that runs again: Airflow skips it again by what its branch task has left. What watches the
    run and what cleans up run again in any case.
    """
    by_task: dict[str, dict[int, str | None]] = {}
    for each in tasks:
        by_task.setdefault(each["task_id"], {})[map_index(each)] = each["state"]
    if steps is None:
        begun = {(task, index) for task, found in by_task.items() for index in found if found[index] in _FAILED}
        everything = False
        if was_cancelled:  # Airflow skips what has not begun then
            begun |= {(task, index) for task, found in by_task.items() for index in found if found[index] in _UNDONE}
    else:
        begun, everything = _named(tasks, steps)
    loops = [set(loop["tasks"]) for loop in facts.get("loops", {}).values()]
    found = set(begun)
    waiting = list(begun)
    while waiting:
        task, index = waiting.pop()
        for after in graph.get(task, ()):
            same_loop = any({task, after} <= loop for loop in loops)
            for other, state in by_task.get(after, {}).items():
                is_reached = not same_loop or -1 in (index, other) or index == other
                marker = after, other
                if is_reached and marker not in found and (everything or state in _UNDONE):
                    found.add(marker)
                    waiting.append(marker)
    always = {facts.get("watcher"), *facts.get("cleanup", ())}
    return found | {(task, index) for task in always & by_task.keys() for index in by_task[task]}


def _named(tasks: Sequence[Mapping[str, Any]], steps: Sequence[str]) -> tuple[set[Marker], bool]:
    """The tasks of these steps and items, and whether they completed, so that all that comes after runs again."""
    found: set[Marker] = set()
    completed = True
    for wanted in steps:
        named = [task for task in tasks if wanted in (name_of(task), labelled(name_of(task), index_of(task)))]
        undone = [task for task in named if task["state"] in _UNDONE]
        completed = completed and not undone
        found |= {(task["task_id"], map_index(task)) for task in undone or named}
    return found, completed
