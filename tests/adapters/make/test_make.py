"""The adapter of the page "Write an adapter", beyond the promises of all orchestrators: tasks and runs that die."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # where a third party's adapter is installed, this one stands

from flowyml import cleanup, for_each, pipeline, step
from flowyml.core.errors import ConfigurationError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_make import MakeOrchestrator, makefile
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


@step
def kill_task() -> int:
    task = psutil.Process().parents()[1]
    assert "flowyml_make_worker.py" in " ".join(task.cmdline())
    task.kill()
    time.sleep(60)
    return 1


@step
def add(a: int = 1, b: int = 1) -> int:
    return a + b


@step
def total(items: list[int]) -> int:
    return sum(items)


@step
def sleep(seconds: float = 600) -> None:
    time.sleep(seconds)


@pipeline
def dying() -> Any:
    dead = kill_task()
    add.options(name="not run")(dead)
    with cleanup():
        add.options(name="tidy")(1)
    return {"handled": add.options(name="handled", run_if="always")(dead)}


def test_a_task_that_died_fails_the_run_and_what_follows_is_decided(tmp_path: Path) -> None:
    folder = tmp_path / "odd #1; a&b"
    folder.mkdir()
    handle = MakeOrchestrator(folder).run_pipeline(dying).wait_for_completion(poll_interval=0.2)
    assert (handle.status, handle.error) == (ExecutionStatus.FAILED, "step 'kill_task': its task died")
    states = {run.name: (run.status.name, run.error) for run in handle.step_runs()}
    assert states == {
        "kill_task": ("FAILED", None), "not run": ("CANCELLED", "not run, since step 'kill_task' was stopped"),
        "handled": ("COMPLETED", None), "tidy": ("COMPLETED", None),
    }  # fmt: skip


@pipeline
def waiting() -> None:
    sleep()


def test_a_run_whose_make_died_is_lost(tmp_path: Path) -> None:
    handle = MakeOrchestrator(tmp_path).run_pipeline(waiting)
    wait_until(lambda: handle.step_statuses()["sleep"] is ExecutionStatus.RUNNING, "the step begins")
    os.killpg(os.getpgid(int((tmp_path / handle.job_id / "pid").read_text())), signal.SIGKILL)
    wait_until(lambda: handle.status.is_terminal, "make has died")
    assert (handle.status, handle.raw_status) == (ExecutionStatus.FAILED, "lost")
    assert handle.step_statuses() == {"sleep": ExecutionStatus.FAILED}
    assert handle.cancel() is False


@pipeline
def tidying() -> None:
    add()
    with cleanup():
        sleep(4)


def test_a_run_cannot_be_cancelled_in_its_clean_up(tmp_path: Path) -> None:
    handle = MakeOrchestrator(tmp_path).run_pipeline(tidying)
    wait_until(lambda: handle.step_statuses()["sleep"] is ExecutionStatus.RUNNING, "the clean-up begins")
    assert handle.cancel() is False
    assert handle.wait_for_completion(poll_interval=0.2).status is ExecutionStatus.COMPLETED


def test_a_cancelled_run_is_cancelled_again_in_its_clean_up(tmp_path: Path) -> None:
    handle = MakeOrchestrator(tmp_path).run_pipeline(tidying)
    assert handle.cancel() is True
    wait_until(lambda: handle.step_statuses()["sleep"] is ExecutionStatus.RUNNING, "the clean-up begins")
    assert handle.cancel() is True
    assert handle.wait_for_completion(poll_interval=0.2).status is ExecutionStatus.CANCELLED


@pytest.mark.parametrize("sign", ["$", "'", '"', "`", "\\"])
def test_a_folder_that_shells_misread_is_refused(tmp_path: Path, sign: str) -> None:
    with pytest.raises(ConfigurationError, match="in their own way"):
        MakeOrchestrator(tmp_path / f"a{sign}b")


@pipeline
def entangled() -> Any:
    first = add.options(name="first", execution_group="both")(1)
    with for_each([1, 2]) as n:
        add.options(name="after the first")(first)
        other = add.options(name="other")(n)
    return total.options(name="last", execution_group="both")(other)


def test_tasks_that_wait_for_one_another_are_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"wait for one another: .*'first', 'last', 'other'"):
        makefile(entangled.compile())
