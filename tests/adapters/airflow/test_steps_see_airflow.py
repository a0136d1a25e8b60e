"""What Airflow offers to its tasks is there in a step whose interpreter is Airflow's own, on both Airflows.

What FlowyML alone decides, such as how parameters are filled, runs on Airflow 3.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml_airflow import AirflowOrchestrator
from tests.adapters.airflow.operating import orchestrator_of, set_connection, set_variable
from tests.adapters.airflow.seeing import by_form, by_interval, caught_up, dated, leaving, seeing, without_interval
from tests.engines.airflow import Airflow, airflow_python
from tests.engines.postgres import postgres
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED


def test_a_connection_a_variable_a_hook_and_the_context(airflow: Airflow, tmp_path: Path) -> None:
    set_variable(airflow, "flowyml_told", json.dumps({"answer": 42}))
    extra = json.dumps({"path": "/of/the/hook"})
    set_connection(airflow, "flowyml_files", conn_type="fs", password="secret word", extra=extra)
    handle = orchestrator_of(airflow).run_pipeline(seeing, parameters={"folder": str(tmp_path)})
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    assert handle.outputs["seen"] == {
        "variable": 42, "written": "by a step", "is a connection": True, "password": "secret word",
        "hook": "/of/the/hook", "task": "ask", "pulled": [1, 2], "run": handle.run_id,
    }  # fmt: skip
    assert {run.name: run.raw_status for run in handle.step_runs()} == {"ask": "success", "leave": "skipped"}
    assert any("logged at info" in line.message for line in handle.logs())


def test_a_run_whose_last_step_skips_itself_ends_once(airflow2: Airflow, tmp_path: Path) -> None:
    """Its process commits that twice, and the second time the state that the run had before."""
    if (server := postgres()) is None:
        pytest.skip("in SQLite, no table can be locked alone")
    handle = orchestrator_of(airflow2).run_pipeline(leaving, parameters={"folder": str(tmp_path)})
    wait_until((tmp_path / "began").exists)
    with server.locked(airflow2.database, "log"):  # to which the second time writes, too
        (tmp_path / "go").touch()
        run = wait_until(lambda: (run := handle.run).raw_status == "success" and run)
        assert run.status is ExecutionStatus.RUNNING
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED


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
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"found": [True, False]}, handle.error


@pytest.mark.beside
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
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    assert handle.outputs == {"first": 1, "second": 2}
    assert {run.name: run.attempt for run in handle.step_runs()} == {"crash": 2, "late": 2}


@pytest.mark.beside
def test_each_run_of_a_backfill_has_its_own_dates(airflow3: Airflow) -> None:
    """In the time zone of the schedule, the clocks of which went ahead on the 29th."""
    orchestrator = orchestrator_of(airflow3)
    schedule = Schedule.of("daily", 6, timezone="Europe/Berlin", start=datetime(2026, 3, 1, tzinfo=UTC))
    made = orchestrator.schedule_pipeline(dated, schedule)
    try:
        runs = wait_until(lambda: _backfilled(orchestrator, date(2026, 3, 29), date(2026, 3, 30)), every=1)
        _check_dates(runs)
    finally:
        orchestrator.delete_schedule(made.schedule_id)


@pytest.mark.beside
def test_each_run_that_is_caught_up_has_its_own_dates(airflow: Airflow) -> None:
    """The same by catch-up, which Airflow 2 has too."""
    orchestrator = orchestrator_of(airflow)
    start, end = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC)
    schedule = Schedule.of(
        "daily", 6, timezone="Europe/Berlin", start=start, end=end, catch_up=True, parameters={"word": "given"}
    )
    made = orchestrator.schedule_pipeline(caught_up, schedule)
    try:
        runs = wait_until(lambda: len(runs := orchestrator.runs("steps catch up")) == 2 and runs)
        handles = [orchestrator.attach(run.job_id) for run in sorted(runs, key=lambda run: run.run_id)]
        _check_dates(handles)
        assert [handle.outputs["word"] for handle in handles] == ["given"] * 2, "the parameters of the schedule"
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_fields_of_the_form_that_stay_empty_are_filled(airflow3: Airflow) -> None:
    """As "Trigger DAG" of Airflow's UI sends them."""
    orchestrator = orchestrator_of(airflow3)
    orchestrator.deploy_pipeline(by_form)
    since = "2026-03-01T06:00:00+00:00"
    dag = orchestrator.deployer.dag_of("steps by form").dag["dag_id"]
    shown = orchestrator.client.dag(dag)["params"]
    assert {name: each["value"] for name, each in shown.items()} == {"day": None, "since": None, "on": None}
    assert shown["since"]["description"] == "Leave it empty for the start of the run's data interval."
    orchestrator.client.pause(dag, False)
    orchestrator.client.trigger(dag, "by-form", {"day": None, "since": since, "on": None})
    handle = orchestrator.attach(f"{dag}/by-form")
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    day, begins, on, logical, *_ = handle.outputs["dates"]
    assert (day, begins, on) == (logical, since, logical[:10])


