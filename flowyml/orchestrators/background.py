"""Processes that outlive their starter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from flowyml.core.forks import cut_off
from flowyml.plan.secrets import environment_without_secrets
from flowyml.runtime.spawn import as_input

__all__ = ["reap", "start_detached", "take_secrets"]


class _Process(subprocess.Popen[bytes]):
    """A process that outlives this one, so no warning is due when the object is garbage-collected."""

    def __del__(self) -> None:
        return


_started: set[_Process] = set()


def start_detached(
    command: Sequence[str], log: IO[Any], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    umask: int = -1, secrets: bool = False,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process in its own session, without input; its output goes to ``log``.

    Without ``env``, it has this process's environment, but not its secrets: the kernel shows the environment with which
    a process began in ``/proc`` for as long as the process lives. With ``secrets``, the process gets them on standard
    input, and must ``take_secrets``. If it ends before this process does, a later call reaps it.
    """
    reap()
    bare = environment_without_secrets()
    passed = {name: value for name, value in os.environ.items() if secrets and name not in bare}
    with as_input(passed) if passed else nullcontext(subprocess.DEVNULL) as source:
        process = _Process(
            command, stdin=source, stdout=log, stderr=log, start_new_session=True, env=bare if env is None else env,
            cwd=cwd, umask=umask,
        )  # fmt: skip
    _started.add(process)
    return process


def take_secrets() -> None:
    """Take, in the process, the secrets that its starter passes, as variables of Python's; then it has no input."""
    os.environ.update(json.loads(sys.stdin.buffer.read() or b"{}"))
    cut_off(0)


def reap() -> None:
    """Reap the processes that have ended. Until its parent does so, a process stays in the process table."""
    for process in tuple(_started):
        if process.poll() is not None:
            _started.discard(process)
