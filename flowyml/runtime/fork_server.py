"""The warm process: it loads the user's code once, stays single-threaded, and forks one child for each step.

It takes requests over a socket, one datagram each, with the file descriptors for the child to write to. When that
socket closes, it ends with all of its children: no step outlives the process that requested it.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import flowyml.artifacts.previews  # noqa: F401  # else each child would import it for its outputs
from flowyml.core.forks import flush_output, fork
from flowyml.core.logs import forget_handlers
from flowyml.core.process_identity import ProcessIdentity, identity_of, signal_group, signal_process
from flowyml.plan.secrets import forget_secrets
from flowyml.runtime.fork_child import adopt_orphans, run_child, write_all
from flowyml.runtime.loading import import_from
from flowyml.runtime.process_tree import descendants, kill_all, kill_tree
from flowyml.runtime.seeds import Seeds
from flowyml.runtime.shutdown import GRACE, End
from flowyml.runtime.worker import Worker

__all__ = ["DATAGRAM", "main", "serve_from_fork"]

DATAGRAM = 65536  # most bytes of a request; a longer one is sent as a file
_FILES = 6  # stdout, stderr, answer, further requests, status, and the long request

_replaced: list[object] = []


class _Child(NamedTuple):
    """A running step, and the descriptor on which its end is reported."""

    number: int
    process: ProcessIdentity
    status: int


class _Stopping(NamedTuple):
    """A child that was asked to stop: when to kill it, and its descendants."""

    deadline: float
    family: list[ProcessIdentity]


def main() -> NoReturn:
    """Serve requests from a descriptor until its other side closes; write a byte to another one after loading."""
    _serve_to_the_end(Path(__file__).parents[2], int(sys.argv[1]), int(sys.argv[2]), own_input=True)


def serve_from_fork(control: int, ready: int, output: int, host_packages: Collection[str]) -> NoReturn:
    """Serve in a process that was forked from one whose state, including its standard input, the steps use.

    ``host_packages`` stay as that process has imported them, even if a user's module has such a name.
    """
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        _forget_the_parent()
        if not (received := os.fsdecode(os.read(control, 1 << 16))):  # one datagram
            os._exit(0)  # the parent has ended
        folder = Path(received)
        _use_unpacked(folder, {*host_packages, "__main__", "flowyml"})
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    _serve_to_the_end(folder, control, ready, own_input=False)


def _forget_the_parent() -> None:
    """Reset the signal handlers of the parent, and its logging.

    With a handler in Python, a process that crashes never ends: Airflow 3's importer of DAG files sets one for SIGSEGV.
    The parent's handlers of logging would write past the process that reads this one, which masks secrets.
    """
    signal.set_wakeup_fd(-1)
    always_reset = (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)  # which the parent may also ignore
    for number in signal.valid_signals():
        if number in always_reset or callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forget_handlers()


def _use_unpacked(folder: Path, kept: Collection[str]) -> None:
    """Use the bundle's modules, even if the parent has imported others of their names; compiled ones load faster."""
    import_from(folder)
    sys.modules["flowyml"].__path__.insert(0, str(folder / "flowyml"))
    ours = {path.stem for path in (folder / "code").glob("*.py")}
    ours |= {path.parent.name for path in (folder / "code").glob("*/__init__.py")}
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if top in ours and top not in sys.stdlib_module_names and top not in kept:
            del sys.modules[name]


def _serve_to_the_end(folder: Path, control: int, ready: int, *, own_input: bool) -> NoReturn:
    end = End()
    sys.argv[1:] = []  # they are not for the user's modules, which may parse arguments of their own
    code = 1
    try:
        _serve(folder, control, ready, own_input)
        code = 0
    except BaseException:
        traceback.print_exc()
    end.leave(code)


def _serve(folder: Path, control: int, ready: int, own_input: bool) -> None:
    for number in (control, ready):
        os.set_inheritable(number, False)
    server = _Server(folder, socket.socket(fileno=control), ready, own_input)
    try:
        server.run()
    finally:
        server.end_all()


