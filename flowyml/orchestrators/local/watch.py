"""Look after a run while it goes on: its deadline, requests to cancel it, its sign of life."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from flowyml.orchestrators.local.engine import Engine
from flowyml.runtime.shutdown import GRACE

__all__ = ["Watch"]

_LOOK_SECONDS = 0.2
_PRESS_SECONDS = GRACE  # in which a step that was hit cleans up
_SIGN_OF_LIFE_SECONDS = 10
_GRACE_SECONDS = GRACE + 2


class Watch:
    """Called by the recorder's thread, about twenty times a second.

    A stopped step that catches the exception and goes on is hit again. ``give_up`` is called when steps still run
    some seconds after the stop; without it they are waited for.
    """

    def __init__(
        self,
        engine: Engine,
        number: int,
        *,
        timeout: float | None = None,
        show: Callable[[], None] | None = None,
        give_up: Callable[[], None] | None = None,
    ) -> None:
        now = time.monotonic()
        self._engine = engine
        self._number = number
        self._deadline = None if timeout is None else now + timeout
        self._show = show
        self._give_up = give_up
        self._stopped_at = float("inf")
        self._next_press = now
        self._next_look = now
        self._next_sign = now + _SIGN_OF_LIFE_SECONDS

    def __call__(self, db: sqlite3.Connection) -> None:
        now = time.monotonic()
        if self._engine.stopping:
            self._press(now)
        elif self._deadline is not None and now >= self._deadline:
            self._engine.stop("timeout")
        elif now >= self._next_look:
            self._look(db, now)
        if now >= self._next_sign:
            self._next_sign = now + _SIGN_OF_LIFE_SECONDS
            db.execute("UPDATE runs SET heartbeat = ? WHERE number = ?", (time.time(), self._number))
        if self._show is not None:
            self._show()

    def _look(self, db: sqlite3.Connection, now: float) -> None:
        self._next_look = now + _LOOK_SECONDS
        found = db.execute("SELECT cancel FROM runs WHERE number = ?", (self._number,)).fetchone()
        if found and found[0]:
            self._engine.stop("cancelled")

    def _press(self, now: float) -> None:
        self._stopped_at = min(self._stopped_at, now)
        if now >= self._next_press:
            self._next_press = now + _PRESS_SECONDS
            self._engine.stop(self._engine.stopping or "cancelled")
        if self._give_up and now - self._stopped_at > _GRACE_SECONDS:
            self._give_up()
