"""How the process of a step ends once its answer is given: as a script ends, but not for ever."""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["say_goodbye"]

_PATIENCE = 10  # seconds that the step's own threads are waited for; its result is known by now


class _Enough(BaseException):
    """Ends the wait."""


def say_goodbye() -> None:
    """What the interpreter does at the end of a script, in its order (source: ``Py_FinalizeEx``). In the main thread.

    Libraries end their threads and processes in hooks of ``threading``, which come before those of ``atexit``:
    without them, loky's workers are waited for until they tire of idling, after 300 s.
    """
    try:
        with _limited(_PATIENCE):
            threading._shutdown()  # type: ignore[attr-defined]  # private, and the only way
    except _Enough:
        left = ", ".join(_own_threads()) or "a hook of a library"
        print(f"Still busy {_PATIENCE} s after the step had returned, and ended with it: {left}.", file=sys.stderr)
    except Exception:  # as the interpreter does
        traceback.print_exc()
    atexit._run_exitfuncs()  # what the step itself has registered, such as the flush of a tracker


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, once a second until it gives in. Not on Windows."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise _Enough


def _own_threads() -> list[str]:
    main = threading.main_thread()
    return [f"thread {item.name!r}" for item in threading.enumerate() if item is not main and not item.daemon]
