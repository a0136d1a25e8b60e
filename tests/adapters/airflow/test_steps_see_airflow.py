"""What Airflow offers to its tasks is there in a step whose interpreter is Airflow's own, on both Airflows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from tests.adapters.airflow.operating import orchestrator_of
from tests.adapters.airflow.seeing import seeing
from tests.engines.airflow import Airflow, airflow_python

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]
COMPLETED = ExecutionStatus.COMPLETED


@pytest.fixture(params=["airflow3", "airflow2"])
def airflow(request: pytest.FixtureRequest) -> Airflow:
    found: Airflow = request.getfixturevalue(request.param)
    return found


def test_a_connection_a_variable_a_hook_and_the_context(airflow: Airflow, tmp_path: Path) -> None:
    airflow.command("variables", "set", "flowyml_told", json.dumps({"answer": 42}))
    airflow.command(
        "connections", "add", "flowyml_files", "--conn-type", "fs", "--conn-password", "secret word",
        "--conn-extra", json.dumps({"path": "/of/the/hook"}), check=False,  # there since the last try
    )  # fmt: skip
    handle = orchestrator_of(airflow).run_pipeline(seeing, "seeing-1", parameters={"folder": str(tmp_path)})
    assert handle.wait_for_completion(timeout=180, poll_interval=1).status is COMPLETED, handle.error
    assert handle.outputs["seen"] == {
        "variable": 42, "written": "by a step", "is a connection": True, "password": "secret word",
        "hook": "/of/the/hook", "task": "ask", "pulled": [1, 2], "run": "seeing-1",
    }  # fmt: skip
    assert {run.name: run.raw_status for run in handle.step_runs()} == {"ask": "success", "leave": "skipped"}
    assert any("logged at info" in line.message for line in handle.logs())


def test_another_interpreter_keeps_a_process_without_airflow(airflow3: Airflow, tmp_path: Path) -> None:
    """A link to the same interpreter that stands in another environment is another one."""
    other = tmp_path / "python"
    other.symlink_to(shutil.which("python3.11") or airflow_python(2).resolve())

    @step(outputs=["found"])
    def look() -> list[bool]:
        import sys

        return [module in sys.modules for module in ("flowyml", "airflow")]

    made = Pipeline("steps see no airflow", airflow={"python": str(other)}).add_step(look)
    handle = orchestrator_of(airflow3).run_pipeline(made)
    assert handle.wait_for_completion(timeout=120, poll_interval=1).outputs == {"found": [True, False]}, handle.error


def test_a_crash_and_a_timeout_between_questions_fail_the_task_and_leave_it_whole(airflow3: Airflow) -> None:
    """The line to Airflow's supervisor is one for the task and its step."""

    @step(outputs=["first"], retry=2)
    def crash() -> int:
        import os

        from airflow.sdk import Variable, get_current_context

        for _ in range(3):
            Variable.set("flowyml_crash", "set")
        if get_current_context()["ti"].try_number == 1:
            os._exit(9)
        return 1

    @step(outputs=["second"], retry=2, timeout=20)
    def late() -> int:
        from airflow.sdk import Variable, get_current_context

        while get_current_context()["ti"].try_number == 1:
            Variable.set("flowyml_late", "set")
        return 2

    made = Pipeline("steps crash").add_step(crash).add_step(late)
    handle = orchestrator_of(airflow3).run_pipeline(made)
    assert handle.wait_for_completion(timeout=180, poll_interval=1).status is COMPLETED, handle.error
    assert handle.outputs == {"first": 1, "second": 2}
    assert {run.name: run.attempt for run in handle.step_runs()} == {"crash": 2, "late": 2}