class _Server:
    def __init__(self, folder: Path, control: socket.socket, ready: int, own_input: bool) -> None:
        self.folder = folder
        self.own_input = own_input
        self.control = control
        self.ready = ready
        self.pid = os.getpid()
        self.parent = os.getppid()
        self.children: dict[int, _Child] = {}
        self.stopping: dict[int, _Stopping] = {}
        self.woken, self.wake = os.pipe()
        self.early_output = b""
        self.seeds = Seeds()

    def run(self) -> None:
        """Load, then serve, until the socket closes or the parent is another process."""
        start = next(self._requests(), None)
        if start is None:
            return
        adopt_orphans()
        forget_secrets()
        _write_lines()
        self.worker = Worker(self.folder, **start[0]["body"], is_read=True)
        with self._ended_by_a_thread(), self.seeds.noticed():
            self.worker.preload()
        self._get_ready()
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        requests = self._requests()
        while os.getppid() == self.parent:
            ready = {number for number, _ in poll.poll(100 if self.stopping else 1000)}
            if self.woken in ready:
                os.read(self.woken, 4096)
            self._reap()
            self._kill_the_late()
            if self.control.fileno() in ready:
                request = next(requests, None)
                if request is None:
                    return
                self._handle(*request)

    def end_all(self) -> None:
        """Kill all children and whatever they started, orphans included."""
        for child in self.children.values():
            kill_tree(child.process)
        while running := descendants(os.getpid()):
            for process in running:
                signal_process(process, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)

    def _get_ready(self) -> None:
        """Freeze loaded objects, so that a child's garbage collection does not copy them; wake when a child dies."""
        flush_output()
        with suppress(OSError):  # no file: it is read as it comes
            self.early_output = os.pread(1, 1 << 20, 0)  # the first child prints it again, so that it is seen
        faulthandler.enable()
        gc.freeze()
        gc.enable()
        os.set_blocking(self.wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        write_all(self.ready, b"!")

    @contextmanager
    def _ended_by_a_thread(self) -> Iterator[None]:
        """Have a thread end this process if its parent dies while the user's code loads, which may take forever."""
        done, do = os.pipe()

        def watch() -> None:
            poll = select.poll()
            poll.register(self.control, 0)  # only whether the other end is closed, which is always reported
            poll.register(done, 0)
            while os.getppid() == self.parent:
                ready = {number for number, _ in poll.poll(1000)}
                if done in ready:
                    return
                if ready:
                    break
            self.end_all()
            os._exit(1)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            os.close(do)
            thread.join()
            os.close(done)

    def _requests(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        while True:
            data, files, _, _ = socket.recv_fds(self.control, DATAGRAM, _FILES, socket.MSG_CMSG_CLOEXEC)
            if not data:
                return
            request = json.loads(data)
            if request.get("in_file"):
                with os.fdopen(files.pop(), "rb") as whole:
                    request = json.loads(whole.read())
            yield request, files

    def _handle(self, request: Mapping[str, Any], files: list[int]) -> None:
        if request["kind"] != "kill":
            self._start(request, files)
            return
        for pid, child in self.children.items():
            if child.number == request["number"]:
                self.stopping[pid] = _Stopping(time.monotonic() + GRACE, descendants(pid))
                signal_process(child.process, signal.SIGTERM)

    def _kill_the_late(self) -> None:
        now = time.monotonic()
        for pid in [pid for pid, child in self.stopping.items() if now >= child.deadline and pid in self.children]:
            kill_tree(self.children[pid].process)

    def _start(self, request: Mapping[str, Any], files: list[int]) -> None:
        *streams, status = files
        flush_output()
        try:
            pid = fork()
        except OSError as error:
            self._report(status, f"failed {error}")
            os.close(status)
        else:
            if pid == 0:
                self._leave(status)
                run_child(
                    self.worker, request, streams,
                    parent=self.pid, seeds=self.seeds, early_output=self.early_output, own_input=self.own_input,
                )  # fmt: skip
            self.early_output = b""
            process = identity_of(pid)
            self.children[pid] = _Child(request["number"], process, status)
            self._report(status, f"pid {pid} {len(self.worker.hooks)} {process.born}")
        for number in streams:
            os.close(number)

    def _leave(self, status: int) -> None:
        """Close, in the child, the server's descriptors, so that the server's death is noticed."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.control.close()
        for number in (status, self.ready, self.woken, self.wake, *(child.status for child in self.children.values())):
            os.close(number)

    def _reap(self) -> None:
        """Report the ends of children. Kill the rest of a child's group while its id still belongs to it."""
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                child = self.children.pop(ended.si_pid, None)
                if child:
                    signal_group(child.process, signal.SIGKILL)
                if stopping := self.stopping.pop(ended.si_pid, None):
                    kill_all(stopping.family)
                _, status = os.waitpid(ended.si_pid, 0)
                if child:
                    self._report(child.status, f"exit {os.waitstatus_to_exitcode(status)}")
                    os.close(child.status)

    def _report(self, number: int, line: str) -> None:
        with suppress(BrokenPipeError):
            write_all(number, f"{line}\n".encode())


def _write_lines() -> None:
    """Write every line at once; called before user code stores references to the streams."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        _replaced.append(getattr(sys, name))  # Airflow's own would close the descriptor with the last reference
        stream = os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
