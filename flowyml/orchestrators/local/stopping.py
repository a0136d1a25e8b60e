"""Stop a run at its deadline or on request, and end the steps that run in threads.

A thread is ended as far as Python allows: by an exception that arrives between two instructions.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from flowyml.core.errors import StepCancelledError
from flowyml.core.following import say
from flowyml.orchestrators.local.store import CLEANING_UP
from flowyml.plan.groups import Cleanup
from flowyml.runtime.shutdown import GRACE

if TYPE_CHECKING:
    from flowyml.orchestrators.local.engine import Engine

__all__ = ["Slot", "Watch"]

_POLL_SECONDS = 0.2
_PRESS_SECONDS = GRACE  # for an interrupted step to clean up
_SIGN_OF_LIFE_SECONDS = 10
_GRACE_SECONDS = GRACE + 2
_PATIENCE_SECONDS = 60  # for steps in C code, where steps are to clean up after them
_CLEANUP_SECONDS = 3600  # for those in a run that was stopped; as long as on Prefect
_FOREVER = float("inf")


class Slot:
    """A worker thread. A step runs inside ``with slot:``, and only there may an exception interrupt it."""

    __slots__ = ("_lock", "_sent", "_thread", "is_open")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._thread = threading.get_ident()
        self._sent = False
        self.is_open = False

    def __enter__(self) -> None:
        with self._lock:
            self.is_open = True

    def __exit__(self, *_: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """Raise ``StepCancelledError`` in the step when its thread next runs Python code; harmless between steps."""
        with self._lock:
            if self.is_open:
                self._sent = True
                _raise_in(self._thread, StepCancelledError)

    def close(self) -> None:
        """Let nothing interrupt this thread from now on, not even a pending exception. May be called again."""
        while self.is_open or self._sent:
            try:
                self._let_go()
                with self._lock:
                    self.is_open = False
                for _ in range(10):  # a pending exception arrives at the next jump back
                    pass
                self._sent = False
            except StepCancelledError:  # it arrived just now
                continue

    def _let_go(self) -> None:
        """Release a lock after an exception that came between acquiring it and its block."""
        with suppress(RuntimeError):  # this thread does not have the lock, as nearly always
            while True:
                self._lock.release()


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Let the interpreter raise an error in a thread.

    The error is never revoked with NULL: CPython 3.11 would keep looking for it, and under a trace function, such as a
    debugger's or coverage's, the next call would never begin.
    """
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


class Watch:
    """Called by the recorder's thread, about twenty times a second.

    A stopped step that catches the exception and continues is interrupted again. ``give_up`` is called if steps still
    run some seconds after the stop, or a minute after it if there are clean-ups, and if those take over an hour;
    without it, the run waits for them. From the stop on, the database shows that a run is cleaning up, so that it is
    not killed.
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
        self._is_stopped = False
        self._is_cleaning_up = False
        self._until = _FOREVER
        self._next_press = now
        self._next_poll = now
        self._next_sign = now + _SIGN_OF_LIFE_SECONDS

    def __call__(self, db: sqlite3.Connection) -> None:
        now = time.monotonic()
        if self._engine.stopping:
            self._press(db, now)
        elif self._engine.is_cleaning_up:
            self._let_clean_up(db, now)
        elif self._deadline is not None and now >= self._deadline:
            self._engine.stop("timeout")
        elif self._is_cancelled(db, now):
            self._engine.stop("cancelled")
        if now >= self._next_sign:
            self._next_sign = now + _SIGN_OF_LIFE_SECONDS
            db.execute("UPDATE runs SET heartbeat = ? WHERE number = ?", (time.time(), self._number))
        if self._show is not None:
            self._show()

    def _is_cancelled(self, db: sqlite3.Connection, now: float) -> bool:
        if now < self._next_poll:
            return False
        self._next_poll = now + _POLL_SECONDS
        row = db.execute("SELECT cancel FROM runs WHERE number = ?", (self._number,)).fetchone()
        return bool(row and row[0])

    def _press(self, db: sqlite3.Connection, now: float) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            if self._give_up is None:  # the caller waits in this process
                why = "took too long" if self._engine.stopping == "timeout" else "is cancelled"
                say(f"The run {why}: stopping its steps …")
            self._until = now + _GRACE_SECONDS
            if any(isinstance(group, Cleanup) for group in self._engine.walk.plan.groups):
                self._until = now + _PATIENCE_SECONDS
                self._mark(db)
        if now >= self._next_press:
            self._next_press = now + _PRESS_SECONDS
            self._engine.press()
        if self._give_up and now >= self._until:
            self._give_up()

    def _let_clean_up(self, db: sqlite3.Connection, now: float) -> None:
        """Protect the clean-up from the deadline and from requests to cancel, until an hour after such a request."""
        if not self._is_cleaning_up:
            self._is_cleaning_up, self._until = True, _FOREVER
            self._mark(db)
        if self._until == _FOREVER and self._give_up and (self._is_stopped or self._is_cancelled(db, now)):
            self._until = now + _CLEANUP_SECONDS
        if now >= self._until:
            self._is_stopped, self._until = True, now + _GRACE_SECONDS
            self._engine.stop("cancelled")

    def _mark(self, db: sqlite3.Connection) -> None:
        """Record that the clean-up is running or about to."""
        where = "number = ? AND status = 'RUNNING'"
        db.execute(f"UPDATE runs SET raw_status = ? WHERE {where}", (CLEANING_UP, self._number))
