"""The warm process: it loads the user's code once, stays single-threaded, and forks one child for each step.

It takes requests over a socket, one datagram each, with the file descriptors that the child shall write to. It ends,
and everything that it started with it, when that socket closes: no step outlives the process that asked for it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from flowyml.runtime.hooks import fire_plain
from flowyml.runtime.worker import Worker

__all__ = ["serve"]

DATAGRAM = 32768
FILES = 5  # stdout, stderr, answer, status, and the request's body where it is long
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class _Child:
    id: int
    pid: int
    status: int  # the file descriptor on which its end is told


def serve(folder: Path, control: int) -> int:
    """Serve requests until the other side is gone."""
    server = _Server(folder, socket.socket(fileno=control))
    try:
        server.run()
    finally:
        server.end_all()
    return 0


class _Server:
    def __init__(self, folder: Path, control: socket.socket) -> None:
        self.folder = folder
        self.control = control
        self.parent = os.getppid()
        self.children: dict[int, _Child] = {}
        self.unread_output = True
        control.set_inheritable(False)

    def run(self) -> None:
        first = self._receive()
        if first is None:
            return
        request, _ = first
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _write_lines()
        self.worker = Worker(self.folder, **request["body"])
        self.worker.preload()
        self._get_ready()
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        while os.getppid() == self.parent:
            ready = {number for number, _ in poll.poll(1000)}
            if self.wakeup in ready:
                os.read(self.wakeup, 4096)
            self._reap()
            if self.control.fileno() in ready and not self._handle():
                return

    def _get_ready(self) -> None:
        """Nothing of the loaded code is copied when a child collects garbage; the death of a child wakes us."""
        faulthandler.enable()
        gc.collect()
        gc.freeze()
        self.wakeup, wake = os.pipe()
        os.set_blocking(wake, False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        data, files, _, _ = socket.recv_fds(self.control, DATAGRAM, FILES, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        request = json.loads(data)
        if len(files) == FILES:
            with open(files.pop(), "rb") as body:
                request["body"] = json.loads(body.read())
        return request, files

    def _handle(self) -> bool:
        received = self._receive()
        if received is None:
            return False
        request, files = received
        if request["kind"] == "kill":
            self._kill(request["id"])
        else:
            self._start(request, files)
        return True

    def _start(self, request: Mapping[str, Any], files: list[int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of BLAS libraries, which know how to fork
            pid = os.fork()
        if pid == 0:
            self._be_child(request, files)
        for number in files[:3]:
            os.close(number)
        self.unread_output = False
        self.children[pid] = _Child(request["id"], pid, files[3])
        _tell(files[3], f"pid {pid}\n")

    def _be_child(self, request: Mapping[str, Any], files: list[int]) -> NoReturn:
        code = 70
        try:
            self._detach(files)
            answer = files[2]
            code = _Task(self.worker, request, lambda data: _write_all(answer, data)).run()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _detach(self, files: list[int]) -> None:
        """Become a process group of one's own that dies with the server and holds nothing of it."""
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        replay = os.pread(1, 1 << 20, 0) if self.unread_output else b""
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        for number in (files[0], files[1], files[3], self.wakeup, self._wake, *(c.status for c in self.children.values())):
            os.close(number)
        self.control.close()
        _write_all(1, replay)

    def _reap(self) -> None:
        """Tell the ends of children. What they left running in their group ends with them."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            child = self.children.pop(ended.si_pid, None)
            if child:
                _kill_group(child.pid)
            _, status = os.waitpid(ended.si_pid, 0)
            if child:
                _tell(child.status, f"exit {os.waitstatus_to_exitcode(status)}\n")
                os.close(child.status)

    def _kill(self, number: int) -> None:
        for child in self.children.values():
            if child.id == number:
                for pid in (*_descendants(child.pid), child.pid):
                    _kill_group(pid)
                    _kill_one(pid)

    def end_all(self) -> None:
        """Kill all children and whatever they started, orphans included."""
        for child in self.children.values():
            _kill_group(child.pid)
        while left := _descendants(os.getpid()):
            for pid in left:
                _kill_one(pid)
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a child does."""

    worker: Worker
    request: Mapping[str, Any]
    tell: Callable[[bytes], None]

    def run(self) -> int:
        body = self.request["body"]
        if self.request["kind"] == "hook":
            fire_plain(self.worker.hooks, self.request["event"], body)
            answer: dict[str, Any] = {"outputs": {}}
        else:
            step = self.worker.plan.by_name[self.request["step"]]
            answer = self.worker.answer(step, body, self.request["attempt"])
        self.tell(json.dumps(answer).encode())
        sys.stdout.flush()
        sys.stderr.flush()
        return 0


def _write_lines() -> None:
    """Let every line out at once, whatever it holds; before user code keeps the streams for itself."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = tuple(
        open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False) for number in (1, 2)
    )


def _descendants(pid: int) -> list[int]:
    """Children of children, the deepest first; empty where there is no /proc."""
    found: list[int] = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [*_descendants(int(child)), int(child)]
    return found


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _kill_one(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _tell(number: int, line: str) -> None:
    with suppress(BrokenPipeError):
        os.write(number, line.encode())


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the closing socket ends what can be ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
