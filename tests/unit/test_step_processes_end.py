"""Steps in processes of their own: hooks, loading, and the ends of all who take part."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from flowyml.core.errors import (
    StepCancelledError,
    StepCrashedError,
    StepFailedError,
    StepTimeoutError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, Input, Plan, Step
from flowyml.runtime import fork_client
from flowyml.runtime.processes import StepProcesses
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.processes

CODE = """
import os, subprocess, sys, time
print("loading the module")

def family(file):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    pids = [os.getpid(), subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
    open(file + ".new", "w").write(" ".join(map(str, pids)))
    os.rename(file + ".new", file)
    print(*pids, flush=True)
    time.sleep(600)

def fine(): return 1
def fail(): raise ValueError("no")
def end(): os._exit(9)
def numbers():
    import random
    import numpy
    return [numpy.random.rand(), random.random()]
def fit():
    from joblib import Parallel, delayed
    return sum(Parallel(n_jobs=2)(delayed(abs)(number) for number in (-1, -2)))
def leave_threads():
    import atexit, threading
    atexit.register(print, "flushed")
    late = threading.Thread(target=lambda: (threading.main_thread().join(), time.sleep(0.2), print("uploaded")))
    late.start()
    return 1
def never_end():
    import threading
    from flowyml.runtime import shutdown
    shutdown._PATIENCE = 1  # not ten
    threading.Thread(target=time.sleep, args=(600,), name="endless").start()
    return 1
"""


class Printing(PipelineHook):
    def on_step_start(self, step_name: str, inputs: Any) -> None:
        print("start", step_name)

    def on_step_end(self, step_name: str, outputs: Any, duration: float) -> None:
        print("end", step_name, outputs)

    def on_error(self, step_name: str, error: BaseException) -> None:
        print("error", step_name, type(error).__name__, getattr(error, "step", None))

    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
        print("pipeline start", pipeline_name, run_id, context)

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        print("pipeline end", status, duration)
        raise RuntimeError("hooks may fail")


def plan(**changes: Any) -> Plan:
    names = ("fine", "fail", "end", "numbers", "fit", "leave_threads", "never_end")
    steps = [Step(name=name, function=f"code_of_ends:{name}", outputs=("x",)) for name in names]
    family = Step(name="family", function="code_of_ends:family", inputs=(Input("file", FromStep("s", "file")),))
    source = Step(name="s", function="code_of_ends:fine", outputs=("file",))
    return Plan(name="ends", steps=(source, *steps, family), **changes)


def made(folder: Path, code: str = CODE, *, hooks: bool = False, **changes: Any) -> Path:
    objects = {}
    if hooks:
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            objects["hooks"] = cloudpickle.dumps((Printing(),))
        finally:
            cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        changes["hooks"] = ("Printing",)
    return build(plan(**changes), files={"code_of_ends.py": code.encode()}, objects=objects).write(folder)


def started(folder: Path, code: str = CODE, *, kind: str = "warm") -> StepProcesses:
    return StepProcesses(made(folder, code), run_id="run", artifacts=str(folder), fork_here=kind == "here")


class Lines(list[str]):
    def __call__(self, stream: str, line: str) -> None:
        self.append(line)


@pytest.fixture(params=["warm", "fresh", "here"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FLOWYML_FORK", "0" if request.param == "fresh" else "1")
    return str(request.param)


def family_of(file: Path) -> list[int]:
    wait_until(file.exists)
    return [int(pid) for pid in file.read_text().split()]


def test_hooks_of_steps_and_of_the_pipeline(kind: str, tmp_path: Path) -> None:
    """Those of a step fire in its process; where that is killed, its killer tells them. They may fail themselves."""
    steps, crashes, pipelines = Lines(), Lines(), Lines()
    bundle = made(tmp_path, hooks=True)
    with StepProcesses(bundle, run_id="run", artifacts=str(tmp_path), fork_here=kind == "here") as hooked:
        hooked.run("fine", {}, on_line=steps)
        with pytest.raises(StepFailedError):
            hooked.run("fail", {}, on_line=steps)
        with pytest.raises(StepTimeoutError):
            hooked.run("family", {"file": str(tmp_path / "pids")}, timeout=0.7, on_line=crashes)
        with pytest.raises(StepCrashedError):
            hooked.run("end", {}, on_line=crashes)
        hooked.fire("on_pipeline_start", "ends", "run", {"rows": 1}, on_line=pipelines)
        hooked.fire("on_pipeline_end", "ends", "run", ExecutionStatus.FAILED, 1.5, on_line=pipelines)
        hooked.fire("on_error", "fine", KeyError("k"), on_line=pipelines)
    printed = [line for line in steps if line != "loading the module"]
    assert printed == ["start fine", "end fine {'x': 1}", "start fail", "error fail ValueError None"]
    errors = [line for line in crashes if line.startswith("error")]
    assert errors == ["error family StepTimeoutError family", "error end StepCrashedError end"]
    assert sorted(line for line in pipelines if not line.startswith((" ", "Traceback", "loading"))) == [
        "Hook Printing.on_pipeline_end failed; the run goes on.",
        "RuntimeError: hooks may fail",
        "error fine StepError ",
        "pipeline end FAILED 1.5",
        "pipeline start ends run {'rows': 1}",
    ]  # two streams have no order between them


def test_what_loading_prints_comes_with_the_first_step(tmp_path: Path) -> None:
    lines, more = Lines(), Lines()
    with started(tmp_path) as processes:
        processes.run("fine", {}, on_line=lines)
        processes.run("fine", {}, on_line=more)
    assert (lines, more) == (["loading the module"], [])


@pytest.mark.parametrize("code", ["raise RuntimeError('as it is')", "def fine(:"], ids=["raises", "syntax"])
def test_code_that_cannot_be_imported_fails_the_step_with_its_traceback(tmp_path: Path, code: str) -> None:
    with started(tmp_path, code) as processes, pytest.raises(StepFailedError) as caught:
        processes.run("fine", {})
    assert 'File "' in caught.value.traceback
    assert 'code_of_ends.py", line 1' in caught.value.traceback


def test_code_that_kills_the_process_that_loads_it(tmp_path: Path) -> None:
    code = "import os, sys\nprint('so far', file=sys.stderr, flush=True)\nos._exit(5)"
    with started(tmp_path, code) as processes, pytest.raises(StepCrashedError) as caught:
        processes.run("fine", {})
    assert str(caught.value) == "The process that loads the code for step 'fine' died:\nso far"


def test_the_last_words_of_a_talkative_process_take_no_memory(tmp_path: Path) -> None:
    code = "import os\nfor _ in range(20):\n    os.write(2, b'x' * 2**20)\nos.write(2, b'\\nthe end')\nos._exit(5)"
    tracemalloc.start()
    try:
        with started(tmp_path, code) as processes, pytest.raises(StepCrashedError, match=r"the end$"):
            processes.run("fine", {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**23


def test_close_ends_what_still_runs(kind: str, tmp_path: Path) -> None:
    engines = set(psutil.Process().children())  # of other tests, which go on
    processes = started(tmp_path, kind=kind)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            processes.run("family", {"file": str(tmp_path / "pids")}, on_line=Lines())
        except (StepCancelledError, StepCrashedError) as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    family = family_of(tmp_path / "pids")
    processes.close()
    thread.join(240)
    assert len(ended) == 1
    wait_until(lambda: not any(map(is_running, family)))
    assert set(psutil.Process().children()) <= engines
    with pytest.raises(StepCancelledError, match="was not started: its run has ended"):
        processes.run("fine", {})


def test_closing_leaves_no_descriptor_and_no_thread(kind: str, tmp_path: Path) -> None:
    bundle = made(tmp_path)
    with StepProcesses(bundle, run_id="run", artifacts=str(tmp_path), fork_here=kind == "here") as processes:
        processes.run("fine", {})
    before = (psutil.Process().num_fds(), threading.active_count())
    with StepProcesses(bundle, run_id="run", artifacts=str(tmp_path), fork_here=kind == "here") as processes:
        processes.run("fine", {}, on_line=Lines())
        with pytest.raises(StepTimeoutError):
            processes.run("family", {"file": str(tmp_path / "pids")}, timeout=0.3, on_line=Lines())
    assert (psutil.Process().num_fds(), threading.active_count()) == before


CALLER = """
import os, sys, threading
from pathlib import Path
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.step_errors import OutOfMemory, crashed

processes = StepProcesses(Path(sys.argv[1]), run_id="run", artifacts=sys.argv[2], fork_here={here})
{setup}
processes.run("family", {{"file": sys.argv[2] + "/pids"}})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_outlives_the_caller(kind: str, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", CALLER.format(setup="", here=kind == "here"), str(made(tmp_path)), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as caller:
        family = family_of(tmp_path / "pids")
        all_of_it = {child.pid for child in psutil.Process(caller.pid).children(recursive=True)} | set(family)
        os.kill(caller.pid, number)
        caller.wait(2400)
    in_group = all_of_it if kind != "fresh" else all_of_it - {family[2]}
    try:
        wait_until(lambda: not any(map(is_running, in_group)))
    finally:
        if is_running(family[2]):
            os.kill(family[2], signal.SIGKILL)


def test_nothing_outlives_a_caller_whose_fork_lives_on(tmp_path: Path) -> None:
    """A child that was forked without exec holds the caller's end of the socket; the new parent tells of the death."""
    setup = "pid = os.fork()\nif pid == 0:\n    import time; time.sleep(600); os._exit(0)\nprint(pid, flush=True)"
    command = [sys.executable, "-c", CALLER.format(setup=setup, here=False), str(made(tmp_path)), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
        assert caller.stdout is not None
        fork = int(caller.stdout.readline())
        family = family_of(tmp_path / "pids")
        caller.kill()
        caller.wait()
        wait_until(lambda: not any(map(is_running, family)))
        os.kill(fork, signal.SIGKILL)


def test_nothing_outlives_a_caller_that_dies_while_the_code_is_loaded(tmp_path: Path) -> None:
    code = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "new")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename({str(tmp_path / "new")!r}, {str(tmp_path / "loading")!r})
time.sleep(600)
"""
    command = [sys.executable, "-c", CALLER.format(setup="", here=False), str(made(tmp_path, code)), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as caller:
        loading = family_of(tmp_path / "loading")
        caller.kill()
    wait_until(lambda: not any(map(is_running, loading)))


def test_a_stop_and_a_close_do_not_wait_for_slow_code(tmp_path: Path) -> None:
    begin, stop = time.monotonic(), threading.Event()
    with started(tmp_path, "import time; time.sleep(600)") as processes:
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(StepCancelledError):
            processes.run("fine", {}, stop=stop)
    assert time.monotonic() - begin < 300


def test_a_timeout_ends_a_step_whose_code_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_client, "_LOADING", 0.5)
    with started(tmp_path, "import time; time.sleep(600)") as processes:
        for timeout, allowed in ((0.1, 0.5), (0.7, 0.7)):
            with pytest.raises(StepTimeoutError, match=f"step 'fine' .* not loaded within {allowed} s") as caught:
                processes.run("fine", {}, timeout=timeout)
            assert caught.value.step == "fine"


def test_many_large_requests_while_the_code_is_loaded(tmp_path: Path) -> None:
    """More than a socket holds: none of them blocks, and each can still be stopped."""
    code = f"import time; time.sleep(0.5)\n{CODE}"
    with started(tmp_path, code) as processes, ThreadPoolExecutor(40) as threads:
        given = [{"file": "x" * 30_000}] * 40
        done = list(threads.map(lambda inputs: processes.run("fine", inputs, on_line=Lines()), given))
    assert done == [{"x": 1}] * 40


def test_an_exception_thrown_into_the_thread_kills_the_step(kind: str, tmp_path: Path) -> None:
    """As Prefect does it with a task's timeout."""
    caught: list[BaseException] = []

    class TimedOut(Exception):
        pass

    with started(tmp_path, kind=kind) as processes:

        def work() -> None:
            try:
                processes.run("family", {"file": str(tmp_path / "pids")}, on_line=Lines())
            except TimedOut as error:
                caught.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        family = family_of(tmp_path / "pids")
        assert thread.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimedOut))
        thread.join(240)
        assert [type(error) for error in caught] == [TimedOut]
        wait_until(lambda: not any(map(is_running, family)))
        assert processes.run("fine", {}) == {"x": 1}


