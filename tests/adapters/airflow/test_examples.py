"""Examples on a real Airflow 3: the one of `make demo ON=airflow`, as the demo runs it, and the one around a DAG."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.airflow.operating import foreign_dag, orchestrator_of
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    """What scripts/demo_airflow.py defines."""
    before = list(sys.path)
    try:
        return runpy.run_path(str(ROOT / "scripts/demo_airflow.py"))
    finally:
        sys.path[:] = before


def test_the_classifier_is_trained_and_its_metrics_are_read_back(
    airflow3: Airflow, demo: dict[str, Any], tmp_path: Path
) -> None:
    target = demo["settings"](airflow3, str(tmp_path))
    command = [sys.executable, str(ROOT / "examples/train_classifier.py"), "--on", "airflow", "--trees", "50"]
    done = subprocess.run(
        command, env={**os.environ, **target}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Status:   COMPLETED" in done.stdout
    orchestrator = orchestrator_of(airflow3, artifacts=f"{tmp_path}/artifacts")
    run = orchestrator.runs("train-classifier")[0]
    outputs = orchestrator.attach(run.job_id).outputs
    assert f"Metrics:  {outputs['metrics']}" in done.stdout
    assert outputs["metrics"]["accuracy"] > 0.9
    assert set(outputs["scores"]) == {"forest", "logistic"}
    assert run.parameters["trees"] == 50


def test_an_existing_dag_gets_steps_before_and_after_it(airflow3: Airflow, tmp_path: Path) -> None:
    foreign_dag(airflow3, "load_warehouse")
    settings = {"URL": airflow3.url, "USERNAME": airflow3.username, "PASSWORD": airflow3.password}
    environment = {f"FLOWYML_AIRFLOW_{name}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/around_a_dag.py")],
        env={**os.environ, **environment, "FLOWYML_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"orders, customers: success, see {airflow3.url}/dags/load_warehouse/runs/" in done.stdout
    assert len(orchestrator_of(airflow3).runs("load_warehouse")) == 1
