"""Record the events of a run, a batch at a time, so that steps never wait for the disk."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TypeVar

from flowyml.core.errors import ConfigurationError
from flowyml.core.plain_text import storable_text
from flowyml.orchestrators.local.capture import Sink
from flowyml.orchestrators.local.schema import SavedRow, StepRow
from flowyml.orchestrators.local.store import Line, RunStore, connect, write

__all__ = ["Recorder"]

logger = logging.getLogger("flowyml.local")

_Item = TypeVar("_Item")

_INTERVAL_SECONDS = 0.05


class Recorder:
    """Takes rows and lines from any thread; its own thread writes them, and calls ``tick`` each time.

    ``close`` writes what is left and ends the thread. A write that fails is tried again with the next batch.
    """

    def __init__(self, store: RunStore, number: int) -> None:
        self._store = store
        self._number = number
        self._rows: deque[StepRow] = deque()
        self._kept: deque[SavedRow] = deque()
        self._lines: deque[Line] = deque()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self.note = self._rows.append
        """Take the new row of a step."""
        self.keep = self._kept.append
        """Take the outputs of a step, before the row of its end: both are written together."""

    def start(self, tick: Callable[[sqlite3.Connection], None]) -> None:
        """Begin to write; ``tick`` gets the connection, about twenty times a second."""
        self._thread = threading.Thread(target=self._loop, args=(tick,), name="flowyml-recorder", daemon=True)
        self._thread.start()

    def sink(self, position: int | None, item: str = "") -> Sink:
        """Return the sink for the output of the step at ``position`` for ``item``; None is for output of no step."""

        def line(level: str, message: str) -> None:
            self._lines.append(Line(position, level, time.time(), storable_text(message), item))

        return Sink(line)

    def close(self) -> None:
        """Write the rest and end. On a full disk, lines are left out, so that there is room for the ends of steps."""
        self._over.set()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join()
        with self._store.session() as db:
            self._flush(db)
            if lost := len(_drain(self._lines)):
                message = f"The last {lost} lines of this run could not be saved: {self._trouble}."
                logger.error("%s", message)
                self._lines.append(Line(None, "ERROR", time.time(), message, ""))
                self._flush(db)

    def _loop(self, tick: Callable[[sqlite3.Connection], None]) -> None:
        """Write batches. A run that is over before the first tick needs no connection in this thread."""
        db: sqlite3.Connection | None = None
        with ExitStack() as stack:
            while not self._over.wait(_INTERVAL_SECONDS):
                try:
                    db = db or stack.enter_context(closing(connect(self._store.path)))
                except (sqlite3.Error, OSError, ConfigurationError) as error:
                    self._warn(str(error))
                    continue
                try:
                    self._flush(db)
                    tick(db)
                except Exception:
                    logger.exception("Monitoring a local run failed; trying again.")

    def _flush(self, db: sqlite3.Connection) -> None:
        rows = {(row.position, row.item): row for row in _drain(self._rows)}
        kept = _drain(self._kept)
        lines = _drain(self._lines)
        if not rows and not kept and not lines:
            return
        try:
            write(db, self._number, rows.values(), lines, kept)
        except sqlite3.Error as error:
            self._warn(str(error))
            self._rows.extendleft(row for row in reversed(rows.values()))
            self._kept.extendleft(reversed(kept))
            self._lines.extendleft(reversed(lines))
        else:
            self._trouble = ""

    def _warn(self, trouble: str) -> None:
        """Report a problem once, however often the write is retried."""
        if trouble != self._trouble:
            where = self._store.path
            logger.error(
                "A local run could not be recorded in %s (%s); trying again until the run ends.", where, trouble
            )
        self._trouble = trouble


def _drain(queue: deque[_Item]) -> list[_Item]:
    """Take all that is in the queue now; other threads may keep adding to it."""
    return [queue.popleft() for _ in range(len(queue))]