@pytest.mark.parametrize(
    ("module", "same"),
    [
        ("import numpy, random; random.random(); random.Random(7)", [False, False]),
        ("import numpy; numpy.random.seed(7)", [True, False]),
        ("from random import seed; seed(a='x')", [False, True]),
        ("import random; random.setstate(random.Random(1).getstate())", [False, True]),
        ("import random; random.seed(7); random.seed()", [False, False]),
    ],
)
def test_steps_draw_different_numbers_unless_the_module_has_set_a_seed(
    tmp_path: Path, module: str, same: list[bool]
) -> None:
    with started(tmp_path, f"{module}\n{CODE}") as processes:
        drawn = [processes.run("numbers", {}, on_line=Lines())["x"] for _ in range(2)]
    assert [one == other for one, other in zip(*drawn, strict=True)] == same


ANEW = (
    "numpy.random.default_rng()", "numpy.random.Generator(numpy.random.MT19937())",
    "numpy.random.default_rng().spawn(1)[0]", "numpy.random.RandomState()", "random.Random()",
)  # fmt: skip
SEEDED = (
    "numpy.random.default_rng(7)", "numpy.random.default_rng(2**127 + 1)", "numpy.random.RandomState(7)",
    "random.Random(7)", "copy.deepcopy(random.Random(7))",
)  # fmt: skip


