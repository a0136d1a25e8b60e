"""Poll until something exists."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from flowyml.core.durations import span_text

T = TypeVar("T")

__all__ = ["wait_for"]


def wait_for(what: str, poll: Callable[[float], T | None], poll_interval: float, patience: float) -> T:
    """Call ``poll`` until its result is not None, and return that. ``poll`` gets the seconds that are left.

    Raises ``TimeoutError`` after ``patience`` seconds.
    """
    if poll_interval <= 0:
        raise ValueError(f"poll_interval={poll_interval!r} must be a number of seconds above 0.")
    deadline = time.monotonic() + patience
    print(f"Waiting for {what}, for up to {span_text(patience)}.")
    remaining = patience
    while (found := poll(remaining)) is None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"{what} did not exist within {span_text(patience)}.")
        time.sleep(min(poll_interval, remaining))
        remaining = max(deadline - time.monotonic(), 0)
    return found
