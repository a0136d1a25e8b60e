"""Processes that outlive the one that starts them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["reap", "start_detached"]


class _Process(subprocess.Popen[bytes]):
    """Meant to go on without this one, so there is nothing to warn of when it is forgotten."""

    def __del__(self) -> None:
        return


_started: set[_Process] = set()


def start_detached(
    command: Sequence[str], log: IO[Any], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    umask: int = -1,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process in a session of its own, without input; what it prints goes to ``log``.

    When it ends before this process does, a later call lets go of it.
    """
    reap()
    process = _Process(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env, cwd=cwd, umask=umask
    )
    _started.add(process)
    return process


def reap() -> None:
    """Let go of the processes that have ended. Until its parent does so, one stays in the process table."""
    for process in tuple(_started):
        if process.poll() is not None:
            _started.discard(process)
