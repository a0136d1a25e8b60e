"""Identifies a process by its id, its birth and the machine's boot, since process ids are reused.

A process or a group gets a signal only while it is still the same.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = [
    "ProcessIdentity", "await_ends", "born", "identity_of", "is_alive", "same_process", "signal_group",
    "signal_process", "started_with", "this_process",
]  # fmt: skip

_PAUSE = 0.02
_ENDED = frozenset("ZXx")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process on one machine. ``born`` is empty if the process table cannot be read."""

    host: str
    pid: int
    born: str


def this_process() -> ProcessIdentity:
    return identity_of(os.getpid())


def identity_of(pid: int) -> ProcessIdentity:
    """Return the process of this machine that has the id now; ``born`` is empty if there is none.

    A child that has ended has its id until its parent has waited for it, so a parent can always ask.
    """
    return ProcessIdentity(_host(), pid, _birth(pid, also_ended=True) or "")


def is_alive(process: ProcessIdentity) -> bool | None:
    """Return True or False for a process of this machine, None if unknown."""
    if process.host != _host() or not process.born:
        return None
    return process.born == born(process.pid)


def same_process(process: ProcessIdentity) -> bool:
    """Return whether the process is alive and still the same; False also if that is unknown."""
    return is_alive(process) is True


def await_ends(processes: Sequence[ProcessIdentity], seconds: float) -> bool:
    """Wait until none of these processes is known to be alive; False if one still is after ``seconds``."""
    deadline = time.monotonic() + seconds
    while any(map(is_alive, processes)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE)
    return True


def signal_process(process: ProcessIdentity, number: int) -> bool:
    """Send a signal to the process if it lives and is still the same; False if nothing was sent."""
    if not hasattr(os, "pidfd_open"):
        if not same_process(process):
            return False
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)
            return True
        return False
    try:
        handle = os.pidfd_open(process.pid)  # refers to this very process from here on, even if its id is reused
    except OSError:
        return False
    try:
        if not same_process(process):
            return False
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, number)
            return True
        return False
    finally:
        os.close(handle)


def signal_group(leader: ProcessIdentity, number: int, *, bearing: str = "") -> bool:
    """Send a signal to the process group that was started as ``leader``; False if nothing was sent.

    The leader may have ended: while processes of its group live, the system does not reuse its id (source: Linux,
    ``kernel/pid.c``, which frees an id when no group and no session uses it). So if a process with the id was born at
    another time, the group is gone.

    Without a leader, a group that was recorded long ago may be a foreign one, whose own leader has ended too. For such
    groups, ``bearing`` is the variable ``NAME=value`` that the group was started with: if the leader is gone, a signal
    is sent only if a process of the group has it in its environment, which only Linux shows.
    """
    if leader.host != _host() or not leader.born:
        return False
    birth = _birth(leader.pid, also_ended=True)
    if birth not in (None, leader.born):
        return False
    if birth is None and bearing and not _group_bears(leader.pid, os.fsencode(bearing)):
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, number)
        return True
    return False


def _group_bears(group: int, variable: bytes) -> bool:
    """Return whether a process of a group, all with the same leader, was started with a variable."""
    for pid in started_with(variable):
        with suppress(OSError):  # it has ended
            if int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[2]) == group:
                return True
    return False


def started_with(variable: bytes) -> Iterator[int]:
    """Yield the processes that were started with ``NAME=value`` in their environment, as far as this user may read it.

    Yields nothing except on Linux.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if variable in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name)


def born(pid: int) -> str | None:
    """Return the time when a living process was started, and the boot before that; None if there is no such process.

    A zombie has ended, so it counts as none.
    """
    return _birth(pid, also_ended=False)


def _birth(pid: int, *, also_ended: bool) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return None if _has_proc() else _birth_by_ps(pid, also_ended)
    except OSError:  # it ended while its line was read
        return None
    # The name in parentheses may contain spaces and parentheses. Field 3 is the state, 22 the start (source: proc(5)).
    fields = stat.rpartition(b")")[2].split()
    if not also_ended and fields[0].decode() in _ENDED:
        return None
    return f"{_boot()}/{fields[19].decode()}"


def _birth_by_ps(pid: int, also_ended: bool) -> str | None:
    import subprocess

    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = answer.stdout.strip().partition(" ")
    return start.strip() or None if state and (also_ended or state[0] not in _ENDED) else None


@cache
def _host() -> str:
    import platform

    return platform.node()


@cache
def _boot() -> str:
    """Return the id of the boot: ticks since then are the birth of a process, and may be the same after the next."""
    try:
        return _BOOT_ID.read_text().strip().replace("-", "")
    except OSError:
        return ""


@cache
def _has_proc() -> bool:
    return Path("/proc/self/stat").exists()
