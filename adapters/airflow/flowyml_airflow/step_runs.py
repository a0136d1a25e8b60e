"""The steps of a run, from its tasks.

Those in loops and branches are read from the states of the tasks and the facts of the DAG file, those of an execution
group from the record and the state of its task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml.core.web import parsed
from flowyml_airflow.log_events import LogEvent
from flowyml_airflow.names import STEP_MARKER
from flowyml_airflow.status import TASK_INSTANCE, failed_or_timed_out, moment
from flowyml_airflow.task_exceptions import no_output, not_run

__all__ = [
    "Marker", "Seen", "attributed", "in_order", "index_of", "lacking_item", "map_index", "may_have_written", "name_of",
    "runs_several", "step_runs", "steps_of_task", "with_causes",
]  # fmt: skip

_BEGUN = frozenset({"running", "success", "failed", "skipped", "restarting", "shutdown", "up_for_retry"})

Marker = tuple[str, int]
"""A task and a map index; -1 for the whole task."""

Place = Sequence[str]
"""A task and an XCom key, and the name of the loop that collects the output, if a loop does."""


class Seen:
    """The tasks of one run, from Airflow's list."""

    def __init__(self, facts: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> None:
        self._loops: Mapping[str, Mapping[str, Any]] = facts.get("loops", {})
        self._beside = {*facts.get("cleanup", ()), facts.get("watcher")}
        self._states: dict[str, dict[int, str | None]] = {}
        for task in tasks:
            self._states.setdefault(task["task_id"], {})[map_index(task)] = task["state"]

    def has_no_items(self, task: str) -> bool:
        """Return whether a task of a loop did not run since the loop's list is empty, which Airflow calls skipped."""
        loop = next((loop for loop in self._loops.values() if task in loop["tasks"]), None)
        if loop is None or loop["items"] is None:
            return False
        return self._states.get(task) == {-1: "skipped"} and self._states.get(loop["items"]) == {-1: "success"}

    def lost_list(self, task: str) -> str:
        """Return the task that lists the items of a task's loop, if no item could run since its list is gone, else "".

        Airflow cannot map over a task that succeeded without an output, such as one that was marked as success, and
        calls what maps over it upstream_failed. Source: ``TaskMap.expand_mapped_task``.
        """
        for loop in self._loops.values():
            if task in loop["tasks"] and self._states.get(task) == {-1: "upstream_failed"}:
                items: str = loop["items"] or ""
                return items if self._states.get(items) == {-1: "success"} else ""
        return ""

    def place(self, place: Any) -> Place | None:
        """Return the address of an output; of an ``either``, that of the first output whose step ran.

        None if it was skipped.
        """
        if isinstance(place, Mapping):
            return next((found for each in place["either"] if (found := self.place(each))), None)
        states = self._states.get(place[0], {})
        if place[2:] and self.has_no_items(place[0]):
            return list(place)
        is_skipped = bool(states) and set(states.values()) == {"skipped"}
        return None if is_skipped else list(place)

    def items(self, task: str) -> dict[tuple[int, ...], str]:
        """Return Airflow's states of a task by item; of one that is not mapped yet, that of the whole."""
        states = self._states.get(task, {})
        return {(index,) if index >= 0 else (): state or "none" for index, state in states.items()}

    def counts(self, task: str) -> bool:
        """Return whether the failure of a task fails the run by itself, and does not follow from another failure."""
        goes_on = any(task in loop["tasks"] and loop.get("goes_on") for loop in self._loops.values())
        return not goes_on and task not in self._beside

    def on_item_error(self, place: Place) -> tuple[str, ...]:
        """Return the ``on_item_error`` of the loop that collects an output; empty without a loop."""
        return tuple("continue" if self._loops[loop].get("goes_on") else "fail" for loop in place[2:])


def lacking_item(states: Mapping[tuple[int, ...], str], *, goes_on: bool) -> tuple[int, ...] | None:
    """Return the first item that a completed run's list of a loop would silently lack; None if it lacks none.

    The list leaves out items that were skipped and, if the run ``goes_on`` without them, items that failed.

    >>> lacking_item({(0,): "success", (1,): "failed"}, goes_on=False)
    (1,)
    >>> lacking_item({(0,): "success", (1,): "failed"}, goes_on=True), lacking_item({(): "skipped"}, goes_on=False)
    (None, None)
    """
    left_out = {"success", "skipped", "removed", "no_items"}
    failed = {"failed", "upstream_failed"} if goes_on else set()
    return next(
        (item for item, state in sorted(states.items()) if state not in left_out | (failed if item else set())), None
    )


def in_order(steps: Mapping[Marker, Sequence[StepRun]], facts: Mapping[str, Any]) -> tuple[StepRun, ...]:
    """Return the steps of all tasks in the order of the DAG file, and those of items by their indexes."""
    order = {task: number for number, task in enumerate(facts.get("steps", ()))}
    runs = [
        (order.get(task, 0), number, index, run)
        for (task, index), of_task in steps.items()
        for number, run in enumerate(of_task)
    ]
    return tuple(run for *_, run in sorted(runs, key=lambda item: item[:3]))


def map_index(task: Mapping[str, Any]) -> int:
    """Return the map index of a task; -1 if it is not mapped."""
    index = task.get("map_index", -1)
    return index if isinstance(index, int) else -1


def name_of(task: Mapping[str, Any]) -> str:
    """Return the name of a task's step."""
    return str(task.get("task_display_name") or task["task_id"])


def index_of(task: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the index of a task's item; empty if it has none."""
    return (index,) if (index := map_index(task)) >= 0 else ()


def steps_of_task(task: str, facts: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of the steps of an execution group's task; empty for another task."""
    names: Sequence[str] = facts.get("together", {}).get(task, ())
    return names


def runs_several(task: Mapping[str, Any]) -> bool:
    """Return whether a task has the class of execution groups in a compiled DAG file."""
    return task.get("operator") in ("Together", "ItemTogether")


def may_have_written(task: Mapping[str, Any]) -> bool:
    """Return whether a task has begun since it was cleared."""
    return task["state"] in _BEGUN and task["start_date"] is not None


def step_runs(
    names: Sequence[str], whole: StepRun, task: Mapping[str, Any], written: Mapping[str, Any]
) -> Iterator[StepRun]:
    """Yield the steps of an execution group, in order.

    ``whole`` is the task as a step run, ``written`` its record under ``STEPS_KEY``. The record of an earlier try of the
    task does not count.
    """
    steps = written.get("steps", {}) if written.get("try") == task["try_number"] else {}
    begun = (name for name in steps if not TASK_INSTANCE[steps[name]["state"]].is_terminal)
    at_work = next(begun, None if steps else names[0])
    why = not_run(f"step {replace(whole, name=at_work).label!r}", whole.status) if at_work else None
    for name in names:
        if name in steps:
            yield _known(replace(whole, name=name), steps[name])
        elif whole.status is ExecutionStatus.RUNNING:
            yield _not_begun(name, whole, ExecutionStatus.QUEUED, "queued")
        elif whole.status is ExecutionStatus.CANCELLED:
            yield _not_begun(name, whole, whole.status, whole.raw_status)
        elif not failed_or_timed_out(whole.status) or (not steps and name == names[0]):
            yield replace(whole, name=name)
        else:
            yield replace(_not_begun(name, whole, ExecutionStatus.CANCELLED, "upstream_failed"), error=why)


def _known(whole: StepRun, said: Mapping[str, Any]) -> StepRun:
    state = said["state"]
    status = ExecutionStatus.TIMEOUT if said.get("late") and state == "failed" else TASK_INSTANCE[state]
    if whole.status.is_terminal and not status.is_terminal:  # the task ended while it was at work
        return replace(whole, attempt=said["attempt"], started_at=moment(said.get("began")))
    return StepRun(
        name=whole.name, index=whole.index, status=status, raw_status=state, attempt=said["attempt"],
        started_at=moment(said.get("began")), ended_at=moment(said.get("ended")) if status.is_terminal else None,
        error=said.get("error") if failed_or_timed_out(status) or state == "upstream_failed" else None,
        cached_from=said.get("cached_from", ""),
    )  # fmt: skip


def _not_begun(name: str, whole: StepRun, status: ExecutionStatus, raw: str) -> StepRun:
    return StepRun(name=name, index=whole.index, status=status, raw_status=raw)


def attributed(events: Sequence[LogEvent], names: Sequence[str], attempt: int) -> Iterator[LogEvent]:
    """Yield the log of an execution group's task, each line with its step, without the markers.

    Lines before the first marker go to the first step.
    """
    now = names[0]
    for event in events:
        if turn := _marked(event.message, names):
            now, attempt = turn
        else:
            yield replace(event, step=now, attempt=attempt)


def _marked(message: str, names: Sequence[str]) -> tuple[str, int] | None:
    """Return the step and the attempt in a marker line; None for another line."""
    if not message.startswith(STEP_MARKER):
        return None
    try:
        said = parsed(message.removeprefix(STEP_MARKER).encode())
        return (said["step"], int(said["attempt"])) if said["step"] in names else None
    except (ValueError, TypeError, KeyError, OverflowError, EngineError):  # half-written, or of another program
        return None


_LATEST = datetime.max.replace(tzinfo=UTC)
_Cause = tuple[datetime, str]
"""The time of a failure, and the reason for the tasks that wait for the failed one."""


def with_causes(
    steps: Mapping[Marker, Sequence[StepRun]], tasks: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[Marker, Sequence[StepRun]]:
    """Add to each step that did not run the reason why."""
    failures = {marker: cause for marker, runs in steps.items() if (cause := _failure(runs))}
    causes = _causes(failures, steps.keys(), tasks, facts)
    return {
        marker: [_explained(run, causes[marker][1]) for run in runs]
        if marker in causes and marker not in failures
        else runs
        for marker, runs in steps.items()
    }


def _failure(runs: Sequence[StepRun]) -> _Cause | None:
    """Return the first failure among the steps of a task."""
    failed = [run for run in runs if failed_or_timed_out(run.status)]
    return min(((run.ended_at or _LATEST, not_run(f"step {run.label!r}", run.status)) for run in failed), default=None)


def _explained(run: StepRun, why: str) -> StepRun:
    return replace(run, error=why) if run.raw_status == "upstream_failed" else run


def _causes(
    failures: Mapping[Marker, _Cause],
    of_steps: Collection[Marker],
    tasks: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> dict[Marker, _Cause]:
    """Return, by task, the first failure before it, also through other tasks that did not run."""
    causes, seen = dict(failures), Seen(facts, tasks)
    by_task: dict[str, dict[int, Mapping[str, Any]]] = {}
    for task in tasks:
        by_task.setdefault(task["task_id"], {})[map_index(task)] = task
    waits: Mapping[str, Sequence[str]] = facts.get("waits", {})
    waits_for_none = [name for name in by_task if name not in waits]
    for name in (*waits_for_none, *waits):  # each after those that it waits for
        for index, task in by_task.get(name, {}).items():
            marker = name, index
            if marker in causes or task["state"] not in ("failed", "upstream_failed"):
                continue
            reached = [
                causes[earlier] for earlier in _before(marker, waits.get(name, ()), by_task, facts) if earlier in causes
            ]
            if reached:
                causes[marker] = min(reached)
            elif lost := seen.lost_list(name):
                causes[marker] = _LATEST, f"not run, since {no_output(lost)}"
            elif task["state"] == "failed" and marker not in of_steps:  # it runs no step
                causes[marker] = moment(task["end_date"]) or _LATEST, not_run(f"task {name!r}", ExecutionStatus.FAILED)
    return causes


def _before(
    marker: Marker, before: Sequence[str], by_task: Mapping[str, Mapping[int, Any]], facts: Mapping[str, Any]
) -> Iterator[Marker]:
    """Yield the tasks that a task waits for; for a task in a loop, those of the same item."""
    name, index = marker
    loops = [loop["tasks"] for loop in facts.get("loops", {}).values()]
    for task in before:
        is_of_item = index >= 0 and any(name in loop and task in loop for loop in loops)
        yield from ((task, other) for other in ((index, -1) if is_of_item else by_task.get(task, ())))
