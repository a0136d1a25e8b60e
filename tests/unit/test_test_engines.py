"""The engines that tests start end with the tests, also when these are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.processes import end_engine, start_engine
from tests.waiting import is_running, wait_until

ROOT = Path(__file__).parents[2]
# The engine has a child in a process group of its own, as Airflow has.
ENGINE = """
import os, subprocess, time
print(os.getpid(), subprocess.Popen(["sleep", "300"], process_group=0).pid, flush=True)
time.sleep(300)
"""
TESTS = """
import sys, time
from pathlib import Path
from tests.engines.processes import start_engine
with open(sys.argv[1], "ab") as log:
    start_engine([sys.executable, "-c", sys.argv[2]], log=log, again=sys.argv[3] == "again")
time.sleep(300)
"""


def pids(log: Path) -> list[int]:
    """What an engine has printed, once it has."""
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    return [int(pid) for pid in log.read_text().split()]


@pytest.mark.parametrize("again", ["again", "once"])
def test_killed_tests_take_their_engine_along(tmp_path: Path, again: str) -> None:
    command = [sys.executable, "-c", TESTS, str(tmp_path / "log"), ENGINE, again]
    with subprocess.Popen(command, cwd=ROOT) as tests:
        family = pids(tmp_path / "log")
        assert all(map(is_running, family))
        tests.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, family)))


@pytest.mark.processes
def test_an_engine_that_ends_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log:
        engine = start_engine([sys.executable, "-c", "print(1, flush=True)"], log=log, again=True)
    wait_until(lambda: len(pids(tmp_path / "log")) > 1)
    end_engine(engine)
    assert engine.returncode == -signal.SIGTERM
