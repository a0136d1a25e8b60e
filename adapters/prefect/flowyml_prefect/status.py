"""Map Prefect's states to FlowyML's.

Prefect's types are few and fixed; names refine them, and users may invent names. So the names that change the meaning
come first, and the type decides everything else. Source: Prefect, *States*.
"""

from __future__ import annotations

from collections.abc import Mapping

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus

__all__ = ["BY_NAME", "BY_TYPE", "status_of", "step_status_of"]

BY_TYPE: Mapping[str, ExecutionStatus] = {
    "SCHEDULED": ExecutionStatus.QUEUED,
    "PENDING": ExecutionStatus.QUEUED,
    "RUNNING": ExecutionStatus.RUNNING,
    "PAUSED": ExecutionStatus.RUNNING,
    "CANCELLING": ExecutionStatus.RUNNING,
    "COMPLETED": ExecutionStatus.COMPLETED,
    "FAILED": ExecutionStatus.FAILED,
    "CRASHED": ExecutionStatus.FAILED,
    "CANCELLED": ExecutionStatus.CANCELLED,
}

BY_NAME: Mapping[tuple[str, str], ExecutionStatus] = {
    ("FAILED", "TimedOut"): ExecutionStatus.TIMEOUT,
    ("SCHEDULED", "AwaitingRetry"): ExecutionStatus.RUNNING,
}


def status_of(state_type: str, state_name: str | None) -> ExecutionStatus:
    """Return the status of a run. Raises ``UnknownStateError`` for a type that no table knows.

    A run that is paused, or being cancelled, has begun and not ended: it is RUNNING. Its ``raw_status`` has the
    details.

    >>> print(status_of("FAILED", "TimedOut"))
    TIMEOUT
    >>> print(status_of("CANCELLING", "Cancelling"))
    RUNNING
    """
    status = BY_NAME.get((state_type, state_name or "")) or BY_TYPE.get(state_type)
    if status is None:
        raise UnknownStateError(
            f"Prefect reports the state type {state_type!r} ({state_name!r}), which this FlowyML does not know. "
            f"Upgrade FlowyML."
        )
    return status


def step_status_of(state_type: str, state_name: str | None) -> ExecutionStatus:
    """Return the status of a step: as for a run, but a task that will never be ready counts as cancelled.

    >>> print(step_status_of("PENDING", "NotReady"))
    CANCELLED
    """
    if (state_type, state_name) == ("PENDING", "NotReady"):
        return ExecutionStatus.CANCELLED
    return status_of(state_type, state_name)
