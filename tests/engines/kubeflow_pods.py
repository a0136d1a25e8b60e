"""Containers of compiled pipelines as processes of this machine, started within milliseconds.

What a container runs here is its own command, ``python3 -c PROGRAM …``: in a fork of a process that has imported the
launcher already, or where ``starts_python`` is set in a new Python, as in a pod. Steps are processes of their own in
both; those of a fork are forks of it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import reload
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

from flowyml.core.process_identity import identity_of
from flowyml.runtime.process_tree import kill_tree

__all__ = ["Pod", "Pods", "termination_log"]

Json = dict[str, Any]


class Pod:
    """One container."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._started = threading.Event()
        self._process: Any = None
        self._code = 1

    def wait(self) -> int:
        """Its exit code."""
        self._ended.wait()
        return self._code

    def kill(self) -> None:
        """Kill it with all that it started."""
        self._started.wait()
        if not self._ended.is_set():
            kill_tree(self._process)

    def has_started(self, pid: int) -> None:
        self._process = identity_of(pid)
        self._started.set()

    def has_ended(self, code: int) -> None:
        self._code = code
        self._started.set()
        self._ended.set()


class Pods:
    """Starts containers; use it as a context manager, which ends them all."""

    starts_python = False

    def __enter__(self) -> Self:
        self._pods: dict[int, Pod] = {}
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.engines.kubeflow_pods", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._control.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._reader.join()
        self._control.close()

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Pod:
        """A container, which prints into a file."""
        pod = Pod()
        request = {
            "command": list(command), "environment": {**os.environ, **environment}, "log": str(log), "pod": id(pod),
            "starts_python": self.starts_python,
        }  # fmt: skip
        written = log.with_suffix(".json")
        written.write_text(json.dumps(request))
        with self._lock:
            self._pods[id(pod)] = pod
        self._control.send(os.fsencode(written))
        return pod

    def _read(self) -> None:
        while told := self._control.recv(1 << 16):
            about = json.loads(told)
            if "pid" in about:
                self._pods[about["pod"]].has_started(about["pid"])
            else:
                with self._lock:
                    pod = self._pods.pop(about["pod"])
                pod.has_ended(about["code"])
        for pod in [*self._pods.values()]:
            pod.has_ended(-signal.SIGKILL)


def serve(number: int) -> None:
    """In the process that forks: start what is asked for, and tell of the ends, until the other side is gone."""
    control, running = socket.socket(fileno=number), dict[int, int]()
    _import_launcher()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _tell(control, pod=running.pop(ended[0]), code=os.waitstatus_to_exitcode(ended[1]))
        if control in ready:
            if not (asked := control.recv(1 << 16)):
                break
            request = json.loads(Path(os.fsdecode(asked)).read_text())
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for mine in (control.fileno(), woken, wake):
                    os.close(mine)
                _run(request)
            running[pid] = request["pod"]
            _tell(control, pod=request["pod"], pid=pid)
    for pid in running:
        kill_tree(identity_of(pid))


def termination_log(log: Path) -> Path:
    """The file of a container for which pods have /dev/termination-log."""
    return log.with_name("termination-log")


def _tell(control: socket.socket, **about: int) -> None:
    with suppress(BrokenPipeError):
        control.send(json.dumps(about).encode())


def _import_launcher() -> None:
    import gc

    from flowyml.artifacts import previews  # noqa: F401  # each fork would import them
    from flowyml.runtime import caching, fork_client, fork_server, shared  # noqa: F401  # the same
    from flowyml_kubeflow import attempts, pods, worker  # noqa: F401  # the same

    # The launcher starts a new Python for each step.
    attempts.SpawnedProcesses = shared.SharedProcesses = _Forked  # type: ignore[assignment, misc]
    worker.main = partial(_as_in_a_pod, worker.main)
    gc.freeze()


def _as_in_a_pod(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run the launcher where the user's modules import the bundle's packages: other names may stand for theirs."""
    for name in [*sys.modules]:
        if name.startswith(("flowyml.authoring", "flowyml.orchestrators")):  # which no launcher needs
            del sys.modules[name]
    for package in ("flowyml", "flowyml_kubeflow"):
        reload(sys.modules[package])
    return main(arguments)


class _Forked:
    """The processes of steps as forks of the container's, where a container starts a Python for each."""

    def __init__(self, python: str, bundle: Path, config: Mapping[str, Any]) -> None:
        from flowyml.runtime.fork_client import ForkedProcesses

        about = {name: config[name] for name in config if name not in ("run_id", "caller")}
        about["caller"] = {"no_pickles": False, **config["caller"]}
        self._processes = ForkedProcesses(
            bundle, {"run_id": config["run_id"], **about}, python=python, host_packages=("flowyml_kubeflow",)
        )  # fmt: skip
        self.release, self.close = self._processes.release, self._processes.close

    @contextmanager
    def child(self, who: str, request: Mapping[str, Any], body: Any, on_line: Any) -> Iterator[Any]:
        about = {**request, "index": list(request["index"])} if "index" in request else request
        with self._processes.child(who, about, body, on_line) as child:
            child.identity = identity_of(os.getpid())  # type: ignore[attr-defined]  # which the launcher writes down
            try:
                yield child
            except BaseException:
                child.kill()
                raise


def _run(request: Json) -> NoReturn:
    """In the fork: be the container."""
    code = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.chdir(Path(request["log"]).parent)
        command = request["command"]
        if request["starts_python"] or command[:2] != ["python3", "-c"]:
            os.environ.clear()
            program = sys.executable if command[0] == "python3" else command[0]
            os.execvpe(program, [program, *command[1:]], request["environment"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.modules["flowyml_kubeflow.worker"].TERMINATION_LOG = termination_log(Path(request["log"]))  # type: ignore[attr-defined]
        termination_log(Path(request["log"])).touch()
        code = _main(command[2], command[3:])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _main(program: str, arguments: Sequence[str]) -> int:
    """Run a program as ``python3 -c`` does; gives the exit code."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
    sys.argv = ["-c", *arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    try:
        exec(compile(program, "<string>", "exec"), main.__dict__)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
            return 1
        return error.code or 0
    return 0


if __name__ == "__main__":
    serve(int(sys.argv[1]))
