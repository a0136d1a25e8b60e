"""One status for the runs and steps of every engine."""

from __future__ import annotations

import warnings
from enum import Enum

__all__ = ["ExecutionStatus"]


class ExecutionStatus(Enum):
    """The status of a run or a step, on any engine.

    ``SUCCEEDED`` is an alias of ``COMPLETED`` and ``ERROR`` of ``FAILED``. ``TIMEOUT`` and ``CANCELLED`` are
    terminal and neither successful nor failed. The engine's own word is the handle's ``raw_status``.

    >>> ExecutionStatus.SUCCEEDED is ExecutionStatus.COMPLETED
    True
    >>> [status.name for status in ExecutionStatus if status.is_terminal]
    ['COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT']
    >>> print(ExecutionStatus.RUNNING)
    RUNNING
    """

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"

    SUCCEEDED = "COMPLETED"
    ERROR = "FAILED"

    @property
    def is_successful(self) -> bool:
        """True for ``COMPLETED``."""
        return self is ExecutionStatus.COMPLETED

    @property
    def is_failed(self) -> bool:
        """True for ``FAILED``; not for ``TIMEOUT`` and ``CANCELLED``."""
        return self is ExecutionStatus.FAILED

    @property
    def is_terminal(self) -> bool:
        """True when the status can no longer change."""
        return self not in (ExecutionStatus.QUEUED, ExecutionStatus.RUNNING)

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            warnings.warn(_string_comparison(other), UserWarning, stacklevel=2)
            return False
        return self is other

    __hash__ = Enum.__hash__


def _string_comparison(text: str) -> str:
    member = ExecutionStatus.__members__.get(text.upper())
    use = f"ExecutionStatus.{text.upper()}" if member else "a member of ExecutionStatus"
    return f"An ExecutionStatus never equals a string: compare with {use} instead of {text!r}."
