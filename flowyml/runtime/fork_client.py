"""The client of the warm process that forks for each step; ``flowyml.runtime.fork_server`` is the server."""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from flowyml.core.errors import StepCrashedError, StepError
from flowyml.core.forks import flush_output, fork
from flowyml.core.process_identity import ProcessIdentity, identity_of, this_process
from flowyml.plan.secrets import environment_without_secrets
from flowyml.runtime.lines import Lines, OnLine
from flowyml.runtime.process_tree import kill_tree
from flowyml.runtime.step_errors import OutOfMemory, cancelled, crashed, loaded_too_long, timed_out
from flowyml.runtime.unpacking import unpack_bundle

__all__ = ["Server", "ForkedProcesses", "start_ahead"]

_SLICE = 0.05  # seconds between checks of the clock, of `stop`, and for exceptions that are raised in this thread
_GLANCE = 0.002  # seconds between checks whether a fork has ended
_HANGING_UP = 1  # seconds in which a process that was killed closes all of its files
_PATIENCE = 10  # seconds that a killed process is waited for
_LOADING = 60  # seconds for loading the code, for a step whose timeout is shorter
_SMALL = 32768  # bytes of a request that travel in its datagram
_LAST_WORDS = 8000  # bytes
_START = Path(__file__).with_name("fork_main.py")


class ForkedProcesses:
    """Starts the warm process at once, unless one was started ahead, and again if it has died.

    With ``host_packages`` it is a fork of this process, not one of ``python``.
    """

    def __init__(
        self,
        bundle: Path,
        config: Mapping[str, Any],
        *,
        python: str,
        ahead: Server | None = None,
        host_packages: Collection[str] | None = None,
    ) -> None:
        self._start = partial(_start_server, bundle, config, python, host_packages)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._server = self._start(ahead)
        self._held: dict[str, _Child] = {}
        self._closed = False

    @contextmanager
    def child(self, subject: str, request: Mapping[str, Any], body: Any, on_line: OnLine) -> Iterator[_Child]:
        """Fork a child for a request, or use the child that is held for steps ``together`` with this one."""
        together = request.get("together", "")
        child = self._held.pop(together, None) if together else None
        if child is None:
            request = {**request, "number": next(self._numbers)}
            child = _Child(subject, self._live_server(subject), request, body, on_line)
        else:
            child.take(subject, request, body, on_line)
        try:
            yield child
        finally:
            if child.is_idle and not self._closed:
                self._held[together] = child
            else:
                child.close()

    def release(self, together: str) -> None:
        """Let a held child end, if there is one."""
        child = self._held.pop(together, None)
        if child is not None:
            child.release()

    def close(self) -> None:
        """End the warm process and all of its children."""
        with self._lock:
            self._closed = True
        self._server.close()
        while self._held:
            self._held.popitem()[1].close()

    def _live_server(self, subject: str) -> Server:
        with self._lock:
            if self._closed:
                raise cancelled(subject)
            if not self._server.is_alive():
                self._server.died = True  # so its other children crashed, and were not cancelled
                self._server.close()
                self._server = self._start()
            return self._server


def start_ahead(python: str) -> Server | None:
    """Start a warm process while its bundle is still being written; None if it can only start later."""
    try:
        return Server(partial(_start_interpreter, python, _START)) if _START.is_file() else None
    except OSError:
        return None


def _start_server(
    bundle: Path,
    config: Mapping[str, Any],
    python: str,
    host_packages: Collection[str] | None,
    server: Server | None = None,
) -> Server:
    folder = unpack_bundle(bundle)
    if server is None:
        if host_packages is None:
            server = Server(partial(_start_interpreter, python, folder / "flowyml" / "runtime" / "fork_main.py"))
        else:
            server = Server(partial(_Fork, host_packages))
    server.load(folder, config)
    return server


class _Ends(NamedTuple):
    """The sockets and the file between the warm process and this one: a pair for requests and one for readiness."""

    theirs: tuple[socket.socket, socket.socket]
    ours: tuple[socket.socket, socket.socket]
    output: IO[bytes]


