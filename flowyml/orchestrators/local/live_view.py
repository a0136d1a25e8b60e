"""Draw a blocking run on the terminal, or in the cell of a notebook."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, TextIO

from flowyml.core.notebook import in_notebook
from flowyml.core.runs import Run
from flowyml.orchestrators.local.capture import beneath, leading_through
from flowyml.orchestrators.local.engine import LocalTask
from flowyml.orchestrators.local.records import in_order, step_of
from flowyml.runtime.walk import Walk

if TYPE_CHECKING:
    from flowyml.core.progress import Update

__all__ = ["LiveView"]

_PATIENCE_SECONDS = 0.5
"""A run that ends sooner is not drawn, and does not wait for rich to be imported."""


class LiveView:
    """Called repeatedly by the recorder's thread. It stops drawing for a debugger."""

    def __init__(self, run: Run, walk: Walk[LocalTask]) -> None:
        self._run = run
        self._walk = walk
        self._next = time.monotonic() + _PATIENCE_SECONDS
        self._update: Update | None = None
        self._stack = ExitStack()

    def __call__(self) -> None:
        now = time.monotonic()
        if "pdb" in sys.modules and not in_notebook():  # which imports it, and whose debugger has its own input
            self._end()
        elif now >= self._next:
            self._next = float("inf")  # for good, if drawing fails, which is reported once
            self._draw(self._run)
            self._next = now + (0.2 if len(self._walk.tasks) < 500 else 1.0)

    def close(self, run: Run) -> None:
        """Draw the end of the run, if anything was drawn at all."""
        if self._update is not None:
            self._draw(run)
            self._end()

    def _draw(self, run: Run) -> None:
        update = self._update or self._begin()
        nodes = in_order((*self._walk.tasks, *self._walk.to_come()))
        update(run, [step_of(node.step.name, node.row) for node in nodes])

    def _begin(self) -> Update:
        from flowyml.core.progress import console_on, show_progress
        from flowyml.core.progress_output import OutputAbove

        if in_notebook():
            self._update = self._stack.enter_context(show_progress(self._run.pipeline, self._run.run_id))
            return self._update
        console, streams = console_on(beneath("stderr")), list[OutputAbove]()

        def lead(stream: TextIO, begun: str) -> OutputAbove:
            streams.append(OutputAbove(console, stream, begun))
            return streams[-1]

        def end() -> None:
            for stream in streams:
                stream.close()

        self._stack.enter_context(leading_through(lead))
        picture = show_progress(
            self._run.pipeline,
            self._run.run_id,
            console=console,
            tail=lambda: "\n".join(s.tail for s in streams if s.tail),
        )
        self._update = self._stack.enter_context(picture)
        self._stack.callback(end)
        return self._update

    def _end(self) -> None:
        self._next = float("inf")
        self._update = None
        self._stack.close()
