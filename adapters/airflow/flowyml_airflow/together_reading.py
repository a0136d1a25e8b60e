"""What became of the steps of an execution group: from what its task wrote down, and how that ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml_airflow.log_events import LogEvent
from flowyml_airflow.status import TASK_INSTANCE, moment

__all__ = ["attributed", "may_have_written", "runs_several", "step_runs", "steps_of_task"]

_BEGUN = frozenset({"running", "success", "failed", "skipped", "restarting", "shutdown", "up_for_retry"})
_TURN = re.compile(r"Step (?P<step>.+), attempt (?P<attempt>\d+) (?:begins|failed)\.")


def steps_of_task(task: str, facts: Mapping[str, Any]) -> Sequence[str]:
    """The names of the steps of an execution group's task; none of another task."""
    found: Sequence[str] = facts.get("together", {}).get(task, ())
    return found


def runs_several(task: Mapping[str, Any]) -> bool:
    """Whether a task has the class that execution groups have in a compiled DAG file."""
    return task.get("operator") in ("Together", "ItemTogether")


def may_have_written(task: Mapping[str, Any]) -> bool:
    """Whether a task has begun since it was cleared."""
    return task["state"] in _BEGUN and task["start_date"] is not None


def step_runs(
    names: Sequence[str], whole: StepRun, task: Mapping[str, Any], written: Mapping[str, Any]
) -> Iterator[StepRun]:
    """Those of the steps, in order. ``whole`` is the task as a step run, ``written`` what it left under ``STEPS_KEY``.

    What an earlier try of the task has left does not count.
    """
    steps = written.get("steps", {}) if written.get("try") == task["try_number"] else {}
    for name in names:
        if name in steps:
            yield _known(replace(whole, name=name), steps[name])
        elif whole.status is ExecutionStatus.RUNNING:
            yield _not_begun(name, whole, ExecutionStatus.QUEUED, "queued")
        elif whole.status is ExecutionStatus.CANCELLED:
            yield _not_begun(name, whole, whole.status, whole.raw_status)
        elif not whole.status.is_failed or (not steps and name == names[0]):
            yield replace(whole, name=name)
        else:
            yield _not_begun(name, whole, ExecutionStatus.CANCELLED, "upstream_failed")


def _known(whole: StepRun, said: Mapping[str, Any]) -> StepRun:
    state = said["state"]
    status = ExecutionStatus.TIMEOUT if said.get("late") and state == "failed" else TASK_INSTANCE[state]
    if whole.status.is_terminal and not status.is_terminal:  # the task ended while it was at work
        return replace(whole, attempt=said["attempt"], started_at=moment(said.get("began")))
    return StepRun(
        name=whole.name, index=whole.index, status=status, raw_status=state, attempt=said["attempt"],
        started_at=moment(said.get("began")), ended_at=moment(said.get("ended")) if status.is_terminal else None,
        error=said.get("error") if status.is_failed else None, cached_from=said.get("cached_from", ""),
    )  # fmt: skip


def _not_begun(name: str, whole: StepRun, status: ExecutionStatus, raw: str) -> StepRun:
    return StepRun(name=name, index=whole.index, status=status, raw_status=raw)


def attributed(events: Sequence[LogEvent], names: Sequence[str], attempt: int) -> Iterator[LogEvent]:
    """The log of such a task, each line with its step. Lines that only say whose turn it is are left out.

    What the task says before the first turn goes to the first step.
    """
    turns = {repr(name): name for name in names}
    now = names[0]
    for event in events:
        turn = _TURN.fullmatch(event.message)
        if turn and turn["step"] in turns:
            now, attempt = turns[turn["step"]], int(turn["attempt"])
        else:
            yield replace(event, step=now, attempt=attempt)
