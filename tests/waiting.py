"""Waiting for what a test is about: by looking again and again, never by sleeping for as long as it might take."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

__all__ = ["catches", "is_running", "wait_until"]

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


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal. Source: Linux, Documentation/filesystems/proc.rst"""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text("ascii"), re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)
