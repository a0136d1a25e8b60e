"""The status of a run and its tasks: from Airflow's state, FlowyML's note of a cancellation, and the timeout."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.cancel_notes import had_ended, is_of_this_run, was_cancelled
from flowyml_airflow.status import DAG_RUN, TASK_INSTANCE, known, moment

__all__ = ["run_status", "task_status"]


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
