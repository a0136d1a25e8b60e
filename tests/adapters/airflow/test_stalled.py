"""What Airflow's state of a run does not show, FlowyML says. On a real 3.3 and 2.11.

Its DAG is paused, its file is deleted or gets other code, somebody marked it as failed, its date is before the start.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import EngineError, OutputNotKeptError, ScheduleError, WaitTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml_airflow import stalled
from flowyml_airflow.names import dag_file
from tests.adapters.airflow.operating import orchestrator_of, short
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def two_steps(name: str, folder: Path, added: int = 1) -> Pipeline:
    """The second waits for the first, which ends when it may."""

    @step(outputs=["one"])
    def first(folder: str) -> int:
        import time
        from pathlib import Path

        Path(folder, "begun").touch()
        while not Path(folder, "may end").exists():
            time.sleep(0.1)
        return 1

    @step(outputs=["two"])
    def second(one: int) -> int:
        return one + added

    return Pipeline(name, context=context(folder=str(folder))).add_step(first).add_step(second)


def test_deploying_other_code_names_the_runs_that_go_on(
    airflow3: Airflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is as the warning says: the second step of the run is that of the new code."""
    name, orchestrator = "other code", orchestrator_of(airflow3)
    handle = orchestrator.run_pipeline(two_steps(name, tmp_path))
    wait_until((tmp_path / "begun").exists)
    orchestrator.deploy_pipeline(two_steps(name, tmp_path))
    assert "has not ended" not in caplog.text, "nothing has changed"
    orchestrator.deploy_pipeline(two_steps(name, tmp_path, added=99))
    assert (
        f"Run {handle.run_id!r} of {name!r} has not ended, and this deployment changes the code of its DAG"
        in caplog.text
    )
    assert f"flowyml cancel {handle.job_id} --on airflow" in caplog.text
    (tmp_path / "may end").touch()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"two": 100}
    caplog.clear()
    orchestrator.deploy_pipeline(two_steps(name, tmp_path))
    assert "has not ended" not in caplog.text, "no run is in progress"


def test_a_run_whose_file_was_deleted_waits_and_says_so(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stalled, "YOUNG", timedelta(0))
    monkeypatch.setattr(stalled, "_EVERY", 1)
    pipeline = two_steps("missing", tmp_path)
    orchestrator = orchestrator_of(airflow)
    handle = orchestrator.run_pipeline(pipeline)
    wait_until((tmp_path / "begun").exists)
    assert not handle.status.is_terminal
    assert "has lost DAG" not in caplog.text
    (airflow.dags_folder / dag_file(pipeline.name)).unlink()
    wait_until(lambda: not handle.refresh().status.is_terminal and "has lost DAG" in caplog.text)
    assert caplog.text.count("has lost DAG") == 1
    assert f"flowyml cancel {handle.job_id} --on airflow" in caplog.text
    if airflow.major == 2:
        with pytest.raises(EngineError, match="is gone, and Airflow 2 cannot stop a run without it"):
            handle.cancel()
        assert not handle.refresh().status.is_terminal
    else:  # 2 may fail the task that it was about to start
        (tmp_path / "may end").touch()
        wait_until(lambda: handle.step_statuses()["first"] is ExecutionStatus.COMPLETED)
        assert handle.refresh().status is ExecutionStatus.RUNNING, "as Airflow has it"
    orchestrator.deploy_pipeline(pipeline)
    (tmp_path / "may end").touch()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"two": 2}


def test_waiting_for_a_run_of_a_paused_dag_names_the_pause(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stalled, "YOUNG", timedelta(0))
    monkeypatch.setattr(stalled, "_EVERY", 0)
    orchestrator = orchestrator_of(airflow)
    orchestrator.target = "af3"
    handle = orchestrator.run_pipeline(two_steps("paused", tmp_path))
    dag = handle.job_id.partition("/")[0]
    wait_until((tmp_path / "begun").exists)
    with pytest.raises(WaitTimeoutError, match=r"s\. It goes on\. Wait again, or cancel it with: .* --on af3$"):
        handle.wait_for_completion(timeout=0)
    orchestrator.client.pause(dag, True)
    page = orchestrator.client.dag_url(dag)
    said = f"DAG {dag!r} is paused, so no more tasks of run {handle.run_id!r} start. Unpause it in Airflow, on the page"
    with pytest.raises(WaitTimeoutError, match=re.escape(f"{said} {page}.")):
        handle.wait_for_completion(timeout=0)
    assert not handle.status.is_terminal
    assert caplog.text.count(said) == 1
    orchestrator.client.pause(dag, False)
    (tmp_path / "may end").touch()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"two": 2}


