"""Which tasks of an ended run are cleared, so that Airflow runs them again."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from flowyml.core.item_names import labelled
from flowyml_airflow.step_runs import Marker, index_of, map_index, name_of, steps_of_task

__all__ = ["to_clear"]

_FAILED = ("failed", "upstream_failed", "removed")
_UNDONE = (*_FAILED, "skipped", None)


def to_clear(
    tasks: Sequence[Mapping[str, Any]],
    graph: Mapping[str, Iterable[str]],
    facts: Mapping[str, Any],
    *,
    steps: Sequence[str] | None,
    was_stopped: bool,
) -> set[Marker]:
    """What failed or was stopped, and what waits for it; with ``steps`` those, and what comes after them.

    ``tasks`` are those of the run, ``graph`` says what comes right after each. What was skipped is decided anew where
    it comes after something that runs again: Airflow skips it again by what its branch task has left. What watches the
    run and what cleans up run again in any case. ``was_stopped`` is a run that was cancelled or took too long: Airflow
    skips what had not ended then.
    """
    by_task: dict[str, dict[int, str | None]] = {}
    for each in tasks:
        by_task.setdefault(each["task_id"], {})[map_index(each)] = each["state"]
    failed = _UNDONE if was_stopped else _FAILED
    forced: set[Marker] = set()  # all that comes after these runs again, whether it completed or not
    if steps is None:
        begun = {(task, index) for task, found in by_task.items() for index in found if found[index] in failed}
    else:
        begun, forced = _named(tasks, steps, facts, {*failed, None})
    loops = [set(loop["tasks"]) for loop in facts.get("loops", {}).values()]
    found = set(begun)
    waiting = list(begun)
    while waiting:
        task, index = marker = waiting.pop()
        for after in graph.get(task, ()):
            same_loop = any({task, after} <= loop for loop in loops)
            for other, state in by_task.get(after, {}).items():
                is_reached = not same_loop or -1 in (index, other) or index == other
                later = after, other
                is_forced = marker in forced and later not in forced
                if is_reached and (is_forced or (later not in found and state in _UNDONE)):
                    found.add(later)
                    waiting.append(later)
                    if is_forced:
                        forced.add(later)
    always = {facts.get("watcher"), *facts.get("cleanup", ())}
    return found | {(task, index) for task in always & by_task.keys() for index in by_task[task]}


def _named(
    tasks: Sequence[Mapping[str, Any]], steps: Sequence[str], facts: Mapping[str, Any], failed: Container[str | None]
) -> tuple[set[Marker], set[Marker]]:
    """The tasks of these steps and items: those that failed or, where none did, all. The latter are given once more."""
    found: set[Marker] = set()
    completed: set[Marker] = set()
    for wanted in steps:
        named = [task for task in tasks if wanted in _labels(task, facts)]
        undone = [task for task in named if task["state"] in failed]
        markers = {(task["task_id"], map_index(task)) for task in undone or named}
        found |= markers
        if not undone:
            completed |= markers
    return found, completed


def _labels(task: Mapping[str, Any], facts: Mapping[str, Any]) -> set[str]:
    """What the steps of a task, and their item in it, are called. An execution group runs again as a whole."""
    names = steps_of_task(task["task_id"], facts) or [name_of(task)]
    return {*names, *(labelled(name, index_of(task)) for name in names)}
