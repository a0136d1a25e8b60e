"""Airflow's states in FlowyML's words. Source: Airflow, ``airflow.utils.state``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.client import moment

__all__ = [
    "CANCELLED_NOTE",
    "DAG_RUN",
    "TASK_INSTANCE",
    "run_status",
    "task_status",
    "timeout_of",
    "was_cancelled",
    "was_ended",
]

# A run that FlowyML cancelled carries this note, since Airflow only knows it as failed.
CANCELLED_NOTE = "flowyml: cancelled"
# Airflow writes the ends of a run that it stops, and of its tasks, within one transaction.
_TOGETHER = timedelta(seconds=0.25)

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
    "skipped": ExecutionStatus.CANCELLED,
    "removed": ExecutionStatus.CANCELLED,
}

_ISO = re.compile(r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>[\d.]+)S)?)?")


def run_status(run: Mapping[str, Any], timeout: timedelta | None = None) -> ExecutionStatus:
    """The status of a DAG run. ``timeout`` is the DAG's ``dagrun_timeout``.

    Airflow fails a run when the timeout has passed and keeps no trace of the reason; no run outlives its timeout in
    any other way, so one that lasted that long was timed out. Raises ``UnknownStateError``.
    """
    status = _known(DAG_RUN, run["state"], "run")
    if not status.is_failed:
        return status
    if was_cancelled(run):
        return ExecutionStatus.CANCELLED
    began, ended = moment(run["start_date"]), moment(run["end_date"])
    if timeout is not None and began and ended and ended - began >= timeout:
        return ExecutionStatus.TIMEOUT
    return status


def task_status(task: Mapping[str, Any], run: Mapping[str, Any]) -> ExecutionStatus:
    """The status of a task; one that failed because its run was cancelled counts as cancelled."""
    status = _known(TASK_INSTANCE, task["state"], "task")
    return ExecutionStatus.CANCELLED if status.is_failed and was_cancelled(run) and was_ended(task, run) else status


def was_cancelled(run: Mapping[str, Any]) -> bool:
    """Whether FlowyML's note of a cancelled run is there."""
    return (run.get("note") or "").startswith(CANCELLED_NOTE)


def was_ended(task: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether a task ended because its run was ended."""
    mine, whole = moment(task["end_date"]), moment(run["end_date"])
    return mine is None or (whole is not None and mine >= whole - _TOGETHER)


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


def _known(table: Mapping[Any, ExecutionStatus], state: str | None, what: str) -> ExecutionStatus:
    if state not in table:
        raise UnknownStateError(
            f"Airflow reports the {what} state {state!r}, which this FlowyML does not know. Upgrade it."
        )
    return table[state]
