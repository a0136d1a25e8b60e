"""Steps in processes of their own, warm and fresh: what they give, how they fail, and that nothing outlives them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from flowyml.artifacts import open_store, pack, unpack
from flowyml.core.errors import (
    OutputError,
    StepCancelledError,
    StepCrashedError,
    StepFailedError,
    StepTimeoutError,
)
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.bundle import build
from flowyml.plan.model import Constant, FromParameter, FromStep, Input, Parameter, Plan, Step
from flowyml.runtime.processes import StepProcesses
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.processes

CODE = """
import contextlib, ctypes, io, logging, os, signal, subprocess, sys, threading, time, warnings
from pathlib import Path

print("loading", os.getpid())

def add(a, b=1, rows=0): return a + b + rows
def pid(): return os.getpid()
def meet(folder, number):
    Path(folder, str(number)).touch()
    while len(os.listdir(folder)) < 20: time.sleep(0.01)
    return number
def double(array): array *= 2; return array

def tidy(file, how):
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif how == "own handler":
        signal.signal(signal.SIGTERM, lambda *_: (Path(file).write_text("tidied up"), os._exit(0)))
    pool = __import__("multiprocessing").get_context("fork").Process(target=time.sleep, args=(600,))
    pool.start()
    try:
        Path(file + ".begun").touch()
        time.sleep(600)
    except Exception:
        Path(file).write_text("taken for an error of the step's own")
    finally:
        if how == "finally":
            print("tidying up")
            Path(file).write_text("tidied up")

def stuck(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)

def family(file, stay):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    own = []
    thread = threading.Thread(target=lambda: own.append(subprocess.Popen(sleep, start_new_session=True)))
    thread.start()
    thread.join()
    pids = [os.getpid(), subprocess.Popen(sleep).pid, own[0].pid]
    Path(file + ".new").write_text(" ".join(map(str, pids)))
    os.rename(file + ".new", file)
    if stay:
        time.sleep(600)
    return pids

def fail(): raise LookupError("not here")
def forget(): raise MemoryError
def leave(): sys.exit(3)
def crash(): ctypes.string_at(0)
def end(code): os._exit(code)
def killed(number): os.kill(os.getpid(), number)
def lock(): return threading.Lock()

def noise():
    print("printed")
    print("err", file=sys.stderr)
    os.write(1, b"written\\n")
    os.write(2, b"\\xff\\xfe raw\\n")
    subprocess.run(["echo", "from a child"], check=True)
    logging.getLogger("mine").warning("logged")
    warnings.warn("warned")
    for number in range(3, 64):
        try: os.write(number, b"garbage on every descriptor")
        except OSError: pass
    print("ü\\ud800")
    print("no line break", end="")
    return "quiet"

def in_turn():
    logger = logging.getLogger("mine")
    for number in range(500):
        print("printed", number)
        logger.warning("logged %d", number)
    print("no line break ", end="")
    logger.warning("logged in a line")
    with contextlib.redirect_stdout(io.StringIO()) as own:
        print("kept")
        logger.warning("not kept")
    assert own.getvalue() == "kept\\n"

def live(file):
    print("first")
    while not Path(file).exists(): time.sleep(0.01)
    print("second")

def chatty(lines):
    for number in range(lines): print(number, "x" * 90)

def big(): return ["x" * 100] * 100_000
def inline(): return ["y" * 60_000]
def at_exit():
    import atexit
    atexit.register(print, "flushed at exit")

def close(how):
    print("hello")
    if how == "closed": sys.stdout.close(); sys.stderr.close()
    elif how == "gone": sys.stdout = sys.stderr = None
    elif how == "those beneath": sys.__stdout__.close(); sys.__stderr__.close()
    elif how == "all descriptors": os.closerange(0, 1024)
    else: os.close(1); os.close(2)
    return how