def test_generators_of_a_module_draw_anew_in_each_step_unless_they_have_a_seed(tmp_path: Path) -> None:
    """Where they stand: in a name of the module, or in a list in a dict in a class."""
    several = ", ".join((*ANEW, *SEEDED))
    code = f"""
import copy, numpy, random
GENERATORS = [{several}]
class Held:
    inner = {{"a": [{several}]}}
def numbers():
    return [float(getattr(each, "random")()) for each in (*GENERATORS, *Held.inner["a"])]
"""
    with started(tmp_path, code) as processes:
        drawn = [processes.run("numbers", {}, on_line=Lines())["x"] for _ in range(2)]
    same = [one == other for one, other in zip(*drawn, strict=True)]
    assert same == [*[False] * len(ANEW), *[True] * len(SEEDED)] * 2


def test_worker_processes_of_libraries_end_with_the_step(tmp_path: Path) -> None:
    """loky's idle for 300 s, unless the hook that it has registered with ``threading`` is called."""
    pytest.importorskip("joblib")
    with started(tmp_path) as processes:
        assert processes.run("fit", {}, timeout=280, on_line=Lines()) == {"x": 3}


def test_threads_of_a_step_come_to_their_end_and_then_its_exit_handlers_run(kind: str, tmp_path: Path) -> None:
    lines = Lines()
    with started(tmp_path, kind=kind) as processes:
        assert processes.run("leave_threads", {}, on_line=lines) == {"x": 1}
    assert lines == ["loading the module", "uploaded", "flushed"]


