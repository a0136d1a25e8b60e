"""Runs and schedules on a real Airflow 3.3, beyond what every engine promises."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import (
    AuthenticationError,
    ConfigurationError,
    DefinitionError,
    EngineUnreachableError,
    OwnershipError,
    ParameterError,
    ScheduleError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.remote import RemoteOrchestrator, recognized_engine
from flowyml.testing import pipelines
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.client import ConflictError
from flowyml_airflow.names import dag_file
from tests.adapters.airflow.operating import orchestrator_of, other_code, short, slow
from tests.engines.airflow import READER, Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED


def test_hostile_run_ids(airflow3: Airflow, tmp_path: Path) -> None:
    """Airflow takes not all of them, and knows such a run by another id; hooks get the one that was given."""
    orchestrator, pipeline = orchestrator_of(airflow3), pipelines.hooked(str(tmp_path))
    ids = ['it\'s/../"1" ü 🚀', "..", "a?b#c%2F", "x" * 200, "scheduled__mine", "backfill__x"]
    handles = [orchestrator.run_pipeline(pipeline, run_id) for run_id in ids]
    assert [orchestrator.run_pipeline(pipeline, run_id).job_id for run_id in ids] == [each.job_id for each in handles]
    assert [handle.run_id for handle in handles] == ids
    assert [orchestrator.attach(handle.job_id).run_id for handle in handles] == ids
    assert orchestrator.get_run(handles[0].job_id).revision == pipeline.revision, "the commit of its code"
    for handle in handles:
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    wanted = {
        line for run_id in ids for line in (f"pipeline_start {run_id} False", f"pipeline_end {run_id} COMPLETED True")
    }
    wait_until(lambda: wanted <= {*(tmp_path / "journal").read_text().splitlines()})
    lines = list(handles[0].logs())
    assert not [line for line in lines if line.message.endswith(".log") or line.time is None], "Airflow's own lines"


def test_logs_that_are_gone(airflow: Airflow) -> None:
    orchestrator = orchestrator_of(airflow)
    handle = orchestrator.run_pipeline(short("operate without logs"))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    (folder,) = (airflow.home / "logs").glob("dag_id=*operate*without*logs*")
    shutil.rmtree(folder)
    (line,) = handle.logs()
    assert (line.level, line.step) == ("WARNING", "work")
    assert line.message.startswith("Airflow has no log of this attempt: Could not read served logs: ")


def test_a_paused_dag_is_unpaused_or_refused(airflow3: Airflow) -> None:
    orchestrator, careful = orchestrator_of(airflow3), orchestrator_of(airflow3, unpause=False)
    careful.deploy_pipeline(short("operate paused"))
    with pytest.raises(OwnershipError, match="is paused and unpause=False"):
        careful.run_pipeline(short("operate paused"))
    handle = orchestrator.run_pipeline(short("operate paused"))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    path = airflow3.dags_folder / dag_file("operate paused")
    before = path.read_bytes()
    orchestrator.client.transport.call("PATCH", f"/api/v2/dags/{path.stem}", json={"is_paused": True})  # an operator
    with pytest.raises(OwnershipError, match="is paused on purpose"):
        orchestrator.run_pipeline(short("operate paused", answer=2))
    assert path.read_bytes() == before, "nothing was deployed"
    with pytest.raises(OwnershipError, match="was paused in Airflow, and not by FlowyML"):
        orchestrator.schedule_pipeline(short("operate paused"), Schedule.of("daily", 3))
    with pytest.raises(OwnershipError, match="is paused on purpose"):
        orchestrator.trigger("operate paused")
    assert orchestrator.client.dag(path.stem)["is_paused"]
    forced = orchestrator.run_pipeline(short("operate paused", answer=2), force=True)
    assert forced.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 2}


@pytest.mark.beside
def test_code_under_development_does_not_replace_what_is_scheduled(airflow3: Airflow) -> None:
    orchestrator, name = orchestrator_of(airflow3), "operate development"
    made = orchestrator.schedule_pipeline(short(name), Schedule.of("daily", 3))
    path = airflow3.dags_folder / f"{made.schedule_id}.py"
    before = path.read_bytes()
    first = orchestrator.run_pipeline(short(name, answer=2), "mine")
    assert first.job_id == f"{made.schedule_id}__dev/mine"
    assert first.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 2}
    assert path.read_bytes() == before
    assert orchestrator.schedules(name)[0] == made
    assert [(run.run_id, run.pipeline) for run in orchestrator.runs(name)] == [("mine", name)]
    with pytest.raises(DefinitionError, match="belongs to a run of 'operate development' with other code"):
        orchestrator.run_pipeline(other_code(name), "mine")
    orchestrator.deploy_pipeline(short(name, answer=2))
    assert orchestrator.run_pipeline(short(name, answer=2), "mine").job_id == first.job_id, "the same run"
    deployed = orchestrator.run_pipeline(short(name, answer=2), "deployed")
    assert deployed.job_id == f"{made.schedule_id}/deployed"
    assert deployed.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 2}
    orchestrator.delete_schedule(made.schedule_id)


def test_a_paused_schedule_does_not_fire_because_of_a_run(airflow3: Airflow) -> None:
    orchestrator, made = orchestrator_of(airflow3), short("operate resting")
    schedule = orchestrator.schedule_pipeline(made, Schedule.of("daily", 3))
    first = orchestrator.run_pipeline(made, "resting-1")
    assert first.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    orchestrator.pause_schedule(schedule.schedule_id)
    assert orchestrator.run_pipeline(made, "resting-1").job_id == first.job_id, "the same run is found"
    with pytest.raises(OwnershipError, match="resuming it would start its schedule again"):
        orchestrator.run_pipeline(made, "resting-2")
    asked = orchestrator_of(airflow3, unpause=True).run_pipeline(made)
    assert asked.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    orchestrator.pause_schedule(schedule.schedule_id)
    orchestrator.delete_schedule(schedule.schedule_id)
    assert orchestrator.run_pipeline(made).wait_for_completion(2400, 0.5).status is COMPLETED


@pytest.mark.beside
def test_drift_is_shown(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    made = orchestrator.schedule_pipeline(short("operate drift"), Schedule.of("daily", 4))
    assert made.drift == ()
    assert orchestrator.pause_schedule(made.schedule_id).drift == ()
    client = orchestrator.client
    client.transport.call("PATCH", f"/api/v2/dags/{made.schedule_id}", json={"is_paused": False})
    (info,) = orchestrator.schedules("operate drift")
    assert info.drift == ("it was resumed outside FlowyML: in Airflow's UI, API or command line.",)
    assert orchestrator.resume_schedule(made.schedule_id).drift == ()
    airflow3.command("dags", "pause", made.schedule_id)
    assert "it was paused outside FlowyML" in orchestrator.schedules("operate drift")[0].drift[0]
    client.pause(made.schedule_id, False)
    assert orchestrator.schedules("operate drift")[0].drift == (), "it is as FlowyML left it"
    pattern = {"dag_id_pattern": made.schedule_id}
    client.transport.call("PATCH", "/api/v2/dags", params=pattern, json={"is_paused": True})
    assert "it was paused outside FlowyML" in orchestrator.schedules("operate drift")[0].drift[0]
    orchestrator.resume_schedule(made.schedule_id)
    orchestrator.delete_schedule(made.schedule_id)


@pytest.mark.beside
def test_a_schedule_outlives_changes_by_hand(airflow3: Airflow) -> None:
    orchestrator, name = orchestrator_of(airflow3), "operate by hand"
    made = orchestrator.schedule_pipeline(short(name), Schedule.of("daily", 5))
    path = airflow3.dags_folder / f"{made.schedule_id}.py"
    path.write_text(path.read_text() + "# reviewed by Ada\n")
    wait_until(lambda: "changed by hand" in "".join(orchestrator.schedules(name)[0].drift))
    assert orchestrator.pause_schedule(made.schedule_id).paused
    for change in (
        partial(orchestrator.delete_schedule, made.schedule_id),
        partial(orchestrator.deploy_pipeline, short(name)),
    ):
        with pytest.raises(OwnershipError, match="was edited after FlowyML wrote it"):
            change()
    orchestrator.deploy_pipeline(short(name, answer=2), force=True)
    assert orchestrator.schedules(name)[0].schedule == made.schedule

    path.write_text(path.read_text().replace("# flowyml: {", "# {"))
    wait_until(lambda: "# flowyml: {" not in orchestrator.client.source({"dag_id": made.schedule_id}))
    with pytest.raises(ConfigurationError, match=r"changed by hand, .* so its schedule cannot be kept"):
        orchestrator.deploy_pipeline(short(name, answer=3))
    path.unlink()  # which FlowyML would take for a file of somebody else's
    assert orchestrator.schedule_pipeline(short(name), Schedule.of("daily", 6)).drift == ()
    orchestrator.delete_schedule(made.schedule_id)


@pytest.mark.beside
def test_each_backfill_gives_its_own_runs(airflow3: Airflow) -> None:
    """Dates without a time zone are in UTC, and a pipeline is found by its own name from a URL alone."""
    orchestrator, name = orchestrator_of(airflow3), "operate backfills"
    start = datetime(2025, 1, 1, tzinfo=UTC)
    made = orchestrator.schedule_pipeline(short(name), Schedule.of("daily", 2, start=start))
    orchestrator.pause_schedule(made.schedule_id)
    orchestrator.resume_schedule(made.schedule_id)
    for wrong in ({"nubmer": 3}, {"number": "three"}):
        with pytest.raises(ParameterError, match=r"pipeline 'operate backfills': .*'number'"):
            orchestrator.backfill(name, start, start, parameters=wrong)
    remote = RemoteOrchestrator(airflow3.url, auth=(airflow3.username, airflow3.password))
    naive = start.replace(tzinfo=None)
    first = _backfilled(remote, name, naive, naive + timedelta(days=2))
    second = _backfilled(remote, name, start, start + timedelta(days=3))
    assert [handle.run_id[10:30] for handle in (*first, *second)] == [f"2025-01-0{day}T02:00:00+" for day in (1, 2, 3)]
    for handle in (*first, *second):
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    assert _backfilled(remote, name, start, start + timedelta(days=3)) == [], "each time has a run"
    with pytest.raises(ScheduleError, match=r"schedule of 'operate_backfills\w+' has no run from 2025-01-01 03:00:00"):
        _backfilled(remote, name, start + timedelta(hours=3), start + timedelta(hours=9))
    orchestrator.delete_schedule(made.schedule_id)


@pytest.mark.beside
def test_many_submit_at_once(airflow3: Airflow) -> None:
    """SQLite takes one writer at a time, and Airflow answers 500 to the others."""
    pipeline, ids = short("operate many"), [f"many-{number}" for number in range(12)]
    orchestrator_of(airflow3).deploy_pipeline(pipeline)
    with ThreadPoolExecutor(4) as threads:
        handles = list(threads.map(lambda run_id: orchestrator_of(airflow3).run_pipeline(pipeline, run_id), ids))
    assert [handle.run_id for handle in handles] == ids
    assert sorted(run.run_id for run in orchestrator_of(airflow3).runs("operate many")) == sorted(ids)


@pytest.mark.beside
def test_a_timeout_that_is_not_tried_again_is_a_timeout(airflow3: Airflow) -> None:
    @step(timeout=15, retry=OrchestratorRetryPolicy(max_attempts=3, retryable_errors=[ValueError]))
    def sleep() -> None:
        import time

        time.sleep(600)

    handle = orchestrator_of(airflow3).run_pipeline(Pipeline("operate late").add_step(sleep))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    (run,) = handle.step_runs()
    assert (run.status, run.attempt) == (ExecutionStatus.TIMEOUT, 1)
    assert handle.error == "step 'sleep' ran longer than its timeout and was stopped."


def test_a_failure_before_the_steps_is_reported(airflow3: Airflow, tmp_path: Path) -> None:
    """A file is gone from the worker: not even the hooks' own task can run."""
    orchestrator = orchestrator_of(airflow3)
    pipeline = pipelines.hooked(str(tmp_path))
    orchestrator.deploy_pipeline(pipeline)
    dag_id = orchestrator._deployer.compiled(pipeline.bundle(), None).dag_id
    plan = airflow3.dags_folder / "flowyml_bundles" / dag_id / "plan.json"
    hidden = plan.rename(plan.with_name(".new-plan.json"))
    try:
        orchestrator.client.pause(dag_id, False)
        orchestrator.client.trigger(dag_id, f"no-bundle-{tmp_path.name}", {"fails": False})
        handle = orchestrator.attach(f"{dag_id}/no-bundle-{tmp_path.name}")
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
        assert (handle.error or "").startswith("the hooks' on_pipeline_start: EngineError")
        assert any(line.step == "" and "flowyml" in line.message for line in handle.logs())
        assert "on_pipeline_start" not in handle.step_statuses()
    finally:
        hidden.rename(plan)


