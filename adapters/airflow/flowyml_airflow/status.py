"""Map Airflow's states to FlowyML's. Source: Airflow, ``airflow.utils.state``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus

__all__ = ["DAG_RUN", "TASK_INSTANCE", "failed_or_timed_out", "known", "moment", "no_tasks_at", "timeout_of"]

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


def failed_or_timed_out(status: ExecutionStatus) -> bool:
    """Return whether a step failed by itself, so that the steps after it do not run."""
    return status in (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)


def timeout_of(dag: Mapping[str, Any]) -> timedelta | None:
    """Return ``dagrun_timeout`` of a DAG: ISO 8601 on Airflow 3, an object on 2.

    >>> timeout_of({"dag_run_timeout": "PT1M30.5S"})
    datetime.timedelta(seconds=90, microseconds=500000)
    """
    timeout = dag.get("dag_run_timeout")
    if isinstance(timeout, Mapping):
        return timedelta(days=timeout["days"], seconds=timeout["seconds"], microseconds=timeout["microseconds"])
    match = _ISO.fullmatch(timeout) if timeout else None
    return timedelta(**{unit: float(number or 0) for unit, number in match.groupdict().items()}) if match else None


def moment(text: str | None) -> datetime | None:
    """Return a time as Airflow writes it."""
    return datetime.fromisoformat(text) if text else None


def no_tasks_at(date: datetime, dag: Mapping[str, Any]) -> str:
    """Say why a run of this logical date has no tasks; empty if it has tasks. ``dag`` has the details of the DAG.

    Airflow leaves out tasks that start after the run's date, or end before it, and then completes the run. Source:
    ``DagRun.verify_integrity`` of Airflow 3 and 2.
    """
    start, end = moment(dag.get("start_date")), moment(dag.get("end_date"))
    if start and date < start:
        bound = f"before the start of the DAG, {start}"
    elif end and date > end:
        bound = f"after the end of the DAG, {end}"
    else:
        return ""
    return f"Airflow gives a run of {date:%Y-%m-%d %H:%M:%S%z} no tasks: that is {bound}."


def known(table: Mapping[Any, ExecutionStatus], state: str | None, what: str) -> ExecutionStatus:
    """Return the status for a state. Raises ``UnknownStateError``."""
    if state not in table:
        raise UnknownStateError(
            f"Airflow reports the {what} state {state!r}, which this FlowyML does not know. Upgrade FlowyML."
        )
    return table[state]