def test_threads_that_never_end_are_not_waited_for_for_ever(tmp_path: Path) -> None:
    lines = Lines()
    with started(tmp_path) as processes:
        assert processes.run("never_end", {}, timeout=280, on_line=lines) == {"x": 1}
    said = "The step's process was ended 1 s after the step returned, while these were still running: thread 'endless'."
    assert said in lines


# The warm process that steps are forked from is killed.


def start(
    threads: ThreadPoolExecutor, processes: StepProcesses, file: Path, on_line: Callable[[str, str], None]
) -> Future[Any]:
    return threads.submit(processes.run, "family", {"file": str(file)}, on_line=on_line)


def kill(server: psutil.Process) -> None:
    wait_until(lambda: server.status() == psutil.STATUS_SLEEPING)  # it has reported its forks, and waits for more
    server.kill()


def test_the_warm_process_comes_back_after_it_was_killed(tmp_path: Path) -> None:
    engines = set(psutil.Process().children())  # of other tests, which go on
    with ThreadPoolExecutor() as threads, started(tmp_path) as processes:
        processes.run("fine", {})
        [server] = set(psutil.Process().children()) - engines
        printed: list[str] = []
        step = start(threads, processes, tmp_path / "pids", lambda _, line: printed.append(line))
        family = [int(pid) for pid in wait_until(lambda: printed)[0].split()]
        kill(server)
        with pytest.raises(StepCrashedError, match="The process that step 'family' was forked from died"):
            step.result(2400)
        wait_until(lambda: not is_running(family[0]) and not is_running(family[1]))
        with suppress(ProcessLookupError):  # it left the group, and is found only if its parent is there still
            os.kill(family[2], signal.SIGKILL)
        assert processes.run("fine", {}) == {"x": 1}


def test_what_crashed_with_it_was_not_cancelled(tmp_path: Path) -> None:
    """Also where that is found out only after another step has started the next warm process."""
    engines = set(psutil.Process().children())  # of other tests, which go on
    looks, goes_on, pids = threading.Event(), threading.Event(), list[int]()

    def note(_: str, line: str) -> None:
        pids.append(int(line.split()[2]))

    def look_away(_: str, line: str) -> None:
        note(_, line)
        looks.set()
        goes_on.wait(2400)

    with ThreadPoolExecutor() as threads, started(tmp_path) as processes:
        processes.run("fine", {})
        [server] = set(psutil.Process().children()) - engines
        late = start(threads, processes, tmp_path / "late", look_away)
        early = start(threads, processes, tmp_path / "early", note)
        wait_until(lambda: looks.is_set() and len(pids) == 2)
        kill(server)
        with pytest.raises(StepCrashedError):
            early.result(2400)
        assert processes.run("fine", {}) == {"x": 1}
        goes_on.set()
        with pytest.raises(StepCrashedError, match="was forked from died"):
            late.result(2400)
        for pid in pids:
            with suppress(ProcessLookupError):  # the same
                os.kill(pid, signal.SIGKILL)


def test_one_whose_end_is_not_reported_yet_is_replaced(tmp_path: Path) -> None:
    """The kernel closes the files of a process before ``wait`` reports its end; this one stays between the two."""
    lives_on = f"""
import os, time
if not os.path.exists({str(tmp_path / "first")!r}):
    open({str(tmp_path / "first")!r}, "w").close()
    os.closerange(3, 1000)
    time.sleep(600)
"""
    with started(tmp_path, lives_on + CODE) as processes:
        with pytest.raises(StepCrashedError, match="The process that loads the code for step 'fine' died"):
            processes.run("fine", {})
        assert processes.run("fine", {}) == {"x": 1}
