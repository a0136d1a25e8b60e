"""DAGs that FlowyML did not write, operated on a real Airflow 3.3."""

from __future__ import annotations

import pytest

from flowyml.core.errors import RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from tests.adapters.airflow.operating import foreign_dag, orchestrator_of, wait_for_dag
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED


@pytest.mark.beside
def test_foreign_dags_are_operated(airflow3: Airflow) -> None:
    foreign_dag(airflow3, "legacy_etl")
    orchestrator = orchestrator_of(airflow3, dags_folder=None)
    handle = orchestrator.trigger("legacy_etl", "by-hand-1", parameters={"any": "conf"})
    assert orchestrator.trigger("legacy_etl", "by-hand-1").job_id == handle.job_id == "legacy_etl/by-hand-1"
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    assert handle.step_statuses() == {"extract": COMPLETED, "load": COMPLETED}
    assert handle.outputs == {"extract": 3, "load": 6}
    assert any("extracting by hand" in line.message for line in handle.logs())
    assert [run.run_id for run in orchestrator.runs("legacy_etl")] == ["by-hand-1"]
    with pytest.raises(RetryRefusedError, match="has no failed tasks to run again"):
        orchestrator.clear(handle.job_id)


BRANCHED = """
from datetime import datetime
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException


@dag(dag_id="legacy_branched", schedule=None, start_date=datetime(2026, 1, 1), is_paused_upon_creation=False)
def legacy():
    @task
    def maybe():
        raise AirflowSkipException("not today")

    @task
    def count(ti=None):
        return ti.try_number

    @task
    def broken(number):
        raise ValueError("the legacy DAG is broken")

    maybe()
    broken(count())


legacy()
"""


@pytest.mark.beside
def test_a_foreign_run_that_failed_is_read_and_run_again(airflow3: Airflow) -> None:
    (airflow3.dags_folder / "legacy_branched.py").write_text(BRANCHED)
    wait_for_dag(airflow3, "legacy_branched")
    orchestrator = orchestrator_of(airflow3)
    handle = orchestrator.trigger("legacy_branched")
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    steps = {step.name: (step.status, step.raw_status) for step in handle.step_runs()}
    assert steps["maybe"] == (COMPLETED, "skipped"), "as on every engine"
    assert steps["broken"] == (ExecutionStatus.FAILED, "failed")
    (trace,) = [line.message for line in handle.logs() if "ValueError: the legacy DAG is broken" in line.message]
    assert 'legacy_branched.py", line ' in trace
    assert trace.splitlines()[-1].endswith("in broken")
    assert orchestrator.outputs(handle.job_id) == {"count": 1}

    orchestrator.clear(handle.job_id)
    wait_until(lambda: {step.name: step.attempt for step in handle.step_runs()}.get("broken") == 2)
    handle = orchestrator.attach(handle.job_id)
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    assert orchestrator.outputs(handle.job_id) == {"count": 1}, "which went well and did not run again"
    orchestrator.clear(handle.job_id, failed_only=False)
    wait_until(lambda: orchestrator.outputs(handle.job_id) == {"count": 2})


MAPPED = """
from datetime import datetime
from airflow.sdk import dag, task


@dag(dag_id="legacy_mapped", schedule=None, start_date=datetime(2026, 1, 1), is_paused_upon_creation=False)
def legacy():
    @task
    def double(number):
        return number * 2 if number not in (3, 5) else None

    @task
    def many(**context):
        for number in range(120):
            context["ti"].xcom_push(f"key{number:03}", number)
        return "at the end"

    double.expand(number=list(range(6)))
    many()


legacy()
"""


@pytest.mark.beside
def test_outputs_of_mapped_tasks_and_of_many_xcoms(airflow3: Airflow) -> None:
    (airflow3.dags_folder / "legacy_mapped.py").write_text(MAPPED)
    wait_for_dag(airflow3, "legacy_mapped")
    orchestrator = orchestrator_of(airflow3)
    orchestrator.client.trigger("legacy_mapped", "by-hand-1", {})
    handle = orchestrator.attach("legacy_mapped/by-hand-1")
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    assert handle.outputs == {"double": [0, 2, 4, None, 8, None], "many": "at the end"}
    assert sorted(run.index for run in handle.step_runs() if run.name == "double") == [(n,) for n in range(6)]
    assert handle.step_statuses()["double"] is COMPLETED, "the items of a mapped task are one step"
