"""The same operations on a real Airflow 2.11, through ``/api/v1``; what it cannot do says so."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flowyml.core.errors import AuthenticationError, EngineError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.remote import recognized_engine
from flowyml.testing import pipelines
from flowyml_airflow import AirflowOrchestrator
from tests.adapters.airflow.operating import foreign_dag, orchestrator_of, slow
from tests.engines.airflow import Airflow, wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED


@pytest.fixture(scope="module")
def orchestrator(airflow2: Airflow) -> AirflowOrchestrator:
    return orchestrator_of(airflow2)


def test_a_run_from_end_to_end(airflow2: Airflow, orchestrator: AirflowOrchestrator) -> None:
    assert recognized_engine(airflow2.url) == "airflow"
    assert str(orchestrator.health().version).startswith("2.")
    handle = orchestrator.run_pipeline(pipelines.greeting(), "two-1", parameters={"name": "Ada"})
    assert orchestrator.run_pipeline(pipelines.greeting(), "two-1").job_id == handle.job_id
    assert handle.wait_for_completion(timeout=150, poll_interval=1).status is COMPLETED, handle.error
    assert handle.outputs == {"greeting": "hello Ada"}
    assert handle.step_statuses() == {"gather": COMPLETED, "join": COMPLETED}
    assert [line.step for line in handle.logs() if "gathering words for Ada" in line.message] == ["gather"]
    again = orchestrator_of(airflow2, dags_folder=None).attach(handle.job_id)
    assert (again.run_id, again.run.pipeline, again.outputs) == ("two-1", "conformance greeting", handle.outputs)
    assert [run.run_id for run in orchestrator.runs("conformance greeting")] == ["two-1"]
    assert handle.cancel() is False


def test_a_failure_is_told(orchestrator: AirflowOrchestrator) -> None:
    handle = orchestrator.run_pipeline(pipelines.failing())
    assert handle.wait_for_completion(timeout=200, poll_interval=1).status is ExecutionStatus.FAILED
    assert "the number 13 is not lucky" in (handle.error or "")
    assert handle.step_statuses()["after_broken"] is ExecutionStatus.CANCELLED


def test_cancel_stops_the_work(orchestrator: AirflowOrchestrator, tmp_path: Path) -> None:
    handle = orchestrator.run_pipeline(slow("two cancel", str(tmp_path), seconds=90))
    wait_until((tmp_path / "marks").exists, 90)
    pid = int((tmp_path / "marks").read_text())
    assert handle.cancel()
    assert handle.wait_for_completion(timeout=60, poll_interval=1).status is ExecutionStatus.CANCELLED
    assert not Path(f"/proc/{pid}").exists()
    assert handle.step_statuses() == {"work": ExecutionStatus.CANCELLED}


def test_schedules(orchestrator: AirflowOrchestrator) -> None:
    schedule = Schedule.of("daily", 6, timezone="America/New_York")
    made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
    found = wait_until(lambda: [i for i in orchestrator.schedules("conformance greeting") if i.next_runs], 60)
    assert found[0].next_runs[0] == schedule.next_times()[0]
    assert orchestrator.pause_schedule(made.schedule_id).paused
    assert not orchestrator.resume_schedule(made.schedule_id).paused
    orchestrator.delete_schedule(made.schedule_id)
    assert orchestrator.schedules("conformance greeting") == []


def test_foreign_dags(airflow2: Airflow, orchestrator: AirflowOrchestrator) -> None:
    foreign_dag(airflow2, "legacy_two")
    orchestrator.client.trigger("legacy_two", "by-hand", {})
    handle = orchestrator.attach("legacy_two/by-hand")
    assert handle.wait_for_completion(timeout=150, poll_interval=1).status is COMPLETED
    assert handle.outputs == {"extract": 3, "load": 6}


def test_what_it_cannot_do_says_so(airflow2: Airflow, orchestrator: AirflowOrchestrator) -> None:
    now = datetime.now(UTC)
    orchestrator.deploy_pipeline(pipelines.greeting())
    with pytest.raises(UnsupportedFeatureError, match="no backfills in its API"):
        orchestrator.backfill("conformance greeting", now, now)
    with pytest.raises(UnsupportedFeatureError, match="speaks no /api/v1"):
        orchestrator.api_client()
    with pytest.raises(AuthenticationError, match="wrong user name or password"):
        orchestrator_of(airflow2, password="wrong").runs()


def test_an_import_error_is_raised(airflow2: Airflow) -> None:
    orchestrator = orchestrator_of(airflow2, deploy_timeout=60)
    pipeline = pipelines.counting("/tmp")
    compiled = orchestrator._deployer.compiled(pipeline.bundle(orchestrator.plan(pipeline)), None)
    object.__setattr__(compiled, "text", compiled.text + "\nthis is no Python\n")
    compiled.__dict__.pop("files", None)
    with pytest.raises(EngineError, match=r"(?s)cannot import .*SyntaxError"):
        orchestrator._deployer.deploy(compiled, None)
