"""What became of a run and its tasks: by Airflow's state, FlowyML's note that it was cancelled, and the timeout."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.cancel_notes import had_ended, is_of_this_run, was_cancelled
from flowyml_airflow.status import DAG_RUN, TASK_INSTANCE, known, moment

__all__ = ["run_status", "task_status"]


def run_status(run: Mapping[str, Any], timeout: timedelta | None = None) -> ExecutionStatus:
    """The status of a DAG run. ``timeout`` is the DAG's ``dagrun_timeout``.

    Airflow fails a run when the timeout has passed and keeps no trace of the reason; no run outlives its timeout in
    any other way, so one that lasted that long was timed out. Raises ``UnknownStateError``.
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
    """The status of a task; one that Airflow failed or skipped because its run was cancelled counts as cancelled.

    So do those that it stopped because the time of the run was ``over``: they end later, and those that had not begun
    have no end. A task that ``cleans_up`` goes on.
    """
    status, state = known(TASK_INSTANCE, task["state"], "task"), task["state"]
    if over and state != "success" and status is not ExecutionStatus.RUNNING:
        ended = moment(task["end_date"])
        if ended is None or ended >= over:
            return ExecutionStatus.CANCELLED
    stopped = state in ("failed", "skipped") and was_cancelled(run) and not had_ended(task["task_id"], state, run)
    return ExecutionStatus.CANCELLED if stopped and not (cleans_up and state == "skipped") else status