def test_removing_a_schedule_changes_nothing_else(airflow3: Airflow) -> None:
    python = str(airflow3.python)
    mine = orchestrator_of(airflow3, python=python, artifacts="/tmp/elsewhere")
    made = mine.schedule_pipeline(short("operate settings"), Schedule.of("daily", 5))
    path = airflow3.dags_folder / f"{made.schedule_id}.py"
    assert f'PYTHON = "{python}"' in path.read_text()
    orchestrator_of(airflow3).delete_schedule(made.schedule_id)
    text = path.read_text()
    assert f'PYTHON = "{python}"' in text
    assert 'ARTIFACTS = "/tmp/elsewhere"' in text
    assert "schedule=None" in text


def test_steps_that_failed_before_a_cancel_stay_failed(airflow3: Airflow, tmp_path: Path) -> None:
    @step(outputs=["never"])
    def broken() -> int:
        raise ValueError("broken before")

    pipeline = slow("operate cancel", str(tmp_path), seconds=300).add_step(broken)
    orchestrator = orchestrator_of(airflow3)
    handle = orchestrator.run_pipeline(pipeline)
    wait_until(lambda: handle.step_statuses()["broken"].is_failed and (tmp_path / "marks").exists())
    assert handle.cancel()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.CANCELLED
    dag, run_id = handle.job_id.split("/")
    for note in ("looked into it. Ada", "", "never read"):
        statuses = orchestrator_of(airflow3).attach(handle.job_id).step_statuses()
        assert statuses == {"work": ExecutionStatus.CANCELLED, "broken": ExecutionStatus.FAILED}
        assert orchestrator.runs("operate cancel")[0].status is ExecutionStatus.CANCELLED
        orchestrator.client.note(dag, run_id, note)


