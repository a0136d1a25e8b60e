"""Airflow's states in FlowyML's words. Source: Airflow, ``airflow.utils.state``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus

__all__ = [
    "CANCELLED_NOTE",
    "DAG_RUN",
    "TASK_INSTANCE",
    "cancelled_note",
    "failed_or_timed_out",
    "had_ended",
    "moment",
    "run_status",
    "task_status",
    "timeout_of",
    "was_cancelled",
    "was_withdrawn",
    "withdrawn_note",
]

# A run that FlowyML cancelled carries this note, since Airflow only knows it as failed.
CANCELLED_NOTE = "flowyml: cancelled"
# The note goes on with when the run was queued, since Airflow keeps the note when the run is cleared and runs again,
# and with the tasks that had failed by themselves or were skipped, since Airflow fails those that it stops, too, and
# skips those that had not begun. Where these are too many for a note, it has those that had not ended instead, as many
# as fit: the others stay what Airflow calls them.
_QUEUED = "queued: "
_BEFORE = {"failed": "failed before: ", "skipped": "skipped before: "}
_STOPPED = "stopped: "
# What stands there instead where the run could not be cancelled after all.
_WITHDRAWN = "flowyml: could not be cancelled"
_OURS = (CANCELLED_NOTE, _WITHDRAWN, _QUEUED, *_BEFORE.values(), _STOPPED)
_LONGEST_NOTE = 1000

DAG_RUN: Mapping[str, ExecutionStatus] = {
    "queued": ExecutionStatus.QUEUED,
    "running": ExecutionStatus.RUNNING,
    "success": ExecutionStatus.COMPLETED,
    "failed": ExecutionStatus.FAILED,
}

TASK_INSTANCE: Mapping[str | None, ExecutionStatus] = {
    None: ExecutionStatus.QUEUED,
    "scheduled": ExecutionStatus.QUEUED,
    "queued": ExecutionStatus.QUEUED,
    "running": ExecutionStatus.RUNNING,
    "restarting": ExecutionStatus.RUNNING,
    "shutdown": ExecutionStatus.RUNNING,  # Airflow 2 only
    "up_for_retry": ExecutionStatus.RUNNING,
    "up_for_reschedule": ExecutionStatus.RUNNING,
    "deferred": ExecutionStatus.RUNNING,
    "awaiting_input": ExecutionStatus.RUNNING,
    "success": ExecutionStatus.COMPLETED,
    "failed": ExecutionStatus.FAILED,
    "upstream_failed": ExecutionStatus.CANCELLED,
    "skipped": ExecutionStatus.COMPLETED,  # a branch that was not taken; on Kubeflow and Prefect the same
    "removed": ExecutionStatus.CANCELLED,
}

_ISO = re.compile(r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>[\d.]+)S)?)?")


def run_status(run: Mapping[str, Any], timeout: timedelta | None = None) -> ExecutionStatus:
    """The status of a DAG run. ``timeout`` is the DAG's ``dagrun_timeout``.

    Airflow fails a run when the timeout has passed and keeps no trace of the reason; no run outlives its timeout in
    any other way, so one that lasted that long was timed out. Raises ``UnknownStateError``.
    """
    status = _known(DAG_RUN, run["state"], "run")
    if status.is_successful and _is_of_this_run(run):
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
    """The status of a task; one that Airflow failed or skipped because its run was cancelled counts as cancelled.

    So do those that it stopped because the time of the run was ``over``: they end later, and those that had not begun
    have no end. A task that ``cleans_up`` goes on.
    """
    status, state = _known(TASK_INSTANCE, task["state"], "task"), task["state"]
    if over and state != "success" and status is not ExecutionStatus.RUNNING:
        ended = moment(task["end_date"])
        if ended is None or ended >= over:
            return ExecutionStatus.CANCELLED
    stopped = state in _BEFORE and was_cancelled(run) and not had_ended(task["task_id"], state, run)
    return ExecutionStatus.CANCELLED if stopped and not (cleans_up and state == "skipped") else status


def failed_or_timed_out(status: ExecutionStatus) -> bool:
    """Whether a step ended so that what waits for it does not run, for a reason of its own."""
    return status in (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)


def was_cancelled(run: Mapping[str, Any]) -> bool:
    """Whether FlowyML's note of a cancelled run is there, and was written since the run was last queued."""
    lines = (run.get("note") or "").splitlines()
    queued = [line.removeprefix(_QUEUED) for line in lines if line.startswith(_QUEUED)]
    return CANCELLED_NOTE in lines and queued[:1] in ([], [_queued(run)])


