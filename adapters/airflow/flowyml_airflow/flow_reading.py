"""What became of loops and branches in a run: from the facts of its DAG file, and the states of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Seen", "index_of", "map_index", "name_of"]

Place = Sequence[str]
"""A task and an XCom key, and the name of the loop that collects it, if one does."""


class Seen:
    """The tasks of one run, as Airflow lists them."""

    def __init__(self, facts: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> None:
        self._loops: Mapping[str, Mapping[str, Any]] = facts.get("loops", {})
        self._beside = {*facts.get("cleanup", ()), facts.get("watcher")}
        self._states: dict[str, dict[int, str | None]] = {}
        for task in tasks:
            self._states.setdefault(task["task_id"], {})[map_index(task)] = task["state"]

    def has_no_items(self, task: str) -> bool:
        """Whether a task of a loop did not run since its list is empty, which Airflow calls skipped."""
        loop = next((loop for loop in self._loops.values() if task in loop["tasks"]), None)
        if loop is None or loop["items"] is None:
            return False
        return self._states.get(task) == {-1: "skipped"} and self._states.get(loop["items"]) == {-1: "success"}

    def place(self, place: Any) -> Place | None:
        """Where an output is: of several that of the first whose step ran. None where it was skipped."""
        if isinstance(place, Mapping):
            return next((found for each in place["either"] if (found := self.place(each))), None)
        states = self._states.get(place[0], {})
        if place[2:] and self.has_no_items(place[0]):
            return list(place)
        is_skipped = bool(states) and set(states.values()) == {"skipped"}
        return None if is_skipped else list(place)

    def completed(self, task: str) -> list[int]:
        """The map indexes that completed."""
        return sorted(index for index, state in self._states.get(task, {}).items() if state == "success")

    def counts(self, task: str) -> bool:
        """Whether a failure of a task is that of the run, and not what follows from one."""
        goes_on = any(task in loop["tasks"] and loop.get("goes_on") for loop in self._loops.values())
        return not goes_on and task not in self._beside

    def on_item_error(self, place: Place) -> tuple[str, ...]:
        """What the loop that collects an output does about failed items; nothing for an output of no loop."""
        return tuple("continue" if self._loops[loop].get("goes_on") else "fail" for loop in place[2:])


def map_index(task: Mapping[str, Any]) -> int:
    """Which item a task works on; -1 for none."""
    found = task.get("map_index", -1)
    return found if isinstance(found, int) else -1


def name_of(task: Mapping[str, Any]) -> str:
    """The name of a task's step."""
    return str(task.get("task_display_name") or task["task_id"])


def index_of(task: Mapping[str, Any]) -> tuple[int, ...]:
    """The index of a task's item; empty for none."""
    return (index,) if (index := map_index(task)) >= 0 else ()
