"""Airflow shows a changed DAG late: what is run right after a deployment waits for it, on a real 3.3.

Airflow writes the tasks, parameters and schedule of a DAG into its database every 30 s at most, by default.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from flowyml.core.errors import WaitTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml_airflow.compiler import CompiledDag, compile_dag
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.names import TAG
from tests.adapters.airflow.operating import orchestrator_of, other_code, short, with_another_step
from tests.engines.airflow import Airflow

COMPLETED = ExecutionStatus.COMPLETED


@pytest.fixture(scope="module")
def runs(frail3: Airflow) -> Iterator[Mapping[str, Future[None]]]:
    """Two tests side by side, since both wait for Airflow."""
    with ThreadPoolExecutor() as threads:
        yield {test.__name__: threads.submit(test, frail3) for test in (run_changed_steps, trigger_and_backfill)}


@pytest.mark.airflow
@pytest.mark.slow
def test_changed_code_alone_does_not_wait(
    runs: object, frail3: Airflow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers read it from the file: only tasks, parameters and schedule are in Airflow's database."""
    monkeypatch.setattr("flowyml.core.progress._A_WHILE", 0)
    name, orchestrator = "late code", orchestrator_of(frail3)
    orchestrator.run_pipeline(short(name))
    handle = orchestrator.run_pipeline(other_code(name))
    assert "waiting for Airflow to show the tasks and parameters of 'late code'" not in caplog.text
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 2}


@pytest.mark.airflow
@pytest.mark.slow
def test_a_run_of_changed_steps_has_all_of_them(runs: Mapping[str, Future[None]]) -> None:
    runs["run_changed_steps"].result()


@pytest.mark.airflow
@pytest.mark.slow
def test_what_was_just_deployed_is_triggered_and_backfilled(runs: Mapping[str, Future[None]]) -> None:
    runs["trigger_and_backfill"].result()


def run_changed_steps(airflow: Airflow) -> None:
    orchestrator, name = orchestrator_of(airflow), "late steps"
    for pipeline, outputs in ((short(name), {"answer": 1}), (with_another_step(name), {"product": 2})):
        handle = orchestrator.run_pipeline(pipeline)
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
        assert {key: handle.outputs.get(key) for key in outputs} == outputs


def trigger_and_backfill(airflow: Airflow) -> None:
    name, start, day = "late parameters", datetime(2026, 1, 1, tzinfo=UTC), date(2026, 3, 1)
    orchestrator_of(airflow).deploy_pipeline(short(name))
    orchestrator_of(airflow).deploy_pipeline(with_another_step(name))
    handle = orchestrator_of(airflow).trigger(name, parameters={"factor": 5})
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs["product"] == 5
    orchestrator_of(airflow).schedule_pipeline(with_another_step(name), Schedule.of("daily", 2, start=start))
    (made,) = orchestrator_of(airflow).backfill(name, day, day, parameters={"factor": 7})
    assert made.wait_for_completion(timeout=2400, poll_interval=1).outputs["product"] == 7


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


def deployer_of(client: Any, timeout: float | None = None) -> AirflowDeployer:
    return AirflowDeployer(lambda: client, None, timeout)


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