def _is_of_this_run(run: Mapping[str, Any]) -> bool:
    """Whether the note says which run it is of; a run that had ended well by then is not cancelled."""
    return was_cancelled(run) and any(line.startswith(_QUEUED) for line in (run.get("note") or "").splitlines())


def cancelled_note(run: Mapping[str, Any], tasks: Iterable[Mapping[str, Any]]) -> str:
    """The note on a run that is being cancelled, before what others have written there. ``tasks`` are those of now."""
    found, ours = list(tasks), [CANCELLED_NOTE, _QUEUED + _queued(run)]
    whole = [*ours, *_ended(found)]
    if len("\n".join(whole)) > _LONGEST_NOTE:
        whole = [*ours, _stopped(found, _LONGEST_NOTE - len("\n".join([*ours, ""])))]
    return _note(run, *whole)


def withdrawn_note(run: Mapping[str, Any]) -> str:
    """The note on a run that could not be cancelled. It says so, since Airflow's audit log keeps the one before."""
    return _note(run, _WITHDRAWN)


def was_withdrawn(run: Mapping[str, Any]) -> bool:
    """Whether FlowyML's note says that the run could not be cancelled."""
    return _WITHDRAWN in (run.get("note") or "").splitlines()


def _note(run: Mapping[str, Any], *ours: str) -> str:
    others = [line for line in (run.get("note") or "").splitlines() if not line.startswith(_OURS)]
    return "\n".join([*ours, *others])[:_LONGEST_NOTE]


def _ended(tasks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for state, words in _BEFORE.items():
        if found := dict.fromkeys(task["task_id"] for task in tasks if task["state"] == state):
            yield words + " ".join(found)


def _stopped(tasks: Iterable[Mapping[str, Any]], longest: int) -> str:
    statuses = ((task["task_id"], TASK_INSTANCE.get(task["state"])) for task in tasks)
    going = dict.fromkeys(task for task, status in statuses if not (status and status.is_terminal))
    line = _STOPPED + " ".join(going)
    return line if len(line) <= longest else line[:longest].rpartition(" ")[0]


def had_ended(task: str, state: str, run: Mapping[str, Any]) -> bool:
    """Whether a task was in this state, ``failed`` or ``skipped``, when its run was cancelled."""
    lines = (run.get("note") or "").splitlines() if was_cancelled(run) else []
    stopped = [line for line in lines if line.startswith(_STOPPED)]
    if stopped:
        return task not in stopped[0].split()
    return any(task in line.removeprefix(_BEFORE[state]).split() for line in lines if line.startswith(_BEFORE[state]))


def _queued(run: Mapping[str, Any]) -> str:
    """What changes when a run is cleared. Airflow 2 tells when it was started, and not when it was queued."""
    return str(run.get("queued_at") or run.get("start_date") or "")


def timeout_of(dag: Mapping[str, Any]) -> timedelta | None:
    """``dagrun_timeout`` of a DAG: ISO 8601 on Airflow 3, an object on 2.

    >>> timeout_of({"dag_run_timeout": "PT1M30.5S"})
    datetime.timedelta(seconds=90, microseconds=500000)
    """
    found = dag.get("dag_run_timeout")
    if isinstance(found, Mapping):
        return timedelta(days=found["days"], seconds=found["seconds"], microseconds=found["microseconds"])
    match = _ISO.fullmatch(found) if found else None
    return timedelta(**{unit: float(number or 0) for unit, number in match.groupdict().items()}) if match else None


def moment(text: str | None) -> datetime | None:
    """A time as Airflow writes it."""
    return datetime.fromisoformat(text) if text else None


def _known(table: Mapping[Any, ExecutionStatus], state: str | None, what: str) -> ExecutionStatus:
    if state not in table:
        raise UnknownStateError(
            f"Airflow reports the {what} state {state!r}, which this FlowyML does not know. Upgrade it."
        )
    return table[state]
