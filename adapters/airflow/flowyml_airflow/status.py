"""Airflow's states in FlowyML's words. Source: Airflow, ``airflow.utils.state``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus

__all__ = ["DAG_RUN", "TASK_INSTANCE", "failed_or_timed_out", "known", "moment", "timeout_of"]

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
    """Whether a step ended so that what waits for it does not run, for a reason of its own."""
    return status in (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)


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


def known(table: Mapping[Any, ExecutionStatus], state: str | None, what: str) -> ExecutionStatus:
    """The status of a state. Raises ``UnknownStateError``."""
    if state not in table:
        raise UnknownStateError(
            f"Airflow reports the {what} state {state!r}, which this FlowyML does not know. Upgrade FlowyML."
        )
    return table[state]