class _Process(Protocol):
    """The methods of ``subprocess.Popen`` that are used."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


def _start_interpreter(python: str, script: Path, ends: _Ends) -> _Process:
    numbers = [end.fileno() for end in ends.theirs]
    return subprocess.Popen(
        [python, str(script), *map(str, numbers)],
        stdin=subprocess.DEVNULL, stdout=ends.output, stderr=ends.output, pass_fds=numbers, start_new_session=True,
        env=environment_without_secrets(),
    )  # fmt: skip


class _Fork:
    """The warm process as a fork of this one."""

    def __init__(self, host_packages: Collection[str], ends: _Ends) -> None:
        from flowyml.runtime.fork_server import serve_from_fork

        self._code: int | None = None
        self._lock = threading.Lock()
        flush_output()  # else both would write the content of the buffers
        self.pid = fork()
        if self.pid == 0:
            for end in ends.ours:
                end.close()
            control, ready = ends.theirs
            serve_from_fork(control.detach(), ready.detach(), ends.output.fileno(), host_packages)

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        with self._lock:
            if self._code is None:
                try:
                    ended, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # reaped elsewhere, or SIGCHLD is ignored; Popen returns 0 too
                    self._code = 0
                else:
                    self._code = os.waitstatus_to_exitcode(status) if ended else None
            return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code. Raises ``subprocess.TimeoutExpired``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            time.sleep(_GLANCE)
        return code


class Server:
    """The warm process. Its own output goes to a file, to be read if it dies."""

    def __init__(self, start: Callable[[_Ends], _Process]) -> None:
        self.out_of_memory = OutOfMemory()
        self.closed = False
        self.died = False
        self._lock = threading.Lock()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready, their_ready = socket.socketpair()
        try:
            with theirs, their_ready:
                self._process = start(_Ends((theirs, their_ready), (self._control, self._ready), self._output))
                self._identity = identity_of(self._process.pid)
        except OSError:
            self._close_files()
            raise

    def load(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Have it load the code of an unpacked bundle."""
        self._send(os.fsencode(folder), ())
        self.send({"kind": "start"}, dict(config))

    def is_alive(self) -> bool:
        return not self.died and self._process.poll() is None

    def is_ready(self, seconds: float = 0) -> bool:
        """Return whether it has loaded the code, or died; waits for at most this many seconds."""
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)  # its byte is never read, so that every caller sees it
        return self.closed or bool(poll.poll(seconds * 1000))

    def send(self, request: Mapping[str, Any], body: Any = None, files: Sequence[int] = ()) -> None:
        """Send one datagram, so that an exception in this thread leaves no half request behind."""
        data = json.dumps({**request, "body": body}).encode()
        if len(data) <= _SMALL:
            self._send(data, files)
            return
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            self._send(json.dumps({"in_file": True}).encode(), [*files, file.fileno()])

    def close(self) -> None:
        """End it; it ends its children. If it does not, it is killed, which kills them too.

        While it loads the user's code it has no children, so it is killed at once.
        """
        with self._lock:
            patience = _PATIENCE if not self.closed and self.is_ready() else 0
            self.closed = True
            with suppress(OSError):  # closed before
                self._control.shutdown(socket.SHUT_RDWR)  # a process that a step has forked here may have a copy
            self._control.close()
        self.ends(patience)
        try:
            self._process.wait(1 if patience else 0)
        except subprocess.TimeoutExpired:
            kill_tree(self._identity)
            self._process.wait()
        self._close_files()

    def last_words(self) -> str:
        """Return its output when it died."""
        with suppress(ValueError):  # closed meanwhile
            self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - _LAST_WORDS))
            return self._output.read(_LAST_WORDS).decode(errors="replace").strip()
        return ""

    def ends(self, seconds: float) -> bool:
        """Return whether it ends within some seconds, which closes its files. ``Popen.wait`` would poll."""
        poll = select.poll()
        try:
            poll.register(self._ready, 0)
        except ValueError:  # closed before
            return True
        return bool(poll.poll(seconds * 1000))

    def _close_files(self) -> None:
        for file in (self._control, self._ready, self._output):
            file.close()

    def _send(self, data: bytes, files: Sequence[int]) -> None:
        with self._lock, suppress(OSError):  # it is gone, as its children's pipes show
            socket.send_fds(self._control, [data], files)


