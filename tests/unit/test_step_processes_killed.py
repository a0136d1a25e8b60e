"""Steps in processes of their own: the warm process that they are forked from is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowyml.core.errors import StepCrashedError
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml.runtime.processes import StepProcesses
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.processes

CODE = """
import os, subprocess, sys, time

def family():
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    print(os.getpid(), subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid, flush=True)
    time.sleep(600)

def fine(): return 1
"""
OnLine = Callable[[str, str], None]


def made(folder: Path, code: str = CODE) -> Path:
    steps = [Step(name=name, function=f"code_of_killed:{name}", outputs=("x",)) for name in ("family", "fine")]
    return build(Plan(name="killed", steps=tuple(steps)), files={"code_of_killed.py": code.encode()}).write(folder)


def start(threads: ThreadPoolExecutor, processes: StepProcesses, on_line: OnLine) -> Future[Any]:
    return threads.submit(processes.run, "family", {}, on_line=on_line)


def kill(server: psutil.Process) -> None:
    wait_until(lambda: server.status() == psutil.STATUS_SLEEPING)  # it has reported its forks, and waits for more
    server.kill()


def test_the_warm_process_comes_back_after_it_was_killed(tmp_path: Path) -> None:
    engines = set(psutil.Process().children())  # of other tests, which go on
    with (
        ThreadPoolExecutor() as threads,
        StepProcesses(made(tmp_path), run_id="run", artifacts=str(tmp_path)) as processes,
    ):
        processes.run("fine", {})
        [server] = set(psutil.Process().children()) - engines
        printed: list[str] = []
        step = start(threads, processes, lambda _, line: printed.append(line))
        family = [int(pid) for pid in wait_until(lambda: printed)[0].split()]
        kill(server)
        with pytest.raises(StepCrashedError, match="The process that step 'family' was forked from died"):
            step.result(240)
        wait_until(lambda: not is_running(family[0]) and not is_running(family[1]))
        os.kill(family[2], signal.SIGKILL)  # it left the group, and the one that would have inherited it is dead
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
        goes_on.wait(240)

    with (
        ThreadPoolExecutor() as threads,
        StepProcesses(made(tmp_path), run_id="run", artifacts=str(tmp_path)) as processes,
    ):
        processes.run("fine", {})
        [server] = set(psutil.Process().children()) - engines
        late = start(threads, processes, look_away)
        early = start(threads, processes, note)
        wait_until(lambda: looks.is_set() and len(pids) == 2)
        kill(server)
        with pytest.raises(StepCrashedError):
            early.result(240)
        assert processes.run("fine", {}) == {"x": 1}
        goes_on.set()
        with pytest.raises(StepCrashedError, match="was forked from died"):
            late.result(240)
        for pid in pids:
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
    with StepProcesses(made(tmp_path, lives_on + CODE), run_id="run", artifacts=str(tmp_path)) as processes:
        with pytest.raises(StepCrashedError, match="The process that loads the code for step 'fine' died"):
            processes.run("fine", {})
        assert processes.run("fine", {}) == {"x": 1}
