"""Airflow's process that supervises a task is killed: the step ends with it, and never runs beside its next attempt."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from flowyml.core.execution_status import ExecutionStatus
from tests.adapters import killed_group
from tests.adapters.airflow.operating import orchestrator_of, slow
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED
pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def pids(folder: Path) -> list[int]:
    path = folder / "marks"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_supervisor(step: int) -> list[psutil.Process]:
    """Kill what supervises a step's task; gives the processes that it should take along."""
    child = psutil.Process(step)
    warm, task, supervisor, *_ = child.parents()
    os.kill(supervisor.pid, signal.SIGKILL)
    return [child, warm, task]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.beside
def test_the_step_ends_and_the_next_attempt_is_alone(airflow3: Airflow, tmp_path: Path) -> None:
    """Airflow finds after a minute that a task died."""
    handle = orchestrator_of(airflow3).run_pipeline(slow("killed worker", str(tmp_path), seconds=600))
    first = wait_until(lambda: pids(tmp_path))[0]
    orphans = kill_supervisor(first)
    wait_until(lambda: gone(orphans))
    assert len(pids(tmp_path)) == 1, "long before Airflow starts the next attempt"
    second = wait_until(lambda: pids(tmp_path)[1:])[0]
    assert handle.cancel()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.CANCELLED
    wait_until(lambda: not psutil.pid_exists(second))


def test_the_step_ends_on_airflow_2(airflow2: Airflow, tmp_path: Path) -> None:
    handle = orchestrator_of(airflow2).run_pipeline(slow("killed worker", str(tmp_path), seconds=600))
    orphans = kill_supervisor(wait_until(lambda: pids(tmp_path))[0])
    wait_until(lambda: gone(orphans))
    handle.cancel()


def test_what_is_shown_of_an_execution_group_whose_task_is_killed(airflow3: Airflow, tmp_path: Path) -> None:
    handle = orchestrator_of(airflow3).run_pipeline(killed_group.interrupted("killed group", str(tmp_path)))
    child = psutil.Process(wait_until(lambda: killed_group.worker_of(tmp_path)))
    warm, task, *_ = child.parents()
    task.kill()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is FAILED
    assert killed_group.statuses(handle) == {
        "first": (COMPLETED, 1), "slow": (FAILED, 1), "third": (CANCELLED, 0), "after": (CANCELLED, 0),
    }  # fmt: skip
    assert "slow" in (handle.error or "")
    wait_until(lambda: gone([child, warm]))

    (tmp_path / "fixed").touch()
    handle.retry()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    assert handle.outputs == {"after": 4}
    assert killed_group.names_in(tmp_path) == ["first", "slow", "first", "slow", "third", "after"], "the whole group"
    assert {name: end for name, (end, _) in killed_group.statuses(handle).items()} == dict.fromkeys(
        ("first", "slow", "third", "after"), COMPLETED
    )