"""


def step(name: str, *inputs: str, outputs: tuple[str, ...] = ("x",), module: str = "code_of_steps") -> Step:
    sources = tuple(Input(name, FromStep("source", name)) for name in inputs)
    return Step(name=name, function=f"{module}:{name}", inputs=sources, outputs=outputs)


PLAN = Plan(
    name="processes",
    parameters=(Parameter(name="rows", default=100),),
    steps=(
        *(Step(name=name, function="code_of_steps:pid") for name in ("s", "source")),  # which no test runs
        Step(
            name="add", function="code_of_steps:add", outputs=("x",),
            inputs=(Input("a", FromStep("s", "a")), Input("b", Constant(10)), Input("rows", FromParameter("rows"))),
        ),
        *map(step, ("pid", "fail", "forget", "leave", "crash", "lock", "noise", "big", "inline")),
        step("meet", "folder", "number"), step("double", "array"), step("end", "code"), step("killed", "number"),
        step("tidy", "file", "how", outputs=()),
        step("stuck", "file", outputs=()), step("live", "file", outputs=()), step("chatty", "lines", outputs=()),
        step("close", "how"), step("in_turn", outputs=()),
        step("at_exit", outputs=()), step("family", "file", "stay"),
        Step(name="broken", function="broken:f"), Step(name="leaves", function="leaves:f"),
    ),
)  # fmt: skip
FILES = {
    "code_of_steps.py": CODE.encode(),
    "broken.py": b"import flowyml_is_not_here\n",
    "leaves.py": b"import sys\nsys.exit(4)\n",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PLAN, files=FILES).write(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module", params=["warm", "fresh", "here"])
def processes(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StepProcesses]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWYML_FORK", "0" if request.param == "fresh" else "1")
        store = str(tmp_path_factory.mktemp("store"))
        here = request.param == "here"
        with StepProcesses(bundle, run_id="run", artifacts=store, parameters={"rows": 1000}, fork_here=here) as made:
            made.is_forked_here = here  # type: ignore[attr-defined]  # set by the test
            made.artifacts = store  # type: ignore[attr-defined]  # for tests that unpack
            yield made


@pytest.fixture
def own_state(processes: StepProcesses) -> StepProcesses:
    """Processes with logging, warnings and descriptors of their own, not pytest's."""
    if processes.is_forked_here:  # type: ignore[attr-defined]  # set by the test
        pytest.skip("a fork has those of this process, on purpose")
    return processes


@pytest.fixture(scope="module")
def warm(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepProcesses]:
    with StepProcesses(bundle, run_id="run", artifacts=str(tmp_path_factory.mktemp("store"))) as made:
        yield made


class Lines(list[tuple[str, str]]):
    def __call__(self, stream: str, line: str) -> None:
        if not line.startswith("loading "):
            self.append((stream, line))

    def of(self, stream: str) -> list[str]:
        return [line for name, line in self if name == stream]


def pids_in(file: Path) -> list[int]:
    wait_until(file.exists)
    return [int(pid) for pid in file.read_text().split()]


def test_inputs_constants_parameters_and_outputs(processes: StepProcesses) -> None:
    assert processes.run("add", {"a": 1}) == {"x": 1011}
    assert processes.run("add", {"a": 1, "b": 2, "rows": 3}) == {"x": 6}
    assert processes.run("add", {"a": "x" * 5_000_000, "b": "y", "rows": "z"})["x"]["$artifact"]["size"] == 5_000_002
    store = open_store(processes.artifacts)  # type: ignore[attr-defined]  # set by the test
    packed = pack(np.arange(5.0), store, key="in")
    doubled = processes.run("double", {"array": packed}, attempt=2)["x"]
    assert re.search(r"/by-hand/processes/run/double/2/x-[0-9a-f]{16}\.npy$", doubled["$artifact"]["url"])
    assert unpack(doubled, store).tolist() == [0, 2, 4, 6, 8]
    assert unpack(processes.run("big", {})["x"], store) == ["x" * 100] * 100_000
    assert processes.run("inline", {}) == {"x": ["y" * 60_000]}


FAILURES = {
    "fail": ("LookupError: not here", "LookupError"),
    "forget": ("MemoryError", "MemoryError"),
    "leave": ("step 'leave' called sys.exit(3). Let it return, or raise an error.", "StepError"),
    "broken": ("ModuleNotFoundError: No module named 'flowyml_is_not_here'", "ModuleNotFoundError"),
    "leaves": ("the module of step 'leaves' called sys.exit(4) when it was imported.", "StepError"),
}


