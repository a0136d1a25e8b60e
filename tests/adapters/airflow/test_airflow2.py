"""The same operations on a real Airflow 2.11, through ``/api/v1``; what it cannot do says so."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flowyml.core.errors import AuthenticationError, DefinitionError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.remote import recognized_engine
from flowyml.testing import pipelines
from tests.adapters.airflow.operating import orchestrator_of, short, slow, wait_for_dag
from tests.adapters.airflow.test_deploy import deploy_broken
from tests.engines.airflow import Airflow
from tests.waiting import is_running, wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED


def test_a_run_from_end_to_end_and_one_that_fails(airflow2: Airflow, tmp_path: Path) -> None:
    """Airflow 2 writes tracebacks of its own into the log, which the suite takes for a fault."""
    orchestrator = orchestrator_of(airflow2)
    assert recognized_engine(airflow2.url) == "airflow"
    assert str(orchestrator.health().version).startswith("2.")
    handle = orchestrator.run_pipeline(pipelines.greeting(), "two-1", parameters={"name": "Ada"})
    failing = orchestrator.run_pipeline(pipelines.failing(str(tmp_path)))
    assert orchestrator.run_pipeline(pipelines.greeting(), "two-1").job_id == handle.job_id
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    assert handle.outputs == {"greeting": "hello Ada"}
    assert handle.step_statuses() == {"gather": COMPLETED, "join": COMPLETED}
    assert [line.step for line in handle.logs() if "gathering words for Ada" in line.message] == ["gather"]
    again = orchestrator_of(airflow2, dags_folder=None).attach(handle.job_id)
    assert (again.run_id, again.run.pipeline, again.outputs) == ("two-1", "conformance greeting", handle.outputs)
    assert [run.run_id for run in orchestrator.runs("conformance greeting")] == ["two-1"]
    assert handle.cancel() is False
    assert handle.run.parameters == {"name": "Ada"}
    with pytest.raises(DefinitionError, match="belongs to a run of 'conformance greeting' with other code"):
        orchestrator.run_pipeline(pipelines.greeting("goodbye"), "two-1")
    assert failing.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    assert "the number 13 is not lucky" in (failing.error or "")
    assert failing.step_statuses()["after_broken"] is ExecutionStatus.CANCELLED


def test_schedules(airflow2: Airflow) -> None:
    orchestrator, schedule = orchestrator_of(airflow2), Schedule.of("daily", 6, timezone="America/New_York")
    made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
    found = wait_until(lambda: [i for i in orchestrator.schedules("conformance greeting") if i.next_runs])
    assert found[0].next_runs[0] == schedule.next_times()[0]
    assert orchestrator.pause_schedule(made.schedule_id).paused
    assert not orchestrator.resume_schedule(made.schedule_id).paused
    orchestrator.delete_schedule(made.schedule_id)
    assert orchestrator.schedules("conformance greeting") == []


@pytest.mark.beside
def test_drift_of_the_pause(airflow2: Airflow) -> None:
    """A user who may not read the audit log, one of FAB's own role `User`, uses schedules and is told of no drift."""
    orchestrator = orchestrator_of(airflow2)
    airflow2.command(
        "users", "create", "--username", "grace", "--password", "grace-word", "--role", "User",
        "--firstname", "G", "--lastname", "H", "--email", "g@example.org",
    )  # fmt: skip
    grace = orchestrator_of(airflow2, auth=("grace", "grace-word"))
    made = grace.schedule_pipeline(short("two drift"), Schedule.of("daily", 6))
    assert made.drift == ()
    airflow2.command("dags", "pause", made.schedule_id)
    assert "it was paused outside FlowyML" in orchestrator.schedules("two drift")[0].drift[0]
    assert (grace.schedules("two drift")[0].paused, grace.schedules("two drift")[0].drift) == (True, ())
    assert not grace.resume_schedule(made.schedule_id).paused
    assert orchestrator.schedules("two drift")[0].drift == ()
    path = f"/api/v1/dags/{made.schedule_id}"
    orchestrator.client.transport.call("PATCH", path, json={"is_paused": True})  # another client, without a mask
    assert "it was paused outside FlowyML" in orchestrator.schedules("two drift")[0].drift[0]
    assert orchestrator.pause_schedule(made.schedule_id).drift == ()
    grace.delete_schedule(made.schedule_id)


