"""Imported DAGs run on Airflow 3, on Prefect and locally with the states and values of the DAGs that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml import Pipeline
from flowyml.core.execution_status import ExecutionStatus
from flowyml.migration.airflow.reader.reading import read_file
from flowyml.migration.airflow.writer.text.modules import write_module
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.http import NotFoundError
from flowyml_prefect import PrefectOrchestrator
from tests.adapters.airflow.operating import orchestrator_of, wait_for_dag
from tests.engines.airflow import Airflow
from tests.engines.prefect import PrefectServer
from tests.unit.migration.modules import pipeline
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.prefect, pytest.mark.slow]

EXAMPLES = (
    "airflow/example_dags/example_nested_branch_dag.py",
    "airflow/example_dags/tutorial_taskflow_api.py",
    "airflow/providers/standard/example_dags/example_short_circuit_decorator.py",
)
ASKING = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

with DAG("example_asking", schedule=None, params={"country": "at"}):
    @task
    def path(text, ds=None, **kwargs):
        return f"{text} {ds} {kwargs['params']['country']}"

    @task.branch
    def choose(day: str):
        if day == "2026-03-01":
            return ["one", "two"]
        return ["three"]

    @task
    def twice(n):
        return 2 * n

    @task(trigger_rule="all_done")
    def last(before, doubled, other="x"):
        return [before, sum(doubled), other]

    say = BashOperator(task_id="say", bash_command="echo {{ ds_nodash }} {{ params.country }}")
    choose("{{ ds }}") >> [BashOperator(task_id=name, bash_command=f"echo {name}") for name in ("one", "two", "three")]
    last(path("s3://{{ ds }}/{{ macros.ds_add(ds, -1) }}"), twice.expand(n=[1, 2]))
"""
DATE = "2026-03-01T05:06:07+00:00"
PARAMETERS = {"ds": "2026-03-01", "logical_date": DATE}

# A step that takes one value out of a dict that a task returned: the report says that there is one more.
PICKED = {"transform.total_order_value"}

Ends = Mapping[str, str]


def _sources(airflow: Airflow) -> dict[str, str]:
    (site,) = airflow.python.parent.parent.glob("lib/python3.*/site-packages")
    return {Path(name).stem: (site / name).read_text() for name in EXAMPLES} | {"example_asking": ASKING}


def _imported(folder: Path, name: str, text: str) -> Pipeline:
    path = folder / f"{name}.py"
    path.write_text(text)
    return pipeline(folder, write_module(read_file(path, root=folder), text))


def _original(airflow: Airflow, name: str) -> tuple[Ends, Mapping[str, Any]]:
    """How the tasks of the DAG itself ended, and what they returned."""
    wait_for_dag(airflow, name)
    client = orchestrator_of(airflow).client
    client.transport.call("PATCH", f"/api/v2/dags/{name}", json={"is_paused": False})
    run = "by_hand"
    wait_until(
        lambda: client.transport.call(
            "POST", f"/api/v2/dags/{name}/dagRuns", json={"dag_run_id": run, "logical_date": DATE, "conf": {}}
        )
    )
    path = f"/api/v2/dags/{name}/dagRuns/{run}"
    state = wait_until(lambda: (found := client.transport.get(path)["state"]) in ("success", "failed") and found)
    tasks = client.task_instances(name, run)
    failed = [each["task_id"] for each in tasks if each["state"] not in ("success", "skipped")]
    logs = {task: client.transport.get(f"{path}/taskInstances/{task}/logs/1") for task in failed}
    assert state == "success", logs
    values = {}
    for each in tasks:
        if each["map_index"] == -1:
            with suppress(NotFoundError):  # one that skips others, and one that does nothing, leaves no value
                values[each["task_id"]] = client.xcom(name, run, each["task_id"])
    return {each["task_id"]: "skipped" if each["state"] == "skipped" else "ran" for each in tasks}, values


def _ours(orchestrator: Orchestrator, imported: Pipeline) -> tuple[Ends, Mapping[str, Any]]:
    known = {parameter.name for parameter in imported.compile().parameters}
    given = {name: value for name, value in PARAMETERS.items() if name in known}
    handle = orchestrator.run_pipeline(imported, parameters=given)
    assert handle.wait_for_completion(timeout=2400).status is ExecutionStatus.COMPLETED, handle.error
    ends = {each.name: "skipped" if each.raw_status == "skipped" else "ran" for each in handle.step_runs()}
    return ends, dict(handle.outputs)


def test_imported_dags_run_as_their_originals_do(airflow3: Airflow, prefect: PrefectServer, tmp_path: Path) -> None:
    texts = _sources(airflow3)
    for name, text in texts.items():
        (airflow3.dags_folder / f"original_{name}.py").write_text(text.replace(name, f"original_{name}"))
    pipelines = {name: _imported(tmp_path, f"imported_{name}", text) for name, text in texts.items()}
    engines = [
        LocalOrchestrator(), PrefectOrchestrator(prefect.url),
        orchestrator_of(airflow3, artifacts=f"{tmp_path}/artifacts"),
    ]  # fmt: skip
    with ThreadPoolExecutor(max_workers=8) as pool:
        wanted = {name: pool.submit(_original, airflow3, f"original_{name}") for name in texts}
        found = {
            (name, engine.name): pool.submit(_ours, engine, imported)
            for engine in engines
            for name, imported in pipelines.items()
        }
        for (name, engine), each in found.items():
            ends, outputs = each.result()
            states, values = wanted[name].result()
            assert {task: end for task, end in ends.items() if task not in PICKED} == states, (name, engine)
            same = {task: value for task, value in outputs.items() if value is not None}
            assert same == {task: values.get(task) for task in same}, (name, engine)
            assert name != "example_asking" or same["say"] == "20260301 at"
