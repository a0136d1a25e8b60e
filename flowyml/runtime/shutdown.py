"""End the process of a step.

Once it has given its answer, it ends as a script does, but waits for its threads only for a limited time. If it has to
stop earlier, SIGTERM becomes an exception in the step, so that it can clean up, and SIGKILL follows.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from flowyml.core.forks import flush_output

__all__ = ["GRACE", "End", "StepStopped", "end_by", "stoppable"]

GRACE = 3
"""Seconds between SIGTERM and SIGKILL. Airflow kills a task that it stops, and its step with it, after 5."""

_PATIENCE = 10  # seconds that the step's own threads are waited for; its result is known by now


class _Enough(BaseException):
    """Ends the wait."""


class End:
    """The end of this process, prepared before the user's code runs and in the main thread.

    The interpreter itself ends a script in this order (source: ``Py_FinalizeEx``): the hooks of ``threading``, in which
    libraries end their threads and processes, then the remaining threads, then the functions registered with
    ``atexit``. Without those hooks, the process would wait for loky's workers until they time out after 300 s. Handlers
    registered before this was prepared are not called: in a forked process they belong to the parent. The interpreter
    is not finalized, which would take longer than the rest.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._leave)  # the last is called first

    def prepare(self, code: int) -> int:
        """Limit the time in which this process ends with ``code``, including its threads. Returns ``code``.

        A negative one is a signal, as in ``subprocess``.
        """
        self._code = code
        self._unraisable = sys.unraisablehook
        sys.unraisablehook = self._explain
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE, 1)  # then once a second, until it stops
        return code

    def leave(self, code: int) -> NoReturn:
        """End here and now, with no way back through the frames of a parent (source: ``Py_Exit`` of the C API)."""
        from ctypes import pythonapi

        pythonapi.Py_Exit(self.prepare(code))
        raise AssertionError("Py_Exit does not return")

    def _leave(self) -> None:
        if self._code is None:  # an error or an exit of the user's own ends this
            return
        flush_output()
        if self._code < 0:
            end_by(-self._code)
        os._exit(self._code)

    def _explain(self, error: Any) -> None:
        """Replace the interpreter's traceback for an interruption of the end."""
        if error.exc_type is not _Enough:
            self._unraisable(error)
            return
        running = ", ".join(_own_threads()) or "a hook of a library"
        print(
            f"The step's process was ended {_PATIENCE} s after the step returned, while these were still running: "
            f"{running}.",
            file=sys.stderr,
        )


class StepStopped(BaseException):
    """Raised in a step that is asked to stop. ``finally`` and ``with`` clean up; ``except Exception`` lets it pass."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM raise ``StepStopped`` in the main thread within this block; in other threads, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child that the step has forked, such as a worker of multiprocessing
            end_by(signal.SIGTERM)
        raise StepStopped("The step was asked to stop.")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_by(number: int) -> NoReturn:
    """End this process by a signal, so that its parent sees that signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where the signal is blocked


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise _Enough


def _own_threads() -> list[str]:
    main = threading.main_thread()
    return [f"thread {item.name!r}" for item in threading.enumerate() if item is not main and not item.daemon]