def test_airflows_own_client_for_the_rest(airflow3: Airflow) -> None:
    from airflow_client.client.api.pool_api import PoolApi
    from airflow_client.client.models.pool_body import PoolBody

    orchestrator = orchestrator_of(airflow3)
    assert recognized_engine(airflow3.url) == "airflow"
    assert str(orchestrator.health().version).startswith("3.")
    pools = PoolApi(orchestrator.api_client())
    pools.post_pool(PoolBody(name="warehouse", slots=3, include_deferred=False))
    assert {pool.name: pool.slots for pool in pools.get_pools().pools}["warehouse"] == 3
    pools.delete_pool("warehouse")
    with pytest.raises(AuthenticationError, match="refuses user 'admin'"):
        orchestrator_of(airflow3, auth=(airflow3.username, "wrong")).api_client()
    with pytest.raises(LookupError, match="has no DAG of 'no such'"):
        orchestrator.backfill("no such", datetime.now(UTC), datetime.now(UTC))


def test_what_a_user_may_not_do_names_the_permission(airflow3: Airflow) -> None:
    reader = orchestrator_of(airflow3, auth=(READER, airflow3.password))
    assert isinstance(reader.runs(), list)
    with pytest.raises(
        AuthenticationError, match=r"does not permit this to user 'reader'.* \"can create on DAG Runs\""
    ):
        reader.client.trigger("no_such", "r", {})
    with pytest.raises(AuthenticationError, match='PATCH /api/v2/dags/no_such needs the permission "can edit on DAGs"'):
        reader.client.pause("no_such", True)


def _backfilled(
    orchestrator: AirflowOrchestrator | RemoteOrchestrator, name: str, start: date, end: date
) -> list[SubmissionResult]:
    """On SQLite, Airflow refuses a backfill while something else writes; and while an earlier one is not yet over."""
    made: list[list[SubmissionResult]] = []

    def try_it() -> bool:
        try:
            made.append(orchestrator.backfill(name, start, end))
        except ConflictError:
            return False
        except EngineUnreachableError as error:
            if "locked" not in str(error):
                raise
        return bool(made)

    wait_until(try_it, every=1)
    return made[0]
