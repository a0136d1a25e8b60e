"""A schedule stays, also where Airflow does not show it: it has not read the file yet, or lost the DAG for a moment."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.errors import ScheduleError, WaitTimeoutError
from flowyml.core.schedule import Schedule
from flowyml.testing.pipelines import greeting
from flowyml_airflow.backfills import backfill
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.deployed_dag import Deployed, facts_of
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.folder import LocalFolder
from flowyml_airflow.names import dag_file, development_id
from tests.adapters.airflow.operating import orchestrator_of, other_code, short
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

DAILY = Schedule.of("daily", 3)


def kept(folder: Path, found: Deployed | None) -> Any:
    """The schedule that a deployment of changed code would write."""
    client: Any = None
    deployer = AirflowDeployer(lambda: client, LocalFolder(folder))
    return facts_of(deployer.kept(other_code("kept").bundle(), found).text).get("schedule")


def shown(schedule: Schedule | None) -> Deployed:
    """The DAG as Airflow shows it."""

    class Client:
        integers = None

        def source(self, dag: Any) -> str:
            return compile_dag(short("kept").bundle(), schedule=schedule).text

        def command(self, what: str) -> str:
            return f"flowyml {what}"

    client: Any = Client()
    tags = [{"name": "flowyml"}]
    return Deployed({"dag_id": "kept", "tags": tags, "timetable_summary": schedule and "0 3 * * *"}, client)


def test_the_schedule_is_that_of_the_file_which_airflow_may_have_yet_to_read(tmp_path: Path) -> None:
    assert kept(tmp_path, None) is None
    assert kept(tmp_path, shown(DAILY)) == DAILY.to_dict(), "there is no file, as on another machine"
    path = tmp_path / dag_file("kept")
    path.write_text(compile_dag(short("kept").bundle(), schedule=DAILY).text)
    assert kept(tmp_path, None) == DAILY.to_dict()
    assert kept(tmp_path, shown(None)) == DAILY.to_dict()
    path.write_text(compile_dag(short("kept").bundle()).text)
    assert kept(tmp_path, shown(DAILY)) is None, "it was deleted, and Airflow has yet to read that"


def test_a_declared_schedule_is_compiled_as_it_is_declared_unless_another_or_none_is_given() -> None:
    declared = greeting(schedule=DAILY).bundle()
    assert facts_of(compile_dag(declared).text)["schedule"] == DAILY.to_dict()
    assert "start_date=datetime(2020, 1, 1, tzinfo=timezone.utc)" in compile_dag(declared).text, "no clock"
    assert facts_of(compile_dag(declared, schedule=None).text)["schedule"] is None
    assert compile_dag(declared, schedule=None).bundle.data == compile_dag(declared).bundle.data


def test_a_backfill_before_the_start_of_a_schedule_names_that() -> None:
    """One without a start begins when it is created."""
    found = shown(Schedule.of("daily", 3, start=datetime(2026, 5, 1, tzinfo=UTC)))
    begins = r"has no run from 2026-03-01 .*: it starts at 2026-05-01 00:00:00\+00:00\. Choose another range"
    with pytest.raises(ScheduleError, match=begins):
        backfill(found, date(2026, 3, 1), date(2026, 3, 31), {})


@pytest.mark.airflow
@pytest.mark.slow
def test_a_run_and_a_deployment_keep_a_schedule_that_airflow_has_not_read(frail3: Airflow) -> None:
    name, path = "kept pending", frail3.dags_folder / dag_file("kept pending")
    frail3.kill("dag-processor")
    hasty = orchestrator_of(frail3, deploy_timeout=2)
    with pytest.raises(WaitTimeoutError, match="has not read"):
        hasty.schedule_pipeline(short(name), DAILY)
    scheduled = facts_of(path.read_text())["schedule"]
    before = path.read_bytes()
    with pytest.raises(WaitTimeoutError, match=development_id(name)):
        hasty.run_pipeline(other_code(name))
    assert path.read_bytes() == before, "a run never changes what is scheduled"
    with pytest.raises(WaitTimeoutError):
        hasty.deploy_pipeline(other_code(name))
    assert facts_of(path.read_text())["schedule"] == scheduled
    frail3.start("dag-processor")
    orchestrator = orchestrator_of(frail3)
    wait_until(lambda: orchestrator.schedules(name))
    assert [each.schedule.to_dict() for each in orchestrator.schedules(name)] == [scheduled]
