"""Run steps in processes of their own: stoppable at any moment, and within milliseconds of a call."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from flowyml.core.errors import (
    OutputError,
    StepCancelledError,
    StepCrashedError,
    StepError,
    StepFailedError,
    StepTimeoutError,
)
from flowyml.runtime.hooks import plain_arguments

__all__ = ["StepProcesses"]

OnLine = Callable[[str, str], None]

_SLICE = 0.05  # seconds between looks at the clock, at `stop`, and for exceptions thrown into this thread
_DATAGRAM = 32000
_LONGEST_LINE = 1 << 16


class StepProcesses:
    """Runs the steps of one run, each attempt in a process that nothing outlives.

    A warm process loads the user's code once, and forks for each step. It starts at once, in the background; use this
    as a context manager, or ``close()`` it. ``run`` may be called from many threads.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        run_id: str,
        artifacts: str,
        parameters: Mapping[str, Any] = {},
        python: str = sys.executable,
    ) -> None:
        self.bundle = bundle
        self._config = {"run_id": run_id, "artifacts": artifacts, "parameters": dict(parameters)}
        self._python = python
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._server: _Server | None = None
        self._closed = False
        self._live_server()

    def run(
        self,
        step: str,
        inputs: Mapping[str, Any],
        *,
        attempt: int = 1,
        timeout: float | None = None,
        on_line: OnLine | None = None,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """Run one attempt of a step: packed inputs to packed outputs.

        ``timeout`` is in seconds, from the moment the process starts. ``on_line`` gets what it prints, as
        ``("stdout", "a line")``. ``stop`` ends it. Raises ``StepFailedError``, ``OutputError``, ``StepTimeoutError``,
        ``StepCancelledError`` and ``StepCrashedError``.
        """
        request = {"kind": "step", "step": step, "attempt": attempt}
        try:
            answer = self._in_child(f"step {step!r}", request, inputs, timeout, on_line, stop)
        except StepError as error:
            error.step = step
            self.fire("on_error", step, error, on_line=on_line)
            raise
        if failure := answer.get("failure"):
            raise _raised(step, failure)
        outputs: dict[str, Any] = answer["outputs"]
        return outputs

    def fire(self, event: str, *arguments: object, on_line: OnLine | None = None, timeout: float = 60) -> None:
        """Fire an event on the pipeline's hooks, in a process of its own. What goes wrong there is only logged."""
        request = {"kind": "hook", "event": event}
        try:
            self._in_child(f"hook {event}", request, plain_arguments(arguments), timeout, on_line or _print, None)
        except StepError as error:
            (on_line or _print)("stderr", str(error))

    def close(self) -> None:
        """End the warm process and all that still runs."""
        with self._lock:
            self._closed = True
            server, self._server = self._server, None
        if server:
            server.close()

    def __enter__(self) -> StepProcesses:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _in_child(
        self,
        who: str,
        request: Mapping[str, Any],
        body: Any,
        timeout: float | None,
        on_line: OnLine | None,
        stop: threading.Event | None,
    ) -> dict[str, Any]:
        server = self._live_server()
        child = _Child(who, server, next(self._numbers), on_line or _print)
        try:
            server.send({**request, "id": child.number}, body, child.their_ends)
            child.close_their_ends()
            child.wait(timeout, stop)
            return child.answer()
        except BaseException:
            server.kill(child)
            raise
        finally:
            child.close()

    def _live_server(self) -> _Server:
        with self._lock:
            if self._closed:
                raise StepCrashedError("These step processes are closed.")
            if self._server is None or not self._server.is_alive():
                self._server = _Server(self._python, self.bundle, self._config)
            return self._server


class _Server:
    """This side of the warm process."""

    def __init__(self, python: str, bundle: Path, config: Mapping[str, Any]) -> None:
        self._lock = threading.Lock()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.output = tempfile.TemporaryFile()
        with theirs:
            self.process = subprocess.Popen(
                [python, str(bundle), "serve", "--control", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
                pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        self.send({"kind": "start"}, config, [])

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def send(self, request: Mapping[str, Any], body: Any, files: list[int]) -> None:
        """One datagram, so that an exception thrown into this thread leaves no half request behind."""
        data = json.dumps({**request, "body": body}).encode()
        with tempfile.TemporaryFile() as long:
            if len(data) > _DATAGRAM:
                long.write(json.dumps(body).encode())
                long.seek(0)
                data, files = json.dumps(request).encode(), [*files, long.fileno()]
            with self._lock, suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self.control, [data], files)

    def kill(self, child: _Child) -> None:
        """Kill a child and wait for its end; if the server does not answer, the server goes too."""
        if child.ended:
            return
        self.send({"kind": "kill", "id": child.number}, None, [])
        if not child.wait_for_end(10):
            self.close()
            child.kill_group()

    def close(self) -> None:
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()

    def last_words(self) -> str:
        """What the process printed itself, for when it has died."""
        self.output.seek(0)
        return self.output.read()[-4000:].decode(errors="replace").strip()


class _Child:
    """One forked process: its streams, its answer, its end."""

    def __init__(self, who: str, server: _Server, number: int, on_line: OnLine) -> None:
        self.who = who
        self.server = server
        self.number = number
        self.pid: int | None = None
        self.exit_code: int | None = None
        self.ended = False
        self._answer = bytearray()
        self._status = bytearray()
        self.their_ends: list[int] = []
        self._sinks: dict[int, Callable[[bytes], None]] = {}
        self._lines = [_Lines("stdout", on_line), _Lines("stderr", on_line)]
        self._poll = select.poll()
        for sink in (self._lines[0].feed, self._lines[1].feed, self._answer.extend, self._read_status):
            ours, theirs = os.pipe()
            self.their_ends.append(theirs)
            self._sinks[ours] = sink
            os.set_blocking(ours, False)
            self._poll.register(ours, select.POLLIN)

    def wait(self, timeout: float | None, stop: threading.Event | None) -> None:
        """Until its end. Raises ``StepTimeoutError`` and ``StepCancelledError``; it is still running then."""
        deadline: float | None = None
        while not self.ended:
            self._pump(_SLICE)
            if stop and stop.is_set() and not self.ended:
                raise StepCancelledError(f"{self.who} was stopped, because its run was cancelled.")
            if timeout is None or self.pid is None:
                continue
            deadline = deadline or time.monotonic() + timeout
            if time.monotonic() >= deadline and not self.ended:
                raise StepTimeoutError(f"{self.who} ran longer than its timeout of {timeout:g} s and was stopped.")
        self._drain()

    def wait_for_end(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self.ended and time.monotonic() < deadline:
            self._pump(_SLICE)
        self._drain()
        return self.ended

    def answer(self) -> dict[str, Any]:
        """Raises ``StepCrashedError`` when it died without one."""
        try:
            answer: dict[str, Any] = json.loads(self._answer)
        except ValueError as error:
            crash = StepCrashedError(self._how_it_died())
            crash.exit_code = self.exit_code
            raise crash from error
        return answer

    def kill_group(self) -> None:
        if self.pid and not self.ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def close_their_ends(self) -> None:
        for number in self.their_ends:
            os.close(number)
        self.their_ends = []

    def close(self) -> None:
        self.close_their_ends()
        for number in self._sinks:
            os.close(number)
        self._sinks = {}

    def _pump(self, seconds: float) -> None:
        for number, _ in self._poll.poll(seconds * 1000):
            self._read(number)

    def _drain(self) -> None:
        """What was written before the end is in the pipes already."""
        for number in self._sinks:
            while self._read(number):
                pass
        for lines in self._lines:
            lines.end()

    def _read(self, number: int) -> bool:
        try:
            data = os.read(number, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            with suppress(KeyError):
                self._poll.unregister(number)
            if self._sinks[number] == self._read_status and not self.ended:
                self.kill_group()  # the warm process died, and cannot do it any more
                self.ended = True
            return False
        self._sinks[number](data)
        return True

    def _read_status(self, data: bytes) -> None:
        self._status += data
        for line in bytes(self._status).splitlines():
            word, _, number = line.partition(b" ")
            if word == b"pid":
                self.pid = int(number)
            else:
                self.exit_code, self.ended = int(number), True

    def _how_it_died(self) -> str:
        if self.exit_code is None:
            words = self.server.last_words()
            return f"The process that loads the code of {self.who} died" + (f":\n{words}" if words else ".")
        if self.exit_code < 0:
            return f"The process of {self.who} was killed by signal {-self.exit_code} ({_signal_name(-self.exit_code)})."
        return f"The process of {self.who} ended with exit code {self.exit_code} before the step had returned."


class _Lines:
    """Bytes in, whole lines out."""

    def __init__(self, stream: str, on_line: OnLine) -> None:
        self._stream = stream
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._give(line)
        if len(self._rest) > _LONGEST_LINE:
            self.end()

    def end(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, b""
            self._give(rest)

    def _give(self, line: bytes) -> None:
        self._on_line(self._stream, line.decode("utf-8", "replace").removesuffix("\r"))


def _raised(step: str, failure: Mapping[str, Any]) -> StepError:
    if failure["kind"] == "output":
        error: StepError = OutputError(failure["message"])
    else:
        error = StepFailedError(failure["message"])
        error.names = tuple(failure["names"])
        error.traceback = failure["traceback"]
    error.step = step
    return error


def _print(stream: str, line: str) -> None:
    print(line, file=sys.stdout if stream == "stdout" else sys.stderr)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
