"""A new process for each step, without fork."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from flowyml.core.process_identity import identity_of, signal_process
from flowyml.plan.codec import decode
from flowyml.plan.secrets import environment_without_secrets
from flowyml.runtime.lines import Lines, OnLine
from flowyml.runtime.process_tree import descendants, kill_all, kill_tree
from flowyml.runtime.shutdown import GRACE
from flowyml.runtime.step_errors import OutOfMemory, cancelled, crashed, timed_out
from flowyml.runtime.unpacking import unpack_bundle

__all__ = ["Child", "SpawnedProcesses", "as_input"]

_SLICE = 0.05  # seconds between checks of the clock, and of the causes that end a step
_PATIENCE = 10  # seconds to wait for a killed process


class SpawnedProcesses:
    """Starts one process for each request, and holds none."""

    def __init__(self, python: str, bundle: Path, config: Mapping[str, Any]) -> None:
        self._command = [python, "-u", str(bundle), "answer"]
        self._config = config
        self._hooks = len(decode((unpack_bundle(bundle) / "plan.json").read_bytes()).hooks)
        self._running: set[Child] = set()
        self._closed = False

    @contextmanager
    def child(self, subject: str, request: Mapping[str, Any], body: Any, on_line: OnLine) -> Iterator[Child]:
        with tempfile.TemporaryDirectory(prefix="flowyml-") as folder:
            child = Child(subject, self._command, self._whole(request, body, folder), on_line, self._hooks)
            with self._watched(child):
                try:
                    yield child
                finally:
                    child.kill()

    @contextmanager
    def _watched(self, child: Child) -> Iterator[None]:
        """Let ``close`` end a request while it is running."""
        self._running.add(child)
        if self._closed:
            child.unwanted.set()
        try:
            yield
        finally:
            child.gone.set()
            self._running.discard(child)

    def release(self, together: str) -> None:
        """Do nothing: this class holds no process."""

    def close(self) -> None:
        """Have the threads that wait for running processes kill them."""
        self._closed = True
        running = list(self._running)
        for child in running:
            child.unwanted.set()
        for child in running:
            child.gone.wait(_PATIENCE)

    def _whole(self, request: Mapping[str, Any], body: Any, folder: str) -> dict[str, Any]:
        """Return the request as ``spawn_child`` reads it, with the path of its answer."""
        return {**request, "body": body, "run": self._config, "answer": f"{folder}/answer.json"}


class Child:
    """One process, whose streams are read by two threads."""

    def __init__(
        self, subject: str, command: Sequence[str], request: Mapping[str, Any], on_line: OnLine, hooks: int,
        passed: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.hooks = hooks
        self.unwanted, self.gone = threading.Event(), threading.Event()
        self._subject = subject
        self._answer = Path(request["answer"])
        self._out_of_memory = OutOfMemory()
        self._started = time.monotonic()
        with _life_line() as (ours, theirs), as_input({**request, "life": theirs}) as stdin:
            self._life: int | None = ours
            self._process = subprocess.Popen(
                command, pass_fds=(theirs, *passed), stdin=stdin, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True, env=environment_without_secrets(),
            )  # fmt: skip
        self.identity = identity_of(self._process.pid)
        assert self._process.stdout
        assert self._process.stderr
        self._listen([self._process.stdout, self._process.stderr], on_line)

    def _listen(self, files: Sequence[IO[bytes]], on_line: OnLine) -> None:
        """Read its output, with a thread for each stream."""
        streams = ("stdout", "stderr")
        self._lines = {stream: Lines(stream, on_line) for stream in streams}
        self._pieces: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, file, self._pieces), daemon=True)
            for stream, file in zip(streams, files, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    def wait(self, timeout: float | None, stop: threading.Event | None) -> dict[str, Any]:
        """Wait for its answer. If this raises, it is still running."""
        while not self._has_ended():
            self._pump(_SLICE)
            if self.unwanted.is_set() or (stop and stop.is_set()):
                raise cancelled(self._subject)
            if timeout is not None and time.monotonic() - self._started >= timeout:
                raise timed_out(self._subject, timeout)
        self._drain()
        try:
            answer: dict[str, Any] = json.loads(self._answer.read_bytes())
        except (OSError, ValueError):
            raise crashed(self._subject, self._process.returncode, self._out_of_memory) from None
        return answer

    def kill(self) -> None:
        """Ask it to stop, kill it some seconds later with all of its descendants, and wait until it is gone."""
        if self._process.returncode is None:
            self._ask()
        if self._process.returncode is None:
            kill_tree(self.identity)
            self._process.wait()
        if self._life is not None:
            os.close(self._life)
            self._life = None
        self._drain()

    def _ask(self) -> None:
        family, deadline = descendants(self._process.pid), time.monotonic() + GRACE
        if not signal_process(self.identity, signal.SIGTERM):
            return
        while time.monotonic() < deadline and not self._has_ended():
            self._pump(_SLICE)
        kill_all(family)

    def mute(self) -> None:
        """Drop its output from now on."""
        for lines in self._lines.values():
            lines.mute()

    def _has_ended(self) -> bool:
        return self._has_died()

    def _has_died(self) -> bool:
        """Return whether it has died; if so, kill the processes that it left, while its id is still its own."""
        if hasattr(os, "waitid") and self._process.returncode is None:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended:
                kill_tree(self.identity)
        return self._process.poll() is not None

    def _pump(self, seconds: float) -> bool:
        try:
            stream, data = self._pieces.get(timeout=seconds)
        except queue.Empty:
            return False
        self._lines[stream].feed(data) if data else self._lines[stream].end()
        return True

    def _drain(self) -> None:
        """Wait for the end of the streams, unless a process that left the group still has them."""
        deadline = time.monotonic() + 1
        while self._readers:
            self._readers.pop().join(max(0, deadline - time.monotonic()))
        while self._pump(0):
            pass

    @staticmethod
    def _read(stream: str, file: IO[bytes], pieces: queue.SimpleQueue[tuple[str, bytes]]) -> None:
        with file:
            while data := os.read(file.fileno(), 1 << 16):
                pieces.put((stream, data))
        pieces.put((stream, b""))


@contextmanager
def _life_line() -> Iterator[tuple[int, int]]:
    """Yield the ends of a pipe, ours first: it closes when this process dies, and the child watches the other."""
    theirs, ours = os.pipe()
    try:
        yield ours, theirs
    except BaseException:  # there is no child
        os.close(ours)
        raise
    finally:
        os.close(theirs)


@contextmanager
def as_input(value: Any) -> Iterator[IO[bytes]]:
    """Provide JSON as the standard input of a process: in an unnamed file, which no crash leaves behind.

    So it may hold secrets, or the URL of a store with a credential.
    """
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(value).encode())
        file.seek(0)
        yield file
