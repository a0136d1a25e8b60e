"""Messages about the end of a step's process."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowyml.core.durations import span_text
from flowyml.core.errors import (
    OutputError,
    StepCancelledError,
    StepCrashedError,
    StepError,
    StepFailedError,
    StepOutOfMemoryError,
    StepTimeoutError,
)

__all__ = [
    "NAMED", "OutOfMemory", "cancelled", "crashed", "failed", "loaded_too_long", "of_several", "of_step",
    "signal_text", "timed_out",
]  # fmt: skip

NAMED = 3
"""The number of failures that the error of a run names: a loop may have thousands."""


def of_step(step: str, message: str, label: str = "") -> str:
    """Return the text of a step's error, with the step named once. ``label`` is the step with its item.

    >>> of_step("load", "ValueError: no"), of_step("load", "step 'load' ran too long", label="load[3]")
    ("step 'load': ValueError: no", "step 'load[3]' ran too long")
    """
    name, subject = f"step {step!r}", f"step {label or step!r}"
    return message.replace(name, subject, 1) if name in message else f"{subject}: {message}"


def of_several(messages: Sequence[str], count: int = 0) -> str:
    """Return the text of a run's error for all failures. ``count`` is their number if ``messages`` are only the first.

    >>> of_several(["step 'a': no", "step 'b': no"]), of_several(["a", "b", "c", "d"]), of_several(["a", "b", "c"], 9)
    ("step 'a': no; step 'b': no", 'a; b; c; and 1 more', 'a; b; c; and 6 more')
    """
    more = (count or len(messages)) - NAMED
    return "; ".join([*messages[:NAMED], *([f"and {more} more"] if more > 0 else [])])


class OutOfMemory:
    """Detects whether the kernel has killed a process for lack of memory since this was created. Linux only."""

    def __init__(self) -> None:
        self._before = _kills()

    def happened(self) -> bool:
        """Return whether that happened; True once for each time."""
        before, self._before = self._before, _kills()
        return self._before > before


def failed(step: str, failure: Mapping[str, Any]) -> StepError:
    """Return the error for the ``failure`` that a step's process has answered with."""
    if failure["kind"] == "output":
        error: StepError = OutputError(failure["message"])
    else:
        error = StepFailedError(failure["message"])
        error.names = tuple(failure["names"])
        error.traceback = failure["traceback"]
    error.step = step
    return error


def crashed(subject: str, exit_code: int, out_of_memory: OutOfMemory) -> StepCrashedError:
    """Return the error for a process that ended without an answer; a negative exit code is a signal."""
    if exit_code == -signal.SIGKILL and out_of_memory.happened():
        error: StepCrashedError = StepOutOfMemoryError(
            f"The process of {subject} was killed by the kernel: out of memory. Give it more memory, or let it use "
            f"less."
        )
    elif exit_code < 0:
        error = StepCrashedError(f"The process of {subject} was killed by {signal_text(-exit_code)}.")
    else:
        error = StepCrashedError(
            f"The process of {subject} exited with code {exit_code} without returning the step's result."
        )
    error.exit_code = exit_code
    return error


def timed_out(subject: str, seconds: float) -> StepTimeoutError:
    """Return the error for a process that is killed after its time."""
    return StepTimeoutError(f"{subject} ran longer than its timeout of {span_text(seconds)} and was stopped.")


def loaded_too_long(subject: str, seconds: float) -> StepTimeoutError:
    """Return the error for a process that did not begin, because its code is still being loaded."""
    return StepTimeoutError(
        f"{subject} has a timeout, and its code was not loaded within {span_text(seconds)}. Check what its modules do "
        f"when they are imported, such as waiting for a lock or a server, and move that into the step."
    )


def cancelled(subject: str) -> StepCancelledError:
    """Return the error for a process that is killed with its run: the run's own error has the reason."""
    return StepCancelledError(f"{subject} was stopped with its run.")


def _kills() -> int:
    """Return how many processes the kernel has killed for lack of memory (source: proc_vmstat(5), oom_kill)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def signal_text(number: int) -> str:
    """Return a signal's number with its name: ``signal 9 (SIGKILL)``."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
