"""A step is asked to stop before it is killed: SIGTERM becomes an exception in it, so that it can clean up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["GRACE", "StepStopped", "end_by", "stoppable"]

GRACE = 3
"""Seconds between SIGTERM and SIGKILL. Airflow kills a task that it stops, and its step with it, after 5."""


class StepStopped(BaseException):
    """Raised in a step that is asked to stop. ``finally`` and ``with`` clean up; ``except Exception`` lets it pass."""


@contextmanager
def stoppable() -> Iterator[None]:
    """While this lasts, SIGTERM raises ``StepStopped`` in the main thread. Elsewhere than there it changes nothing."""
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
    """End this process by a signal, so that its parent sees what ended it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where the signal is blocked
