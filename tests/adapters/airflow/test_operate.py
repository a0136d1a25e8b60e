"""Runs, schedules and foreign DAGs on a real Airflow 3.3, beyond what every engine promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowyml.core.errors import AuthenticationError, EngineError, EngineUnreachableError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.remote import recognized_engine
from flowyml.testing import pipelines
from flowyml_airflow import AirflowOrchestrator
from tests.adapters.airflow.operating import foreign_dag, orchestrator_of, short, slow
from tests.engines.airflow import Airflow, wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED


def test_the_url_tells_the_engine(airflow3: Airflow) -> None:
    assert recognized_engine(airflow3.url) == "airflow"
    health = orchestrator_of(airflow3).health()
    assert health.reachable
    assert health.version is not None
    assert health.version.startswith("3.")


@pytest.mark.parametrize("run_id", ['it\'s/../"1" ü 🚀', "..", "a?b#c%2F", "x" * 200])
def test_hostile_run_ids(airflow3: Airflow, run_id: str) -> None:
    orchestrator = orchestrator_of(airflow3)
    first = orchestrator.run_pipeline(short("operate ids"), run_id)
    second = orchestrator.run_pipeline(short("operate ids"), run_id)
    assert first.job_id == second.job_id
    assert first.run_id == run_id
    assert orchestrator.attach(first.job_id).run_id == run_id
    assert first.wait_for_completion(timeout=60, poll_interval=0.5).status is COMPLETED


def test_hooks_are_told_the_run_id_that_was_given(airflow3: Airflow, tmp_path: Path) -> None:
    """Airflow takes neither blanks nor letters with marks, and knows the run by another id."""
    run_id = "nightly of müller, 1/2"
    handle = orchestrator_of(airflow3).run_pipeline(pipelines.hooked(str(tmp_path)), run_id)
    assert handle.wait_for_completion(timeout=60, poll_interval=0.5).status is COMPLETED, handle.error
    assert (handle.run_id, handle.run.parameters) == (run_id, {"fails": False})
    journal = tmp_path / "journal"
    lines = wait_until(lambda: (found := journal.read_text().splitlines()) and len(found) == 4 and found, 30)
    assert (lines[0], lines[3]) == (f"pipeline_start {run_id} False", f"pipeline_end {run_id} COMPLETED True")


def test_a_paused_dag_is_unpaused_or_refused(airflow3: Airflow) -> None:
    orchestrator, careful = orchestrator_of(airflow3), orchestrator_of(airflow3, unpause=False)
    careful.deploy_pipeline(short("operate paused"))
    with pytest.raises(EngineError, match="is paused and unpause=False"):
        careful.run_pipeline(short("operate paused"))
    handle = orchestrator.run_pipeline(short("operate paused"))
    assert handle.wait_for_completion(timeout=60, poll_interval=0.5).status is COMPLETED


def test_a_paused_schedule_does_not_fire_because_of_a_run(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    made = orchestrator.schedule_pipeline(short("operate resting"), Schedule.of("daily", 3))
    orchestrator.pause_schedule(made.schedule_id)
    with pytest.raises(EngineError, match="its schedule would fire again"):
        orchestrator.run_pipeline(short("operate resting"))
    asked = orchestrator_of(airflow3, unpause=True).run_pipeline(short("operate resting"))
    assert asked.wait_for_completion(timeout=60, poll_interval=0.5).status is COMPLETED
    orchestrator.delete_schedule(made.schedule_id)


def test_logs_are_followed_live(airflow3: Airflow, tmp_path: Path) -> None:
    handle = orchestrator_of(airflow3).run_pipeline(slow("operate logs", str(tmp_path), seconds=6))
    seen_while_running = 0
    lines = []
    for line in handle.logs(follow=True):
        lines.append(line.message)
        if "beat" in line.message and not handle.status.is_terminal:
            seen_while_running += 1
    assert [line for line in lines if line.startswith("beat")] == [f"beat {n}" for n in range(30)]
    assert seen_while_running > 5


def test_drift_is_shown(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    made = orchestrator.schedule_pipeline(short("operate drift"), Schedule.of("daily", 4))
    assert made.drift == ()
    assert orchestrator.pause_schedule(made.schedule_id).drift == ()
    client = orchestrator.client
    client.transport.call("PATCH", f"/api/v2/dags/{made.schedule_id}", json={"is_paused": False})
    (info,) = orchestrator.schedules("operate drift")
    assert info.drift == ("it was resumed by hand, in Airflow's UI or API.",)
    orchestrator.resume_schedule(made.schedule_id)
    path = airflow3.dags_folder / f"{made.schedule_id}.py"
    path.write_text(path.read_text().replace("0 4 * * *", "0 5 * * *"))
    changed = wait_until(lambda: orchestrator.schedules("operate drift")[0].drift, 60)
    assert "changed by hand" in changed[0] or "not what Airflow has read" in changed[0]
    assert orchestrator.schedule_pipeline(short("operate drift"), Schedule.of("daily", 4)).drift == ()
    orchestrator.delete_schedule(made.schedule_id)


def test_a_schedule_that_is_declared_again_changes_nothing(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    first = orchestrator.schedule_pipeline(short("operate again"), Schedule.of("hourly", 3))
    before = (airflow3.dags_folder / f"{first.schedule_id}.py").stat().st_mtime_ns
    again = orchestrator.schedule_pipeline(short("operate again"), Schedule.of("hourly", 3))
    assert again.schedule == first.schedule
    assert (airflow3.dags_folder / f"{first.schedule_id}.py").stat().st_mtime_ns == before
    run = orchestrator.run_pipeline(short("operate again", answer=5))
    assert run.wait_for_completion(timeout=60, poll_interval=0.5).outputs == {"answer": 5}
    assert orchestrator.schedules("operate again")[0].schedule.cron == "3 * * * *", "a run must keep the schedule"
    assert orchestrator.runs("operate again")[0].run_id == run.run_id, "nothing else fired"
    orchestrator.delete_schedule(first.schedule_id)


def test_backfill_of_a_date_range(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    made = orchestrator.schedule_pipeline(short("operate backfill"), Schedule.of("daily", 2, start=start))
    orchestrator.pause_schedule(made.schedule_id)
    orchestrator.resume_schedule(made.schedule_id)
    end = start + timedelta(days=2, hours=3)
    runs = wait_until(lambda: _backfilled(orchestrator, "operate backfill", start, end), 60)
    assert len(runs) == 3
    for handle in runs:
        assert handle.wait_for_completion(timeout=60, poll_interval=0.5).status is COMPLETED
    orchestrator.delete_schedule(made.schedule_id)


def test_foreign_dags_are_operated(airflow3: Airflow) -> None:
    foreign_dag(airflow3, "legacy_etl")
    orchestrator = orchestrator_of(airflow3, dags_folder=None)
    orchestrator.client.trigger("legacy_etl", "by-hand-1", {})
    handle = orchestrator.attach("legacy_etl/by-hand-1")
    assert handle.wait_for_completion(timeout=60, poll_interval=0.5).status is COMPLETED
    assert handle.step_statuses() == {"extract": COMPLETED, "load": COMPLETED}
    assert handle.outputs == {"extract": 3, "load": 6}
    assert any("extracting by hand" in line.message for line in handle.logs())
    assert [run.run_id for run in orchestrator.runs("legacy_etl")] == ["by-hand-1"]


def test_steps_that_failed_before_a_cancel_stay_failed(airflow3: Airflow, tmp_path: Path) -> None:
    from flowyml import step

    @step(outputs=["never"])
    def broken() -> int:
        raise ValueError("broken before")

    pipeline = slow("operate cancel", str(tmp_path), seconds=60).add_step(broken)
    orchestrator = orchestrator_of(airflow3)
    handle = orchestrator.run_pipeline(pipeline)
    wait_until(lambda: handle.step_statuses()["broken"].is_failed and (tmp_path / "marks").exists(), 60)
    assert handle.cancel()
    assert handle.wait_for_completion(timeout=60, poll_interval=0.5).status is ExecutionStatus.CANCELLED
    statuses = orchestrator_of(airflow3).attach(handle.job_id).step_statuses()
    assert statuses == {"work": ExecutionStatus.CANCELLED, "broken": ExecutionStatus.FAILED}


def test_airflows_own_client_for_the_rest(airflow3: Airflow) -> None:
    from airflow_client.client.api.pool_api import PoolApi
    from airflow_client.client.models.pool_body import PoolBody

    pools = PoolApi(orchestrator_of(airflow3).api_client())
    pools.post_pool(PoolBody(name="warehouse", slots=3, include_deferred=False))
    assert {pool.name: pool.slots for pool in pools.get_pools().pools}["warehouse"] == 3
    pools.delete_pool("warehouse")
    with pytest.raises(AuthenticationError, match="refuses user 'admin'"):
        orchestrator_of(airflow3, password="wrong").api_client()


def test_what_is_not_there_says_so(airflow3: Airflow) -> None:
    with pytest.raises(LookupError, match="has no DAG of 'no such'"):
        orchestrator_of(airflow3).backfill("no such", datetime.now(UTC), datetime.now(UTC))


def _backfilled(orchestrator: AirflowOrchestrator, name: str, start: datetime, end: datetime) -> list[SubmissionResult]:
    """On SQLite, Airflow itself refuses a backfill while something else writes, and asks to try again."""
    try:
        return orchestrator.backfill(name, start, end)
    except EngineUnreachableError as error:
        if "locked" not in str(error):
            raise
        return []
