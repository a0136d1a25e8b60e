"""Waiting for what a test is about: by looking again and again, never by sleeping for as long as it might take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

__all__ = ["is_running", "wait_until"]

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], seconds: float = 240, *, every: float = 0.1) -> Value:
    """The first true value of a condition. A busy machine may take minutes for what takes milliseconds elsewhere."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} stayed false for {seconds:g} s")
        time.sleep(every)
    return value


def is_running(pid: int) -> bool:
    """Whether a process is there, and not a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
