"""How the process of a step ends once its answer is given: as a script ends, but not for ever."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from flowyml.runtime.stopping import end_by

__all__ = ["End"]

_PATIENCE = 10  # seconds that the step's own threads are waited for; its result is known by now


class _Enough(BaseException):
    """Ends the wait."""


class End:
    """The end of this process, made before the user's code runs and in the main thread.

    The interpreter itself does what belongs to the end of a script, in its order (source: ``Py_FinalizeEx``): the
    hooks of ``threading``, in which libraries end their threads and processes, then the threads that are left, then
    what was registered with ``atexit``. Without those hooks loky's workers are waited for until they tire of idling,
    after 300 s. What was registered before this was made is not called: in a forked process it belongs to the parent.
    Nor is the interpreter taken apart, which takes longer than the rest.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._leave)  # the last is called first

    def prepare(self, code: int) -> int:
        """From here on this process ends with ``code``, and the wait for its threads has a limit. Gives ``code``.

        A negative one is a signal, as ``subprocess`` has it.
        """
        self._code = code
        if hasattr(signal, "setitimer"):  # not on Windows
            self._unraisable = sys.unraisablehook
            sys.unraisablehook = self._explain
            atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, _interrupt)
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE, 1)  # then once a second, until it gives in
        return code

    def leave(self, code: int) -> NoReturn:
        """End here and now, with no way back through the frames of a parent (source: ``Py_Exit`` of the C API)."""
        from ctypes import pythonapi

        pythonapi.Py_Exit(self.prepare(code))
        raise AssertionError("Py_Exit does not return")

    def _leave(self) -> None:
        if self._code is None:  # an error or an exit of the user's own ends this
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            if self._code < 0:
                end_by(-self._code)
            os._exit(self._code)

    def _explain(self, error: Any) -> None:
        """In the place of a traceback, which the interpreter prints of what interrupts its end."""
        if error.exc_type is not _Enough:
            self._unraisable(error)
            return
        left = ", ".join(_own_threads()) or "a hook of a library"
        print(f"Still busy {_PATIENCE} s after the step had returned, and ended with it: {left}.", file=sys.stderr)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise _Enough


def _own_threads() -> list[str]:
    main = threading.main_thread()
    return [f"thread {item.name!r}" for item in threading.enumerate() if item is not main and not item.daemon]
