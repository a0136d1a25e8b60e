"""End a process with all that it started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["descendants", "kill_group", "kill_tree"]


def descendants(pid: int) -> list[int]:
    """Its children and theirs, the deepest first; none where there is no /proc."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [*descendants(int(child)), int(child)]
    return found


def kill_group(leader: int) -> None:
    """Kill a process group, if it is still there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Kill a leader's group and, on Linux, also its descendants that have made groups of their own."""
    others = descendants(pid)
    kill_group(pid)
    for other in others:
        kill_group(other)
        with suppress(ProcessLookupError, PermissionError):
            os.kill(other, signal.SIGKILL)
