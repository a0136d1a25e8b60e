"""End a process with all that it started."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from flowyml.core.process_identity import ProcessIdentity, identity_of, same_process, signal_group, signal_process

__all__ = ["descendants", "kill_tree"]


def descendants(pid: int) -> list[ProcessIdentity]:
    """The children of a process and theirs, the deepest first; none where there is no /proc."""
    found: list[ProcessIdentity] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [*descendants(int(child)), identity_of(int(child))]
    return found


def kill_tree(leader: ProcessIdentity) -> None:
    """Kill a leader's group and, on Linux, also its descendants that have made groups of their own."""
    others = descendants(leader.pid) if same_process(leader) else []
    signal_group(leader, signal.SIGKILL)
    for other in others:
        signal_group(other, signal.SIGKILL)
        signal_process(other, signal.SIGKILL)