def test_a_failed_step(processes: StepProcesses) -> None:
    for name, (message, kind) in FAILURES.items():
        with pytest.raises(StepFailedError) as caught:
            processes.run(name, {})
        error = caught.value
        assert str(error).startswith(message)
        assert (error.step, error.names[0]) == (name, kind)
        assert f"in {name}" in error.traceback or "in <module>" in error.traceback
        assert "flowyml/runtime" not in error.traceback.partition("direct cause")[0]
        out_of_memory = OrchestratorRetryPolicy(retryable_errors=["OOM"])
        assert out_of_memory.retries_on_names(error.names) is (name == "forget")


def test_an_output_that_cannot_be_passed_on(processes: StepProcesses) -> None:
    message = r"^step 'lock': output 'x' cannot be passed to other steps\. lock cannot be pickled: cannot pickle"
    with pytest.raises(OutputError, match=message) as caught:
        processes.run("lock", {})
    assert caught.value.step == "lock"


@pytest.mark.parametrize(
    ("name", "inputs", "message", "code"),
    [
        ("end", {"code": 3}, "exited with code 3 without returning the step's result.", 3),
        ("end", {"code": 0}, "exited with code 0 without returning the step's result.", 0),
        ("killed", {"number": 9}, "was killed by signal 9 (SIGKILL).", -9),
        ("crash", {}, "was killed by signal 11 (SIGSEGV).", -11),
    ],
)
def test_a_crashed_process(
    processes: StepProcesses, name: str, inputs: dict[str, int], message: str, code: int
) -> None:  # fmt: skip
    lines = Lines()
    with pytest.raises(StepCrashedError) as caught:
        processes.run(name, inputs, on_line=lines)
    assert str(caught.value) == f"The process of step {name!r} {message}"
    assert (type(caught.value), caught.value.step, caught.value.exit_code) == (StepCrashedError, name, code)
    assert any("in crash" in line for line in lines.of("stderr")) is (name == "crash")
    assert processes.run("add", {"a": 1}) == {"x": 1011}


def test_a_step_that_closes_its_streams(own_state: StepProcesses) -> None:
    for how in ("closed", "gone", "those beneath", "descriptors"):
        assert own_state.run("close", {"how": how}) == {"x": how}


def test_a_step_that_closes_the_pipe_of_its_answer(warm: StepProcesses) -> None:
    with pytest.raises(StepCrashedError) as caught:
        warm.run("close", {"how": "all descriptors"}, on_line=Lines())
    assert str(caught.value) == "The process of step 'close' exited with code 70 without returning the step's result."


