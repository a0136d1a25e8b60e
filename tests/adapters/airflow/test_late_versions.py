"""Airflow shows a changed DAG late: what is run right after a deployment waits for it, on a real 3.3 and 2.11.

Airflow writes the tasks, parameters and schedule of a DAG into its database every 30 s at most, by default.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from flowyml.core.errors import WaitTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml_airflow.compiler import CompiledDag, compile_dag
from flowyml_airflow.deploy import Deployer
from flowyml_airflow.names import TAG
from tests.adapters.airflow.operating import orchestrator_of, other_code, short, with_another_step
from tests.engines import airflow as engines
from tests.engines.airflow import Airflow

COMPLETED = ExecutionStatus.COMPLETED
SETTINGS = {
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "30",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "5",
}


@pytest.fixture(scope="module", params=[3, 2])
def slow_to_show(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    running = engines.airflow3 if request.param == 3 else engines.airflow2
    with running(tmp_path_factory.mktemp("late"), SETTINGS) as airflow:
        yield airflow


@pytest.mark.airflow
@pytest.mark.slow
def test_a_run_of_changed_steps_has_all_of_them(slow_to_show: Airflow) -> None:
    orchestrator, name = orchestrator_of(slow_to_show), "late steps"
    for pipeline, outputs in ((short(name), {"answer": 1}), (with_another_step(name), {"product": 2})):
        handle = orchestrator.run_pipeline(pipeline)
        assert handle.wait_for_completion(timeout=240, poll_interval=0.5).status is COMPLETED, handle.error
        assert {key: handle.outputs.get(key) for key in outputs} == outputs


@pytest.mark.airflow
@pytest.mark.slow
def test_what_was_just_deployed_is_triggered_and_backfilled(slow_to_show: Airflow) -> None:
    name, start = "late parameters", datetime(2026, 1, 1, tzinfo=UTC)
    orchestrator_of(slow_to_show).deploy_pipeline(short(name))
    orchestrator_of(slow_to_show).deploy_pipeline(with_another_step(name))
    handle = orchestrator_of(slow_to_show).trigger(name, parameters={"factor": 5})
    assert handle.wait_for_completion(timeout=240, poll_interval=0.5).outputs["product"] == 5
    if slow_to_show.major == 3:
        orchestrator_of(slow_to_show).schedule_pipeline(with_another_step(name), Schedule.of("daily", 2, start=start))
        day = date(2026, 3, 1)
        (made,) = orchestrator_of(slow_to_show).backfill(name, day, day, parameters={"factor": 7})
        assert made.wait_for_completion(timeout=240, poll_interval=0.5).outputs["product"] == 7
    orchestrator = orchestrator_of(slow_to_show)
    for schedule in orchestrator.schedules(name):
        orchestrator.delete_schedule(schedule.schedule_id)


@pytest.mark.airflow
@pytest.mark.slow
def test_changed_code_alone_does_not_wait(slow_to_show: Airflow) -> None:
    """Workers read it from the file: only tasks, parameters and schedule are in Airflow's database."""
    name = "late code"
    orchestrator_of(slow_to_show).run_pipeline(short(name))
    impatient = orchestrator_of(slow_to_show, deploy_timeout=20)
    handle = impatient.run_pipeline(other_code(name))
    assert handle.wait_for_completion(timeout=240, poll_interval=0.5).outputs == {"answer": 2}


class Showing:
    """A client of an Airflow whose API shows one version of a DAG after the other."""

    can_backfill = True
    shows_changes_within = 60.0

    def __init__(self, *versions: CompiledDag) -> None:
        self.versions = list(versions)

    def dag(self, dag_id: str) -> dict[str, Any]:
        shown = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        docs = ast.get_docstring(ast.parse(shown.text))
        return {"dag_id": dag_id, "doc_md": docs, "fileloc": "late.py", "tags": [{"name": TAG}]}

    def source(self, dag: Mapping[str, Any]) -> str:
        """The file is that of the last version, as long as the others are shown."""
        return self.versions[-1].text


def deployer_of(client: Any, timeout: float | None = None) -> Deployer:
    return Deployer(lambda: client, None, timeout)


def test_a_version_is_waited_for_until_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flowyml.core.progress._A_WHILE", 0)
    old, new = (compile_dag(made.bundle()) for made in (short("late"), with_another_step("late")))
    client = Showing(old, old, new)
    found = deployer_of(client).found("late")
    assert found is not None
    assert found.structure == new.structure != old.structure
    assert not found.shows(found.structure)
    assert deployer_of(client).shown(found, found.structure).shows(new.structure)
    assert "waiting for Airflow to show the tasks and parameters of 'late'" in caplog.text


def test_a_version_that_is_not_shown_in_time_is_an_error_that_says_what_would_happen() -> None:
    old, new = (compile_dag(made.bundle()) for made in (short("late"), with_another_step("late")))
    client = Showing(old)
    deployer = deployer_of(client, 0.1)
    found = deployer.found("late")
    assert found is not None
    assert deployer.shown(found, old.structure) is found
    with pytest.raises(WaitTimeoutError, match=r"still shows the old tasks, .* Is its DAG processor running\?"):
        deployer.shown(found, new.structure)


def test_code_alone_changes_the_version_and_not_the_structure() -> None:
    one, other = (compile_dag(made.bundle()) for made in (short("late"), other_code("late")))
    assert one.version != other.version
    assert one.structure == other.structure
    assert compile_dag(short("late", answer=2).bundle()).structure != one.structure, "its default stands in the DAG"


def test_a_dag_of_others_and_one_that_was_changed_by_hand_are_not_waited_for() -> None:
    compiled = compile_dag(short("late").bundle())
    edited = replace(compiled, text=compiled.text.replace("schedule=None", 'schedule="@daily"'))
    found = deployer_of(Showing(edited)).found("late")
    assert found is not None
    assert found.structure is None
    assert found.shows(None)
