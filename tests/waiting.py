"""Waiting for what a test is about: by looking again and again, never by sleeping for as long as it might take."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from flowyml.orchestrators.local.store import RunStore

__all__ = ["catches", "is_running", "wait_for_processes", "wait_until"]

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


def wait_for_processes(record: Path) -> None:
    """Until those of all local runs have ended: they clear their folders once their ends are recorded."""
    for row in RunStore(record).runs(None, 1000):
        wait_until(lambda pid=row.pid: pid == os.getpid() or not is_running(pid))


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal. Source: Linux, Documentation/filesystems/proc.rst"""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text("ascii"), re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)
