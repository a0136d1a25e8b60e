"""The steps of one run as the engine works on them."""

from __future__ import annotations

from flowyml.orchestrators.local.schema import StepRow, item_of
from flowyml.plan.model import Step
from flowyml.runtime.nodes import Frame, Task

__all__ = ["Node"]


class Node(Task):
    """One step, or one item's turn of it, on its way through a run. ``row`` is what the store has of it."""

    __slots__ = ("apart", "attempt", "due", "error", "row")

    def __init__(self, frame: Frame, step: Step, position: int, *, apart: bool) -> None:
        super().__init__(frame, step, position)
        self.apart = apart
        self.attempt = 0
        self.due = 0.0
        self.error: BaseException | None = None
        self.row = StepRow(position, "QUEUED", "queued", item=item_of(self.index))

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self.row.status not in ("QUEUED", "RUNNING")
