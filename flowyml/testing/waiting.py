"""Wait for a condition by polling, never by sleeping for as long as it might take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PATIENCE", "wait_until"]

Value = TypeVar("Value")

PATIENCE = 240.0
"""Seconds that a test waits for a condition, on an otherwise idle machine."""


def wait_until(condition: Callable[[], Value], what: str = "", *, every: float = 0.1) -> Value:
    """Return the first true value of a condition.

    Raises ``TimeoutError`` with ``what`` if none comes within ``PATIENCE``.

    It asks ``every`` so many seconds, and less often if an answer takes long or the wait does (by a tenth of it, up to
    half a second): waiting for an engine would keep it busy otherwise. If more processes want to run than there are
    processors, a second counts for as much less: with four for each processor, a test waits four times as long.
    """
    waited, last = 0.0, time.monotonic()
    while True:
        started = time.monotonic()
        if value := condition():
            return value
        now = time.monotonic()
        load = os.getloadavg()[0] / (os.cpu_count() or 1)  # processes that want to run, in the last minute
        waited, last = waited + (now - last) / max(1.0, load), now
        if waited > PATIENCE:
            raise TimeoutError(f"{what or condition}: not within {PATIENCE:g} s of a quiet machine")
        time.sleep(max(every, 4 * (now - started), min(waited / 10, 0.5)))
