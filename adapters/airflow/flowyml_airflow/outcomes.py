"""The status of a run and its tasks: from Airflow's state, FlowyML's note of a cancellation, and the timeout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.status import DAG_RUN, TASK_INSTANCE, known, moment

__all__ = [
    "CANCELLED_NOTE", "cancelled_note", "had_ended", "run_status", "task_status", "was_cancelled", "was_withdrawn",
    "withdrawn_note",
]  # fmt: skip

# The first line of the note on a run that FlowyML cancelled. To Airflow, the run has just failed.
CANCELLED_NOTE = "flowyml: cancelled"
# The note also has the time when the run was queued, since Airflow keeps the note when the run is cleared and runs
# again, and the tasks that had failed or were skipped before, since Airflow also fails the tasks that it stops and
# skips those that had not begun. If these are too many for a note, it lists the tasks that had not ended instead, as
# many as fit: the others keep Airflow's state.
_QUEUED = "queued: "
_BEFORE = {"failed": "failed before: ", "skipped": "skipped before: "}
_STOPPED = "flowyml stopped: "
# Replaces that line if the run could not be cancelled after all.
_WITHDRAWN = "flowyml: could not be cancelled"
_OURS = (CANCELLED_NOTE, _WITHDRAWN, _QUEUED, *_BEFORE.values(), _STOPPED)
_LONGEST_NOTE = 1000


def cancelled_note(run: Mapping[str, Any], tasks: Iterable[Mapping[str, Any]]) -> str:
    """Return the note for a run that is being cancelled, followed by the text that is there.

    ``tasks`` are its tasks now.
    """
    known_tasks, ours = list(tasks), [CANCELLED_NOTE, _QUEUED + _queued(run)]
    whole = [*ours, *_ended(known_tasks)]
    if len("\n".join(whole)) > _LONGEST_NOTE:
        whole = [*ours, _stopped(known_tasks, _LONGEST_NOTE - len("\n".join([*ours, ""])))]
    return _note(run, *whole)


def withdrawn_note(run: Mapping[str, Any]) -> str:
    """Return the note for a run that could not be cancelled. The note says so: the audit log keeps the earlier one."""
    return _note(run, _WITHDRAWN)


def was_cancelled(run: Mapping[str, Any]) -> bool:
    """Return whether FlowyML noted that it cancelled the run, and did so since the run was last queued."""
    lines = (run.get("note") or "").splitlines()
    queued = [line.removeprefix(_QUEUED) for line in lines if line.startswith(_QUEUED)]
    return CANCELLED_NOTE in lines and queued[:1] in ([], [_queued(run)])


def is_of_this_run(run: Mapping[str, Any]) -> bool:
    """Return whether the note says which run it belongs to. If that run had ended well by then, it is not cancelled."""
    return was_cancelled(run) and any(line.startswith(_QUEUED) for line in (run.get("note") or "").splitlines())


def was_withdrawn(run: Mapping[str, Any]) -> bool:
    """Return whether FlowyML noted that the run could not be cancelled."""
    return _WITHDRAWN in (run.get("note") or "").splitlines()


def _note(run: Mapping[str, Any], *ours: str) -> str:
    others = [line for line in (run.get("note") or "").splitlines() if not line.startswith(_OURS)]
    return "\n".join([*ours, *others])[:_LONGEST_NOTE]


def _ended(tasks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for state, words in _BEFORE.items():
        if ids := dict.fromkeys(task["task_id"] for task in tasks if task["state"] == state):
            yield words + " ".join(ids)


def _stopped(tasks: Iterable[Mapping[str, Any]], longest: int) -> str:
    statuses = ((task["task_id"], TASK_INSTANCE.get(task["state"])) for task in tasks)
    going = dict.fromkeys(task for task, status in statuses if not (status and status.is_terminal))
    line = _STOPPED + " ".join(going)
    return line if len(line) <= longest else line[:longest].rpartition(" ")[0]


def had_ended(task: str, state: str, run: Mapping[str, Any]) -> bool:
    """Return whether a task was in this state, ``failed`` or ``skipped``, when its run was cancelled."""
    lines = (run.get("note") or "").splitlines() if was_cancelled(run) else []
    stopped = [line for line in lines if line.startswith(_STOPPED)]
    if stopped:
        return task not in stopped[0].split()
    return any(task in line.removeprefix(_BEFORE[state]).split() for line in lines if line.startswith(_BEFORE[state]))


def _queued(run: Mapping[str, Any]) -> str:
    """Return the time that changes when a run is cleared: that of queueing, or of the start on Airflow 2."""
    return str(run.get("queued_at") or run.get("start_date") or "")


def run_status(run: Mapping[str, Any], timeout: timedelta | None = None) -> ExecutionStatus:
    """Return the status of a DAG run. ``timeout`` is the DAG's ``dagrun_timeout``.

    Airflow fails a run when the timeout has passed, and does not record the reason. No other run lasts longer than its
    timeout, so a run that lasted that long has timed out. Raises ``UnknownStateError``.
    """
    status = known(DAG_RUN, run["state"], "run")
    if status.is_successful and is_of_this_run(run):
        return ExecutionStatus.CANCELLED  # Airflow let its teardowns run, and then went by them
    if not status.is_failed:
        return status
    if was_cancelled(run):
        return ExecutionStatus.CANCELLED
    began, ended = moment(run["start_date"]), moment(run["end_date"])
    if timeout is not None and began and ended and ended - began >= timeout:
        return ExecutionStatus.TIMEOUT
    return status


def task_status(
    task: Mapping[str, Any], run: Mapping[str, Any], *, over: datetime | None = None, cleans_up: bool = False
) -> ExecutionStatus:
    """Return the status of a task.

    A task that Airflow failed or skipped because its run was cancelled counts as cancelled.

    So does a task that Airflow stopped when the time of the run was ``over``: such a task ends later, and a task that
    had not begun has no end. A task that ``cleans_up`` continues.
    """
    status, state = known(TASK_INSTANCE, task["state"], "task"), task["state"]
    if over and state != "success" and status is not ExecutionStatus.RUNNING:
        ended = moment(task["end_date"])
        if ended is None or ended >= over:
            return ExecutionStatus.CANCELLED
    stopped = state in ("failed", "skipped") and was_cancelled(run) and not had_ended(task["task_id"], state, run)
    return ExecutionStatus.CANCELLED if stopped and not (cleans_up and state == "skipped") else status
