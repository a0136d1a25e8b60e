"""Engines that tests start: each ends with the tests, also when these are killed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

__all__ = ["end_engine", "free_port", "start_engine"]

# Systems give higher ones to clients, of which one may take a port between this look and the start of its server
# (sources: Linux, Documentation/networking/ip-sysctl.rst, ip_local_port_range; macOS, net.inet.ip.portrange.first).
_PORTS = range(20_000, 32_768)

# This process alone holds the writing end of the pipe behind the standard input, so `cat` ends when this process does.
_WHILE_TESTS_RUN = """
exec 3<&0 </dev/null
{ cat <&3 && { trap '' TERM; pkill -TERM -s 0; sleep 2; pkill -KILL -s 0 || kill -KILL 0; }; } >/dev/null 2>&1 &
exec 3<&-
"""
_ONCE = 'exec "$@"'
_AGAIN_AND_AGAIN = 'while :; do "$@"; echo "ended with exit code $?, starts again"; sleep 1; done'


def start_engine(
    command: Sequence[str], *, log: IO[bytes], env: Mapping[str, str] | None = None, cwd: Path | None = None,
    again: bool = False,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process in a session of its own, where it is the leader; with ``again`` whenever it ends by itself."""
    script = _WHILE_TESTS_RUN + (_AGAIN_AND_AGAIN if again else _ONCE)
    return subprocess.Popen(
        ["sh", "-c", script, "engine", *command],
        env=env, cwd=cwd, stdin=_life(), stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip


def end_engine(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM, seconds: float = 15) -> None:
    """Send a signal to its process group, and after some seconds SIGKILL."""
    for attempt, patience in ((number, seconds), (signal.SIGKILL, 5)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, attempt)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@cache
def _life() -> int:
    reading, _writing = os.pipe()  # open until this process ends
    return reading
