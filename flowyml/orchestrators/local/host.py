"""The process in which runs are executed, as the runs see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowyml.core.dates import RunDates
    from flowyml.orchestrators.local.engine import Engine

__all__ = ["Foreground", "Host"]


class Host:
    """The process of a run. This one is the caller's own, and is left as it is."""

    alone = False
    keeps = False
    """Whether large outputs are kept, and the run can be retried even if the process is killed."""
    run_id: str | None = None
    code_folder: Path | None = None
    dates: RunDates | None = None
    is_stopped = False
    """Whether the process was asked to stop. Whatever fails from then on is part of that."""

    def begin(self, engine: Engine) -> None:
        """Get ready for the steps, which begin now."""

    def stray_text(self) -> str:
        """What was printed past Python's streams since the last call."""
        return ""

    def end(self) -> None:
        """End the process, if it exists only for this run."""


class Foreground(Host):
    """The process of a command that waits for its run: what the run made outlives it."""

    keeps = True
