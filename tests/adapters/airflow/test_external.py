"""``external_dag``: a step that runs a DAG of a real Airflow 3.3, on every engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators.base import Orchestrator
from flowyml_airflow import external_dag
from tests.adapters.airflow.operating import foreign_dag, orchestrator_of
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


@pytest.fixture(scope="module")
def dags(airflow3: Airflow) -> Airflow:
    """The Airflow, with a DAG that goes well and one that fails."""
    foreign_dag(airflow3, "legacy_good")
    foreign_dag(airflow3, "legacy_bad", fails=True)
    return airflow3


@pytest.fixture
def named(dags: Airflow, monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """The Airflow that the environment names, here and on the workers that are started from here."""
    for variable, value in settings(dags).items():
        monkeypatch.setenv(variable, value)
    return dags


def settings(airflow: Airflow) -> dict[str, str]:
    values = {"URL": airflow.url, "USERNAME": airflow.username, "PASSWORD": airflow.password}
    return {f"FLOWYML_AIRFLOW_{name}": value for name, value in values.items()}


def around(dag_id: str, **options: Any) -> Pipeline:
    """A step, the DAG that takes its output, and a step that takes what the DAG's run was."""

    @step(outputs=["rows"])
    def count() -> int:
        return 5

    @step(name="report", inputs=[dag_id], outputs=["report"])
    def report(**ran: Any) -> str:
        return f"{ran[dag_id]['dag_id']}: {ran[dag_id]['state']}"

    waits = external_dag(dag_id, inputs=["rows"], poll_interval=0.5, timeout=90, **options)
    return Pipeline(f"around {dag_id}", outputs=[dag_id, "report"]).add_step(count).add_step(waits).add_step(report)


def check_on(orchestrator: Orchestrator, airflow: Airflow, **options: Any) -> None:
    """The DAG ran with the input as its conf; and what runs a DAG that fails, fails with it."""
    handle = orchestrator.run_pipeline(around("legacy_good", **options))
    assert handle.wait_for_completion(timeout=150, poll_interval=0.5).status is COMPLETED, handle.error
    ran = handle.outputs["legacy_good"]
    assert handle.outputs["report"] == "legacy_good: success"
    assert f"/dags/legacy_good/runs/{ran['run_id']}" in ran["url"]
    there = orchestrator_of(airflow).attach(f"legacy_good/{ran['run_id']}")
    assert (there.status, there.run.parameters) == (COMPLETED, {"rows": 5})

    broken = orchestrator.run_pipeline(around("legacy_bad", **options))
    assert broken.wait_for_completion(timeout=150, poll_interval=0.5).status is FAILED
    assert f"The DAG 'legacy_bad' failed: see {airflow.url}" in (broken.error or "")
    assert broken.step_statuses()["legacy_bad"] is FAILED


@pytest.mark.parametrize("fails", [False, True])
def test_a_pipeline_runs_an_existing_dag_and_fails_with_it(named: Airflow, fails: bool) -> None:
    """On the local orchestrator, in the caller's process and in one of its own, as on any engine."""
    name = f"legacy_{'bad' if fails else 'good'}"
    pipeline = Pipeline(f"around {name}").add_step(external_dag(name, conf={"rows": 5}, poll_interval=0.5, timeout=90))
    result = pipeline.run()
    if fails:
        assert f"The DAG '{name}' failed: see {named.url}" in (result.error or "")
    else:
        assert result.success, result.error
        assert result[name]["state"] == "success"


@pytest.mark.prefect
def test_on_prefect(named: Airflow, prefect_url: str) -> None:
    from flowyml_prefect import PrefectOrchestrator

    with closing(PrefectOrchestrator(prefect_url)) as orchestrator:
        check_on(orchestrator, named)


@pytest.mark.kubeflow
def test_on_kubeflows_local_runner(named: Airflow) -> None:
    from flowyml_kubeflow import KubeflowOrchestrator

    check_on(KubeflowOrchestrator(runner="subprocess"), named)


def test_on_airflow_itself(dags: Airflow) -> None:
    """The workers' own environment says who asks; see ``conftest``."""
    check_on(orchestrator_of(dags), dags, url=dags.url)


@pytest.mark.parametrize("dag_id", ["legacy_good", "legacy_bad"])
def test_it_needs_nothing_but_python(dags: Airflow, tmp_path: Path, dag_id: str) -> None:
    """No installed package can be seen, and nothing of this checkout."""
    pipeline = Pipeline("around").add_step(external_dag(dag_id, conf={"rows": 5}, poll_interval=0.5))
    bundle = tmp_path / "around.pyz"
    bundle.write_bytes(pipeline.bundle().data)
    bare = {"PATH": os.defpath, "HOME": str(tmp_path), "FLOWYML_HOME": str(tmp_path), **settings(dags)}
    command = [sys.executable, "-I", "-S", bundle, "step", dag_id]
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=120, check=False)
    if dag_id == "legacy_bad":
        assert done.returncode == 1
        assert "The DAG 'legacy_bad' failed" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "Airflow runs legacy_good: " in done.stdout
    (answer,) = json.loads(done.stdout.splitlines()[-1]).values()
    assert json.dumps(answer).count('"success"') == 1
    run = orchestrator_of(dags).runs("legacy_good")[0]
    assert (run.parameters, run.run_id in json.dumps(answer)) == ({"rows": 5}, True)
