"""Waiting for processes, and with the patience that all tests have: see ``flowyml.testing.waiting``."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil

from flowyml.orchestrators.local.store import RunStore
from flowyml.testing.waiting import wait_until

__all__ = ["catches", "is_running", "wait_for_processes", "wait_until"]


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
