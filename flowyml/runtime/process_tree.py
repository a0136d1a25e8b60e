"""Kill a process with all processes that it started."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flowyml.core.process_identity import ProcessIdentity, identity_of, same_process, signal_group, signal_process

__all__ = ["descendants", "kill_all", "kill_tree"]


def descendants(pid: int) -> list[ProcessIdentity]:
    """Return the descendants of a process, deepest first; empty without /proc."""
    processes: list[ProcessIdentity] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                processes += [*descendants(int(child)), identity_of(int(child))]
    return processes


def kill_tree(leader: ProcessIdentity) -> None:
    """Kill a leader's group and, on Linux, also its descendants in groups of their own."""
    others = descendants(leader.pid) if same_process(leader) else []
    signal_group(leader, signal.SIGKILL)
    kill_all(others)


def kill_all(processes: Iterable[ProcessIdentity]) -> None:
    """Kill processes, and the groups that they lead, if they are still the same processes."""
    for process in processes:
        signal_group(process, signal.SIGKILL)
        signal_process(process, signal.SIGKILL)
