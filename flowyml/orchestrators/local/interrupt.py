"""End a step that runs in a thread, as far as Python can: by an exception that arrives between two instructions."""

from __future__ import annotations

import threading
from contextlib import suppress

from flowyml.core.errors import StepCancelledError

__all__ = ["Slot"]


class Slot:
    """One worker thread. Inside ``with slot:`` a step runs, and only there an exception may hit it."""

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
        """From here on nothing hits this thread, not even what is on its way. May be called again."""
        while self.is_open or self._sent:
            try:
                self._let_go()
                with self._lock:
                    self.is_open = False
                for _ in range(10):  # what is on its way arrives at the next jump back
                    pass
                self._sent = False
            except StepCancelledError:  # it arrived just now
                continue

    def _let_go(self) -> None:
        """Release what an exception left locked that came between taking the lock and the block it guards."""
        with suppress(RuntimeError):  # this thread does not hold it, as nearly always
            while True:
                self._lock.release()


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Let the interpreter raise an error in a thread.

    It is never taken back with NULL: CPython 3.11 then goes on looking for it, and under a trace function, such as a
    debugger's or coverage's, the next call never begins.
    """
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