class _Child:
    """One forked process: its output, its answer, and its end."""

    def __init__(self, subject: str, server: Server, request: Mapping[str, Any], body: Any, on_line: OnLine) -> None:
        self.hooks = 0
        self._subject = subject
        self._server = server
        self._request, self._body = request, body
        self._started = False
        self._process: ProcessIdentity | None = None
        self._end: int | StepError | None = None
        self._answer, self._status = bytearray(), bytearray()
        self._lines = [Lines(stream, on_line) for stream in ("stdout", "stderr")]
        self._sinks: dict[int, Callable[[bytes], None]] = {}
        self._poll = select.poll()
        self._more: int | None = None
        self.is_idle = False

    def _start(self) -> None:
        """Request a fork, with the far ends of four pipes, and of one for further requests if it is to hold."""
        theirs: list[int] = []
        try:
            for sink in (*(lines.feed for lines in self._lines), self._answer.extend, self._read_status):
                ours, far = os.pipe()
                theirs.append(far)
                self._sinks[ours] = sink
                os.set_blocking(ours, False)
                self._poll.register(ours, select.POLLIN)
            if self._request.get("hold"):
                far, self._more = os.pipe()
                theirs.insert(-1, far)
            self._started = True
            self._server.send(self._request, self._body, theirs)
        finally:
            for number in theirs:
                os.close(number)

    def wait(self, timeout: float | None, stop: threading.Event | None) -> dict[str, Any]:
        """Wait for its answer. If this raises, it is still running."""
        if self._started:
            self._ask_again()
        else:
            self._wait_for_code(timeout, stop)
            self._start()
        deadline: float | None = None
        while not self._pump(_SLICE) and not self._holds():
            if stop and stop.is_set():
                raise cancelled(self._subject)
            if timeout is not None and self._process is not None:
                deadline = deadline or time.monotonic() + timeout
                if time.monotonic() >= deadline:
                    raise timed_out(self._subject, timeout)
        self._drain()
        self.is_idle = self._holds()
        return self._answered()

    def take(self, subject: str, request: Mapping[str, Any], body: Any, on_line: OnLine) -> None:
        """Give it another request; its output goes to the new ``on_line`` from now on."""
        self.is_idle = False
        self._subject, self._body = subject, body
        self._request = {**request, "number": self._request["number"]}
        self._answer.clear()
        self._lines = [Lines(stream, on_line) for stream in ("stdout", "stderr")]
        for number, lines in zip(self._sinks, self._lines, strict=False):
            self._sinks[number] = lines.feed

    def release(self) -> None:
        """Let it end as the process of a step does, and wait for that."""
        self._close_more()
        deadline = time.monotonic() + _PATIENCE + 1
        while not self._pump(_SLICE) and time.monotonic() < deadline:
            pass
        self.kill()
        self._drain()
        self.close()

    def _ask_again(self) -> None:
        assert self._more is not None
        data = memoryview(json.dumps({**self._request, "body": self._body}).encode() + b"\n")
        with suppress(OSError):  # it has died, as its end shows
            while data:
                data = data[os.write(self._more, data) :]

    def _holds(self) -> bool:
        """Return whether it has answered and waits for further requests."""
        return self._end is None and bool(self._request.get("hold")) and self._answer.endswith(b"\n")

    def _close_more(self) -> None:
        if self._more is not None:
            os.close(self._more)
            self._more = None

    def _wait_for_code(self, timeout: float | None, stop: threading.Event | None) -> None:
        """Wait until the code is loaded, when the clock of a step starts. Loading has a limit of its own.

        It allows for large libraries. Without a timeout of the step, loading has none either.
        """
        allowed = None if timeout is None else max(timeout, _LOADING)
        began = time.monotonic()
        while not self._server.is_ready(_SLICE):
            if stop and stop.is_set():
                raise cancelled(self._subject)
            if allowed is not None and time.monotonic() - began >= allowed:
                raise loaded_too_long(self._subject, allowed)

    def kill(self) -> None:
        """Kill it with all processes that it started, and wait until it is gone."""
        if self._end is not None or not self._started:
            return
        self._server.send({"kind": "kill", "number": self._request["number"]})
        deadline = time.monotonic() + _PATIENCE
        while not self._pump(_SLICE):
            if time.monotonic() >= deadline:
                self._server.close()
        self._drain()

    def mute(self) -> None:
        """Drop its output from now on."""
        for lines in self._lines:
            lines.mute()

    def close(self) -> None:
        self._close_more()
        for number in self._sinks:
            os.close(number)
        self._sinks = {}

    def _pump(self, seconds: float) -> bool:
        """Read for some seconds; return True if it has ended."""
        for number, _ in self._poll.poll(seconds * 1000):
            self._read(number)
        return self._end is not None

    def _drain(self) -> None:
        """Read the rest of the pipes: everything that was written before the end is in them."""
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
        if data:
            self._sinks[number](data)
            return True
        with suppress(KeyError):
            self._poll.unregister(number)
        if self._sinks[number] == self._read_status and self._end is None:
            self._server_died()
        return False

    def _read_status(self, data: bytes) -> None:
        """Read lines: ``pid 123 1 BORN`` with the number of hooks, then ``exit 0``; or ``failed`` and the reason."""
        self._status += data
        *lines, rest = bytes(self._status).split(b"\n")
        self._status = bytearray(rest)
        for line in lines:
            word, _, details = line.decode(errors="replace").partition(" ")
            if word == "pid":
                pid, hooks, born = details.split(" ", 2)
                self._process, self.hooks = ProcessIdentity(this_process().host, int(pid), born), int(hooks)
            elif word == "exit":
                self._end = int(details)
            else:
                self._end = StepCrashedError(f"The process of {self._subject} could not be started: {details}.")

    def _server_died(self) -> None:
        """Note that the server died, and the child with it; kill the child's group for processes that it started.

        The files of a killed process close before ``wait`` reports its end, so this is recorded.
        """
        is_over = self._server.closed and not self._server.died  # it was closed, as when its run ends
        if not is_over and self._server.ends(_HANGING_UP):
            self._server.died = True
        if self._process:
            kill_tree(self._process)
        if is_over:
            self._end = cancelled(self._subject)
        elif self._process:
            self._end = StepCrashedError(f"The process that {self._subject} was forked from died.")
        else:
            message = f"The process that loads the code for {self._subject} died:\n{self._server.last_words()}"
            self._end = StepCrashedError(message.rstrip("\n:"))

    def _answered(self) -> dict[str, Any]:
        if isinstance(self._end, StepError):
            raise self._end
        try:
            answer: dict[str, Any] = json.loads(self._answer)
        except ValueError:
            assert self._end is not None  # a process on hold has answered
            raise crashed(self._subject, self._end, self._server.out_of_memory) from None
        return answer
