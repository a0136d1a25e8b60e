"""The steps of one run, as the engine processes them."""

from __future__ import annotations

from flowyml.orchestrators.local.retrying import Done, Recorded
from flowyml.orchestrators.local.schema import StepRow, item_of
from flowyml.plan.model import Step
from flowyml.runtime.decider import End
from flowyml.runtime.nodes import Frame, Task

__all__ = ["LocalTask"]


class LocalTask(Task):
    """A step, or its run for one item, in the course of a run. ``row`` is its row in the store."""

    __slots__ = ("apart", "attempt", "before", "due", "error", "row")

    def __init__(self, frame: Frame, step: Step, position: int, *, apart: bool) -> None:
        super().__init__(frame, step, position)
        self.apart = apart
        self.attempt = self.before = 0  # before: those of the run's earlier tries
        self.due = 0.0
        self.error: BaseException | None = None
        self.row = StepRow(position, "QUEUED", "queued", item=item_of(self.index))

    def recall(self, done: Done) -> None:
        """Continue from its row in the database."""
        self.row, self.end = done.row, done.end
        self.attempt = self.before = done.row.attempt
        self.values = {name: Recorded(entry) for name, entry in done.entries.items()}
        if done.end is End.FAILED:
            self.cause = f"step {self.label!r} ended {done.row.status}"

    @property
    def max_attempts(self) -> int:
        """The largest number of attempts, including those of earlier tries."""
        return self.before + (self.step.retry.max_attempts if self.step.retry else 1)

    @property
    def ended(self) -> bool:
        """True if nothing will change any more."""
        return self.row.status not in ("QUEUED", "RUNNING")
