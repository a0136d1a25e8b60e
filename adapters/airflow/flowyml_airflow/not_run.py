"""Say why steps did not run: the first failure before them, by the dependencies in the facts of the DAG file.

If the task of an execution group ran, it has recorded itself why some of its steps did not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml_airflow.status import failed_or_timed_out, moment
from flowyml_airflow.step_runs import Marker, Seen, map_index
from flowyml_airflow.task_exceptions import no_output, not_run

__all__ = ["with_causes"]

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
    found, seen = dict(failures), Seen(facts, tasks)
    by_task: dict[str, dict[int, Mapping[str, Any]]] = {}
    for task in tasks:
        by_task.setdefault(task["task_id"], {})[map_index(task)] = task
    waits: Mapping[str, Sequence[str]] = facts.get("waits", {})
    waits_for_none = [name for name in by_task if name not in waits]
    for name in (*waits_for_none, *waits):  # each after those that it waits for
        for index, task in by_task.get(name, {}).items():
            marker = name, index
            if marker in found or task["state"] not in ("failed", "upstream_failed"):
                continue
            reached = [found[each] for each in _before(marker, waits.get(name, ()), by_task, facts) if each in found]
            if reached:
                found[marker] = min(reached)
            elif lost := seen.lost_list(name):
                found[marker] = _LATEST, f"not run, since {no_output(lost)}"
            elif task["state"] == "failed" and marker not in of_steps:  # it runs no step
                found[marker] = moment(task["end_date"]) or _LATEST, not_run(f"task {name!r}", ExecutionStatus.FAILED)
    return found


def _before(
    marker: Marker, before: Sequence[str], by_task: Mapping[str, Mapping[int, Any]], facts: Mapping[str, Any]
) -> Iterator[Marker]:
    """Yield the tasks that a task waits for; for a task in a loop, those of the same item."""
    name, index = marker
    loops = [loop["tasks"] for loop in facts.get("loops", {}).values()]
    for task in before:
        is_of_item = index >= 0 and any(name in loop and task in loop for loop in loops)
        yield from ((task, other) for other in ((index, -1) if is_of_item else by_task.get(task, ())))
