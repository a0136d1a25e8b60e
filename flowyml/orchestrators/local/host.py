"""The process that executes runs, as an interface for the runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowyml.runtime.taken import Taken

if TYPE_CHECKING:
    from flowyml.core.dates import RunDates
    from flowyml.orchestrators.local.engine import Engine

__all__ = ["Foreground", "Host"]


class Host:
    """The process of a run. This one is the caller's own, and is not changed."""

    alone = False
    keeps = False
    """True if large outputs are stored, and the run can be retried even if the process is killed."""
    run_id: str | None = None
    code_folder: Path | None = None
    dates: RunDates | None = None
    taken: Taken = Taken()
    """The results that a run of new code takes from the run that it retries; outputs are as in the database."""
    is_stopped = False
    """True if the process was asked to stop. Every later failure is a consequence."""

    def begin(self, engine: Engine) -> None:
        """Prepare for the steps, which begin now."""

    def stray_text(self) -> str:
        """Return the output that bypassed Python's streams since the last call."""
        return ""

    def end(self) -> None:
        """End the process, if it exists only for this run."""


class Foreground(Host):
    """The process of a command that waits for its run: the outputs of the run outlive it."""

    keeps = True
