"""Locks between processes, on files: one process holds a lock, or several share it.

The system releases a lock when all processes that have its open file have ended, in whatever way. Without locks, as on
some network file systems, nothing raises or waits, and the result is None instead of True.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["held", "lock", "unlock"]

_PAUSE = 0.02


@contextmanager
def held(path: Path, *, shared: bool = False, wait: float | None = 0) -> Iterator[bool | None]:
    """Hold the lock of a file, which is created private if it is missing; arguments and results are those of ``lock``.

    Raises ``OSError`` if the file cannot be opened.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield lock(file, shared=shared, wait=wait)
    finally:
        os.close(file)


def lock(file: int, *, shared: bool = False, wait: float | None = 0) -> bool | None:
    """Take the lock of an open file; ``wait`` is the maximum in seconds, None for no limit.

    Return True if this process has the lock, False if another process has it, None if the file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + (wait or 0)
    while True:
        try:
            fcntl.flock(file, kind if wait is None else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            time.sleep(min(_PAUSE, remaining))
        except OSError:
            return None
        else:
            return True


def unlock(file: int) -> None:
    """Release a lock at once, also for processes that inherited the open file."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