@pytest.mark.beside
@pytest.mark.parametrize(("airflow", "tidies"), [("airflow3", True), ("airflow2", False)], indirect=["airflow"])
def test_a_run_that_was_marked_as_failed_says_who_did_it(airflow: Airflow, tmp_path: Path, tidies: bool) -> None:
    """Also one with a clean-up, which Airflow runs: then it ends the run as a success."""

    @step
    def tidy() -> None:
        pass

    orchestrator, pipeline = orchestrator_of(airflow), two_steps("marked, tidied" if tidies else "marked", tmp_path)
    if tidies:
        with pipeline.cleanup():
            pipeline.add_step(tidy)
    handle = orchestrator.run_pipeline(pipeline)
    wait_until((tmp_path / "begun").exists)
    orchestrator.client.fail(*handle.job_id.split("/"))  # as the page of the run does
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    who = f"marked as failed in Airflow by user {airflow.username!r}, at 20"
    assert handle.raw_status == ("success" if tidies else "failed")
    assert [run.status for run in orchestrator.runs(pipeline.name)] == [ExecutionStatus.FAILED]
    wait_until(lambda: who in (handle.error or ""))  # a worker writes its last words a little later
    assert who in str({step.name: step.error for step in handle.step_runs()}["first"])


@pytest.mark.beside
def test_a_task_that_was_marked_as_failed_says_who_did_it(airflow3: Airflow, tmp_path: Path) -> None:
    orchestrator = orchestrator_of(airflow3)
    handle = orchestrator.run_pipeline(two_steps("marked task", tmp_path))
    wait_until((tmp_path / "begun").exists)
    dag, run_id = handle.job_id.split("/")
    path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/first"
    orchestrator.client.transport.call("PATCH", path, json={"new_state": "failed"})
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    wait_until(
        lambda: f"step 'first': marked as failed in Airflow by user {airflow3.username!r}" in (handle.error or "")
    )


def test_a_run_by_hand_before_the_start_of_the_schedule_runs(
    airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    """One that Airflow dates would have no task: it runs as a DAG of its own, or is refused."""
    orchestrator, pipeline = orchestrator_of(airflow), short("later", 7)
    orchestrator.target = "af3"
    schedule = Schedule.of("daily", 3, start=datetime.now(UTC) + timedelta(days=30))
    dag = orchestrator.schedule_pipeline(pipeline, schedule).schedule_id
    handle = orchestrator.run_pipeline(pipeline)
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 7}
    assert handle.job_id.startswith(f"{dag}/") is (airflow.major == 3)
    if airflow.major == 2:
        with pytest.raises(ScheduleError, match=r"without running any step.* flowyml run FILE --on af3\.$"):
            orchestrator.trigger(pipeline.name)
        with pytest.raises(ScheduleError, match="without running any step"):
            orchestrator_of(airflow, dags_folder=None).run_pipeline(pipeline)
    else:
        again = orchestrator.trigger(pipeline.name)
        assert again.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 7}
    orchestrator.client.trigger(dag, "by-hand", {}, is_dated=True)  # as Airflow's form does
    caplog.clear()
    empty = orchestrator.attach(f"{dag}/by-hand").wait_for_completion(timeout=2400, poll_interval=1)
    assert (empty.status, empty.step_runs()) == (ExecutionStatus.COMPLETED, ())
    assert caplog.text.count("Run 'by-hand' completed without running any step.") == 1
    with pytest.raises(OutputNotKeptError, match="before the start of the DAG"):
        empty.outputs["answer"]
    orchestrator.delete_schedule(dag)
