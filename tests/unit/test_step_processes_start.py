"""Steps in processes of their own: what the warm process imports, keeps and leaves when it starts and ends."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml.runtime import fork_child, fork_main
from flowyml.runtime.processes import StepProcesses, starting_ahead

pytestmark = pytest.mark.processes

CODE = """
import atexit, gc, json, os, sys
from pathlib import Path
import elsewhere

atexit.register(Path("ended").touch)

def look():
    return [json.__file__, sys.argv[1:], sys.dont_write_bytecode, gc.isenabled()]

def parent():
    return os.getppid()

def imports():
    before = set(sys.modules)
    atexit.register(lambda: Path("imported").write_text(json.dumps(sorted(set(sys.modules) - before))))
"""


def bundled(folder: Path) -> Path:
    names = ("look", "parent", "imports")
    steps = [Step(name=name, function=f"code_of_starts:{name}", outputs=("x",)) for name in names]
    bundle = build(Plan(name="starts", steps=tuple(steps)), files={"code_of_starts.py": CODE.encode()})
    return bundle.write(folder / "bundle")


def look(folder: Path) -> list[object]:
    with StepProcesses(bundled(folder), run_id="run", artifacts=str(folder)) as processes:
        found: list[object] = processes.run("look", {})["x"]
        return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a library beside it."""
    for name in ("lib", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib" / "elsewhere.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("safe", ["", "1"])
def test_nothing_comes_from_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, safe: str) -> None:
    (folder / "here" / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    assert look(folder) == [sys.modules["json"].__file__, [], False, True]
    assert (folder / "here" / "ended").exists()  # by what the module registered for the end of its process


def test_the_process_of_a_step_imports_nothing_by_itself(folder: Path) -> None:
    with StepProcesses(bundled(folder), run_id="run", artifacts=str(folder)) as processes:
        processes.run("imports", {})
    assert json.loads((folder / "here" / "imported").read_text()) == []


def test_only_the_bundle_is_kept_compiled_where_python_shall_not_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert look(folder)[2] is True
    kept = {path.name.partition(".")[0] for path in folder.rglob("*.pyc")}
    assert {"fork_server", "pipeline", "code_of_starts"} <= kept
    assert "elsewhere" not in kept
    compiled = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pyc")}
    look(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pyc")} == compiled


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are steps forked")
def test_the_warm_process_may_be_started_before_there_is_a_bundle(folder: Path) -> None:
    before = set(psutil.Process().children())
    with starting_ahead() as started:
        [server] = set(psutil.Process().children()) - before
        with StepProcesses(bundled(folder), run_id="run", artifacts=str(folder), started=started) as processes:
            assert processes.run("parent", {}) == {"x": server.pid}
            server.kill()
            server.wait()
            assert processes.run("parent", {})["x"] != server.pid  # another one takes over
    with starting_ahead():
        pass
    assert set(psutil.Process().children()) <= before


def test_a_warm_process_whose_caller_is_gone_ends_before_it_has_a_bundle() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, fork_main.__file__, str(theirs.fileno()), "0"]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    ours.close()
    assert process.wait(2400) == 0


def test_streams_of_the_process_that_own_their_descriptors_cost_a_step_nothing(tmp_path: Path) -> None:
    """Airflow 3 gives a task such streams; one that is replaced closes its descriptor when nothing holds it."""
    one = Step(name="say", function="says:say", outputs=("x",))
    code = b"import sys\ndef say():\n    print('said')\n    print('warned', file=sys.stderr)\n    return 1\n"
    bundle = build(Plan(name="says", steps=(one,)), files={"says.py": code}).write(tmp_path)
    script = f"""
import io, os, sys
from pathlib import Path
from flowyml.runtime.processes import StepProcesses
for name, number in (("stdout", 1), ("stderr", 2)):
    setattr(sys, name, io.TextIOWrapper(os.fdopen(number, "wb"), line_buffering=True))
seen = []
with StepProcesses(Path({str(bundle)!r}), run_id="r", artifacts={str(tmp_path)!r}, fork_here=True) as processes:
    for _ in range(2):
        seen.append(processes.run("say", {{}}, on_line=lambda stream, line: seen.append((stream, line))))
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    printed = [("stdout", "said"), ("stderr", "warned")]
    assert sorted(ast.literal_eval(done.stdout), key=str) == sorted(
        [*printed, {"x": 1}, *printed, {"x": 1}], key=str
    ), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are steps forked")
@pytest.mark.parametrize(("host_packages", "found"), [((), "of the user"), (("enginekit",), "of the engine")])
def test_a_module_of_the_user_replaces_one_of_this_process_except_what_the_adapter_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_packages: tuple[str, ...], found: str
) -> None:
    kit = ModuleType("enginekit")
    kit.WHOSE = "of the engine"  # type: ignore[attr-defined]  # a package of the test
    monkeypatch.setitem(sys.modules, "enginekit", kit)
    code = b"import enginekit\ndef ask(): return enginekit.WHOSE\n"
    files = {"enginekit.py": b"WHOSE = 'of the user'", "asks.py": code}
    one = Step(name="ask", function="asks:ask", outputs=("x",))
    bundle = build(Plan(name="asks", steps=(one,)), files=files).write(tmp_path)
    with StepProcesses(
        bundle, run_id="r", artifacts=str(tmp_path), fork_here=True, host_packages=host_packages
    ) as processes:
        assert processes.run("ask", {}) == {"x": found}


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are steps forked")
def test_a_fork_has_no_handlers_of_its_parent(tmp_path: Path) -> None:
    """Neither of logging, which would write past the process that masks secrets, nor of crashes: Airflow 3 has both."""
    code = b"""
import ctypes, logging, warnings
def say():
    logging.getLogger("engine").warning("logged by its logger")
    logging.getLogger("other").warning("logged")
    warnings.warn("warned")
def crash():
    ctypes.string_at(0)
"""
    steps = tuple(Step(name=name, function=f"says:{name}") for name in ("say", "crash"))
    bundle = build(Plan(name="says", steps=steps), files={"says.py": code}).write(tmp_path)
    script = f"""
import logging, signal, warnings
from pathlib import Path
from flowyml.core.errors import StepCrashedError
from flowyml.runtime.processes import StepProcesses
signal.signal(signal.SIGSEGV, lambda *_: None)
logging.basicConfig(filename="parent.log")
logging.getLogger("engine").addHandler(logging.FileHandler("parent.log"))
logging.getLogger("engine").propagate = False
warnings.showwarning = lambda message, *_, **__: open("parent.log", "a").write(str(message))
seen = []
with StepProcesses(Path({str(bundle)!r}), run_id="r", artifacts={str(tmp_path)!r}, fork_here=True) as processes:
    processes.run("say", {{}}, on_line=lambda stream, line: seen.append((stream, line)))
    try:
        processes.run("crash", {{}}, timeout=60)
    except StepCrashedError as error:
        seen.append(str(error))
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    logged, shown, warned, *_, crashed = ast.literal_eval(done.stdout)
    assert (tmp_path / "parent.log").read_text() == ""
    assert (logged, shown) == (("WARNING", "logged by its logger"), ("WARNING", "logged"))
    assert "UserWarning: warned" in warned[1]
    assert "was killed by signal 11 (SIGSEGV)" in crashed


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are steps forked")
def test_a_fork_whose_parent_died_before_it_could_ask_the_kernel_to_end_it_ends() -> None:
    child = os.fork()
    if child == 0:
        fork_child._die_with_parent(os.getpid())  # another process than its parent
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 70