TEXTS = """
from datetime import datetime
from airflow.decorators import dag, task


@dag(dag_id="legacy_texts", schedule=None, start_date=datetime(2026, 1, 1), is_paused_upon_creation=False)
def legacy():
    @task
    def texts():
        return ["1234", "[1, 2]", "None", 7, None]

    @task
    def text():
        return "1234"

    @task
    def double(number):
        return number * 2

    texts()
    text()
    double.expand(number=[1, 2])


legacy()
"""


@pytest.mark.beside
def test_texts_stay_texts_and_mapped_tasks_give_lists(airflow2: Airflow) -> None:
    orchestrator = orchestrator_of(airflow2)
    (airflow2.dags_folder / "legacy_texts.py").write_text(TEXTS)
    wait_for_dag(airflow2, "legacy_texts")
    orchestrator.client.trigger("legacy_texts", "by-hand", {})
    handle = orchestrator.attach("legacy_texts/by-hand")
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    assert handle.outputs == {"texts": ["1234", "[1, 2]", "None", 7, None], "text": "1234", "double": [2, 4]}


@pytest.mark.beside
def test_cancel_stops_the_work_and_what_is_cleared_ends_as_it_ends(airflow2: Airflow, tmp_path: Path) -> None:
    orchestrator = orchestrator_of(airflow2)
    handle = orchestrator.run_pipeline(slow("two cancel", str(tmp_path), seconds=600))
    marks = tmp_path / "marks"
    pid = int(wait_until(lambda: marks.exists() and marks.read_text()))
    assert handle.cancel()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.CANCELLED
    wait_until(lambda: not is_running(pid))
    assert handle.step_statuses() == {"work": ExecutionStatus.CANCELLED}

    marks.unlink()
    marks.mkdir()  # so that it cannot be written
    call, path = orchestrator.client.transport.call, "/api/v1/dags/{}/dagRuns/{}".format(*handle.job_id.split("/"))
    before = call("GET", path)

    def runs_again() -> bool:
        """At times the scheduler writes back what it had read before the run was cleared. Then it is cleared again."""
        found = call("GET", path)
        if (found["state"], found["start_date"]) == (before["state"], before["start_date"]):
            call("POST", f"{path}/clear", json={"dry_run": False})
            return False
        return found["start_date"] is not None

    wait_until(runs_again)
    again = wait_until(lambda: (found := orchestrator.attach(handle.job_id)).status.is_terminal and found)
    assert again.status is ExecutionStatus.FAILED


def test_what_it_cannot_do_says_so(airflow2: Airflow) -> None:
    orchestrator, now = orchestrator_of(airflow2), datetime.now(UTC)
    orchestrator.deploy_pipeline(pipelines.greeting())
    with pytest.raises(UnsupportedFeatureError, match="no backfills in its API") as error:
        orchestrator.backfill("conformance greeting", now, now, parameters={"name": "Ada's"})
    command = shlex.split(str(error.value).split("`")[1])
    dag, given = orchestrator.deployer.dag_of("conformance greeting").dag["dag_id"], json.dumps({"name": "Ada's"})
    assert command[:4] == ["airflow", "dags", "backfill", dag]
    assert command[4:] == ["--start-date", now.isoformat(), "--end-date", now.isoformat(), "--conf", given]
    with pytest.raises(UnsupportedFeatureError, match="does not support /api/v1"):
        orchestrator.api_client()
    with pytest.raises(AuthenticationError, match="wrong user name or password"):
        orchestrator_of(airflow2, auth=(airflow2.username, "wrong")).runs()


@pytest.mark.beside
def test_an_import_error_is_raised(airflow2: Airflow) -> None:
    deploy_broken(orchestrator_of(airflow2), short("two broken"))
