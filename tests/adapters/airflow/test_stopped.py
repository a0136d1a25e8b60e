"""What a run that was cancelled or took too long says of its steps, on a real Airflow 3.3 and 2.11."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.core.execution_status import ExecutionStatus
from tests.adapters.airflow.operating import orchestrator_of
from tests.adapters.airflow.stopping import stopping
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED


WAYS = [("airflow3", False), ("airflow3", True), ("airflow2", True)]


@pytest.mark.parametrize(("airflow", "tidies"), WAYS, indirect=["airflow"])
def test_steps_of_a_cancelled_run_that_never_ran_are_cancelled(
    airflow: Airflow, tmp_path: Path, *, tidies: bool
) -> None:
    """Airflow skips them, as it skips the branch that was not taken; with a clean-up it ends the run as a success."""
    given = stopping(f"stopped {'tidily' if tidies else 'at once'}", tidies=tidies)
    orchestrator = orchestrator_of(airflow)
    handle = orchestrator.run_pipeline(given, parameters={"folder": str(tmp_path)})
    wait_until((tmp_path / "begun").exists)
    wait_until(lambda: handle.step_statuses().get("passed_over") is COMPLETED)
    assert handle.cancel()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is CANCELLED
    expected = {"count": COMPLETED, "passed_over": COMPLETED, "work": CANCELLED, "waiting": CANCELLED}
    if tidies:
        expected["tidy"] = COMPLETED
        assert (tmp_path / "tidied").exists()
    assert handle.step_statuses() == expected
    assert handle.raw_status == ("success" if tidies else "failed")
    dag, run_id = handle.job_id.split("/")
    orchestrator.client.note(dag, run_id, "looked into it. Ada")
    again = orchestrator_of(airflow).attach(handle.job_id)
    assert (again.status, again.step_statuses()) == (CANCELLED, expected), "by Airflow's audit log"


@pytest.mark.beside
def test_steps_that_a_timeout_of_the_run_stopped_are_cancelled(airflow: Airflow, tmp_path: Path) -> None:
    """On a busy machine it may pass before the step begins."""
    made = stopping("stopped late", tidies=False, timeout=25)
    handle = orchestrator_of(airflow).run_pipeline(made, parameters={"folder": str(tmp_path)})
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.TIMEOUT
    statuses = handle.step_statuses()
    assert (statuses["work"], statuses["waiting"]) == (CANCELLED, CANCELLED)
