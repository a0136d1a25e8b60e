"""Processes that outlive their starter."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["reap", "start_detached"]


class _Process(subprocess.Popen[bytes]):
    """A process that outlives this one, so no warning is due when the object is garbage-collected."""

    def __del__(self) -> None:
        return


_started: set[_Process] = set()


def start_detached(
    command: Sequence[str], log: IO[Any], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    umask: int = -1,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process in its own session, without input; its output goes to ``log``.

    If it ends before this process does, a later call reaps it.
    """
    reap()
    process = _Process(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env, cwd=cwd, umask=umask
    )
    _started.add(process)
    return process


def reap() -> None:
    """Reap the processes that have ended. Until its parent does so, a process stays in the process table."""
    for process in tuple(_started):
        if process.poll() is not None:
            _started.discard(process)
