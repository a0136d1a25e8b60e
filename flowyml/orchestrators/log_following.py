"""Follow the log of a run on an engine, poll by poll, even while the engine does not answer for a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from flowyml.core.errors import EngineUnreachableError, ServerTroubleError
from flowyml.core.runs import LogLine

__all__ = ["Poll", "log_lines"]

Poll = Generator[LogLine, None, bool]
"""Yields the lines since the last poll, and returns whether all have come."""

_PATIENCE_SECONDS = 300


def log_lines(poll: Callable[[], Poll], *, follow: bool, pause: float = 1) -> Iterator[LogLine]:
    """Yield the lines of one poll after another, ``pause`` seconds apart, until a poll was the last.

    With ``follow``, an engine that does not answer or has an error is retried for five minutes.
    """
    silent_since: float | None = None
    complete = False
    while not complete:
        try:
            complete = yield from poll()
            silent_since = None
        except (EngineUnreachableError, ServerTroubleError):
            silent_since = silent_since or time.monotonic()
            if not follow or time.monotonic() - silent_since > _PATIENCE_SECONDS:
                raise
        if not complete:
            time.sleep(pause)
