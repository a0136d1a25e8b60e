"""Whether the process that runs something still lives: its id, and when it was born, since ids are used again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Owner", "born", "is_alive", "owner_of", "this_process"]

_ENDED = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class Owner:
    """One process on one machine. ``born`` is empty where the process table cannot be read."""

    host: str
    pid: int
    born: str


def this_process() -> Owner:
    """The process that calls."""
    return owner_of(os.getpid())


def owner_of(pid: int) -> Owner:
    """A process of this machine."""
    return Owner(_host(), pid, born(pid) or "")


def is_alive(owner: Owner) -> bool | None:
    """True or False for a process of this machine, None where that cannot be told."""
    if owner.host != _host() or not owner.born:
        return None
    return born(owner.pid) == owner.born


def born(pid: int) -> str | None:
    """When a living process was started, in the system's own notation; None when there is no such process.

    A zombie has ended, so it counts as none.
    """
    if os.name == "nt":
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return None if _has_proc() else _born_by_ps(pid)
    except OSError:  # it ended while its line was read
        return None
    # The name in parentheses may hold spaces and parentheses. Field 3 is the state, 22 the start (source: proc(5)).
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0].decode() in _ENDED else fields[19].decode()


def _born_by_ps(pid: int) -> str | None:
    import subprocess

    found = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = found.stdout.strip().partition(" ")
    return start.strip() or None if state and state[0] not in _ENDED else None


@cache
def _host() -> str:
    import platform

    return platform.node()


@cache
def _has_proc() -> bool:
    return Path("/proc/self/stat").exists()