def test_everything_that_is_printed_comes_through_and_only_that(
    own_state: StepProcesses, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = Lines()
    assert own_state.run("noise", {}, on_line=lines) == {"x": "quiet"}
    stdout = lines.of("stdout")
    assert stdout[:3] == ["printed", "written", "from a child"]
    assert stdout[-1] == "no line break"
    stderr = lines.of("stderr")
    assert stderr[:2] == ["err", "\ufffd\ufffd raw"]
    assert lines.of("WARNING") == ["logged"]
    assert "UserWarning: warned" in stderr[2]
    own_state.run("noise", {})  # nobody takes its lines
    assert "printed\n" in capfd.readouterr().out


def test_lines_come_while_the_step_runs(processes: StepProcesses, tmp_path: Path) -> None:
    seen = []

    def on_line(stream: str, line: str) -> None:
        seen.append(line)
        if line == "first":
            (tmp_path / "go").touch()

    processes.run("live", {"file": str(tmp_path / "go")}, on_line=on_line)
    assert seen[-2:] == ["first", "second"]


def test_prints_and_log_records_keep_their_order(processes: StepProcesses) -> None:
    """Also with a record in the middle of a line, and where a step collects what it prints."""
    lines = Lines()
    processes.run("in_turn", {}, on_line=lines)
    in_turn = [pair for n in range(500) for pair in (("stdout", f"printed {n}"), ("WARNING", f"logged {n}"))]
    assert lines[: len(in_turn)] == in_turn
    rest = [("stdout", "no line break "), ("WARNING", "logged in a line"), ("WARNING", "not kept")]
    assert lines[len(in_turn) :] == rest


def test_megabytes_of_lines(processes: StepProcesses) -> None:
    lines = Lines()
    processes.run("chatty", {"lines": 20_000}, on_line=lines)
    assert [line.split()[0] for line in lines.of("stdout")] == [str(number) for number in range(20_000)]


def test_what_a_step_registers_for_the_exit_happens(processes: StepProcesses) -> None:
    lines = Lines()
    processes.run("at_exit", {}, on_line=lines)
    assert lines == [("stdout", "flushed at exit")]


def test_a_timeout_kills_a_sleeping_step(processes: StepProcesses, tmp_path: Path) -> None:
    message = r"step 'stuck' ran longer than its timeout of 1 s and was stopped\."
    children = set(psutil.Process().children(recursive=True))
    with pytest.raises(StepTimeoutError, match=message) as caught:
        processes.run("stuck", {"file": str(tmp_path / "pid")}, timeout=1)
    assert caught.value.step == "stuck"
    left = set(psutil.Process().children(recursive=True)) - children
    assert not any(is_running(process.pid) for process in left)
    file = tmp_path / "pid"  # there is none where the step's process took 1 s to begin
    assert not file.exists() or not any(map(is_running, pids_in(file)))


def test_a_step_is_asked_to_stop_before_it_is_killed(processes: StepProcesses, tmp_path: Path) -> None:
    """It is timed by ``stop``: the process that loads the code may take longer than any timeout."""

    def stopped(how: str) -> tuple[str, list[str]]:
        file, stop, lines = tmp_path / how, threading.Event(), Lines()
        threading.Thread(target=lambda: (wait_until(Path(f"{file}.begun").exists), stop.set())).start()
        with pytest.raises(StepCancelledError, match="step 'tidy' was stopped"):
            processes.run("tidy", {"file": str(file), "how": how}, stop=stop, on_line=lines)
        return file.read_text() if file.exists() else "", lines.of("stdout")

    children = set(psutil.Process().children(recursive=True))
    with ThreadPoolExecutor() as threads:  # each waits for three seconds
        assert [*threads.map(stopped, ("finally", "own handler", "deaf"))] == [
            ("tidied up", ["tidying up"]), ("tidied up", []), ("", []),
        ]  # fmt: skip
    wait_until(lambda: set(psutil.Process().children(recursive=True)) <= children)


def test_a_timeout_kills_children_and_those_that_left_the_group(processes: StepProcesses, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    stop = threading.Event()
    threading.Thread(target=lambda: (pids_in(file), stop.set())).start()
    with pytest.raises(StepCancelledError, match="step 'family' was stopped with its run"):
        processes.run("family", {"file": str(file), "stay": True}, stop=stop)
    wait_until(lambda: not any(map(is_running, pids_in(file))))


def test_what_a_finished_step_left_in_its_group_ends_with_it(processes: StepProcesses, tmp_path: Path) -> None:
    own, child, _ = processes.run("family", {"file": str(tmp_path / "pids"), "stay": False})["x"]
    wait_until(lambda: not is_running(own) and not is_running(child))


def test_a_stop_that_came_before(processes: StepProcesses, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StepCancelledError):
        processes.run("stuck", {"file": str(tmp_path / "pid")}, stop=stop)


def test_an_error_of_the_listener_kills_the_step(processes: StepProcesses, tmp_path: Path) -> None:
    def on_line(stream: str, line: str) -> None:
        if line == "first":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        processes.run("live", {"file": str(tmp_path / "never")}, on_line=on_line)


def test_twenty_steps_at_once(warm: StepProcesses, tmp_path: Path) -> None:
    """None ends before all have begun."""
    with ThreadPoolExecutor(20) as threads:
        met = list(threads.map(lambda n: warm.run("meet", {"folder": str(tmp_path), "number": n})["x"], range(20)))
    assert met == list(range(20))


def test_each_attempt_is_a_process_of_its_own(warm: StepProcesses) -> None:
    pids = {warm.run("pid", {})["x"] for _ in range(5)}
    assert len(pids) == 5
    assert os.getpid() not in pids
