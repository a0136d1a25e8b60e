"""Map KFP's states to FlowyML's. Source: ``V2beta1RuntimeState`` of kfp_server_api."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus

__all__ = ["BY_STATE", "status_of", "step_status_of"]

BY_STATE: Mapping[str, ExecutionStatus] = {
    "RUNTIME_STATE_UNSPECIFIED": ExecutionStatus.QUEUED,
    "PENDING": ExecutionStatus.QUEUED,
    "RUNNING": ExecutionStatus.RUNNING,
    "PAUSED": ExecutionStatus.RUNNING,
    "CANCELING": ExecutionStatus.RUNNING,
    "SUCCEEDED": ExecutionStatus.COMPLETED,
    "SKIPPED": ExecutionStatus.COMPLETED,
    "FAILED": ExecutionStatus.FAILED,
    "CANCELED": ExecutionStatus.CANCELLED,
}


def status_of(state: str | None, before: Sequence[str] = ()) -> ExecutionStatus:
    """Return the status of a run. Raises ``UnknownStateError`` for a state that no table knows.

    A run that KFP has not processed yet has no state: it is queued. A run that is being cancelled still runs, and ends
    as FAILED: Argo has no other word for a terminated workflow. ``before`` are its earlier states.

    >>> print(status_of("CANCELING"), status_of(None), status_of("FAILED", ["RUNNING", "CANCELING"]))
    RUNNING QUEUED CANCELLED
    """
    status = BY_STATE.get(state or "RUNTIME_STATE_UNSPECIFIED")
    if status is None:
        raise UnknownStateError(f"KFP reports the state {state!r}, which this FlowyML does not know. Upgrade FlowyML.")
    if state == "FAILED" and before and before[-1] == "CANCELING":
        return ExecutionStatus.CANCELLED
    return status


def step_status_of(state: str | None, run: ExecutionStatus) -> ExecutionStatus:
    """Return the status of a step: as for a run, but a step that had not begun when the run ended never will.

    >>> print(step_status_of(None, ExecutionStatus.FAILED), step_status_of("RUNNING", ExecutionStatus.CANCELLED))
    CANCELLED CANCELLED
    """
    status = status_of(state)
    return ExecutionStatus.CANCELLED if run.is_terminal and not status.is_terminal else status