def test_a_run_has_the_data_interval_that_a_person_gave_it(airflow: Airflow) -> None:
    """In the time zone of the schedule, as all dates of a run."""
    orchestrator = orchestrator_of(airflow)
    schedule = Schedule(cron="0 6 1 1 *", timezone="Europe/Berlin", start=datetime(2026, 1, 2, tzinfo=UTC))
    made = orchestrator.schedule_pipeline(by_interval, schedule)
    try:
        dag = orchestrator.deployer.dag_of("steps by interval").dag["dag_id"]
        start, end = datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 1, 23, tzinfo=UTC)
        orchestrator.client.make_run(dag, "by-hand", datetime(2026, 3, 2, 23, 30, tzinfo=UTC), start, end)
        handle = orchestrator.attach(f"{dag}/by-hand")
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
        day, since = "2026-03-03T00:30:00+01:00", "2026-03-01T00:00:00+01:00"
        shown = ["2026-03-01 00:00:00+01:00", "2026-03-02 00:00:00+01:00"]
        assert handle.outputs["dates"] == [day, since, "2026-03-03", day, *shown]
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_a_parameter_that_cannot_be_filled_is_not_tried_again(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    orchestrator.deploy_pipeline(without_interval)
    dag = orchestrator.deployer.dag_of("steps lack an interval").dag["dag_id"]
    orchestrator.client.pause(dag, False)
    orchestrator.client.trigger(dag, "by-hand", {})
    handle = orchestrator.attach(f"{dag}/by-hand")
    handle.wait_for_completion(timeout=2400, poll_interval=1)
    assert "the run's data_interval_start, but this run has none" in (handle.error or "")
    assert {run.label: run.attempt for run in handle.step_runs()} == {"count[0]": 1, "count[1]": 1}


def _check_dates(runs: Sequence[SubmissionResult]) -> None:
    """Of the runs of the 29th and the 30th."""
    times = ["2026-03-28T06:00:00+01:00", "2026-03-29T06:00:00+02:00", "2026-03-30T06:00:00+02:00"]
    for handle, (since, day) in zip(runs, pairwise(times), strict=True):
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
        shown = [since.replace("T", " "), day.replace("T", " ")]
        assert handle.outputs["dates"] == [day, since, day[:10], day, *shown]


def _backfilled(orchestrator: AirflowOrchestrator, start: date, end: date) -> list[SubmissionResult]:
    with suppress(EngineError):  # SQLite was busy
        return orchestrator.backfill("steps know dates", start, end)
    return []


def test_a_step_of_a_cancelled_run_cleans_up_with_airflow_still_there(airflow3: Airflow, tmp_path: Path) -> None:
    @step
    def hold(folder: str) -> None:
        import time
        from pathlib import Path

        from airflow.sdk import Variable

        try:
            (Path(folder) / "begun").touch()
            time.sleep(600)
        finally:
            Variable.set("flowyml_tidied", folder)
            (Path(folder) / "tidied").write_text(Variable.get("flowyml_tidied"))

    orchestrator = orchestrator_of(airflow3)
    handle = orchestrator.run_pipeline(Pipeline("steps tidy up", context={"folder": str(tmp_path)}).add_step(hold))
    wait_until((tmp_path / "begun").exists)
    assert handle.cancel()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.CANCELLED
    tidied = tmp_path / "tidied"
    assert wait_until(lambda: tidied.exists() and tidied.read_text()) == str(tmp_path)
