"""End a child that a user's code forks where that code ends, so that it never continues as a second FlowyML."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

__all__ = ["ForksEndHere", "cut_off", "flush_output", "fork", "reopen_output"]


def fork() -> int:
    """Call ``os.fork()`` without Python's warning about the threads of libraries, which know how to fork."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def flush_output() -> None:
    """Flush standard output and error. User code may have closed or replaced a stream, even by None."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # whatever the user's own raises
            stream.flush()


def cut_off(*numbers: int) -> None:
    """Connect standard streams to nothing: input is empty from now on, and output is dropped."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(nothing, number)
    os.close(nothing)


def reopen_output() -> None:
    """Reopen standard streams that user code closed, for the rest of this process."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            with suppress(OSError):  # the descriptor is closed too
                again = os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
                setattr(sys, name, again)


class ForksEndHere:
    """Wraps a call of the user's code: a child that the code forks ends with it, as a script ends.

    Only the parent's outcome counts; a child that returned would record one of its own.
    """

    __slots__ = ("_pid",)

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            _end(error)


def _end(error: BaseException | None) -> NoReturn:
    """End without the handlers of ``atexit``, which are the parent's (so does ``multiprocessing``)."""
    code = 1
    try:
        code = _print_end(error)
        flush_output()
    finally:
        os._exit(code)


def _print_end(error: BaseException | None) -> int:
    """Print to standard error what Python prints at the end of a script, and return the exit code."""
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1
