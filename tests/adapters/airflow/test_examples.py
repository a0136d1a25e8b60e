"""Examples on a real Airflow 3: the one of `make demo ON=airflow`, as the demo runs it, and the one around a DAG."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.airflow.operating import ENVIRONMENT, foreign_dag, orchestrator_of
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def ran(example: str, *words: str, **environment: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, example, *words], cwd=EXAMPLES, env={**ENVIRONMENT, **environment},
        capture_output=True, text=True, timeout=2400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def demo() -> Mapping[str, Any]:
    """What scripts/demo_airflow.py defines."""
    before = list(sys.path)
    try:
        return runpy.run_path(str(EXAMPLES.parent / "scripts/demo_airflow.py"))
    finally:
        sys.path[:] = before


@pytest.mark.beside
def test_the_classifier_is_trained_and_its_metrics_are_read_back(airflow3: Airflow, tmp_path: Path) -> None:
    target = demo()["settings"](airflow3, str(tmp_path))
    printed = ran("train_classifier.py", "--on", "airflow", "--trees", "50", **target)
    assert "Status:   COMPLETED" in printed
    orchestrator = orchestrator_of(airflow3, artifacts=f"{tmp_path}/artifacts")
    run = orchestrator.runs("train-classifier")[0]
    outputs = orchestrator.attach(run.job_id).outputs
    assert f"Metrics:  {outputs['metrics']}" in printed
    assert outputs["metrics"]["accuracy"] > 0.9
    assert set(outputs["scores"]) == {"forest", "logistic"}
    assert run.parameters["trees"] == 50


@pytest.mark.beside
def test_an_existing_dag_gets_steps_before_and_after_it(airflow3: Airflow, tmp_path: Path) -> None:
    foreign_dag(airflow3, "load_warehouse")
    printed = ran("around_a_dag.py", **airflow3.login, FLOWYML_HOME=str(tmp_path))
    assert f"orders, customers: success, see {airflow3.url}/dags/load_warehouse/runs/" in printed
    assert len(orchestrator_of(airflow3).runs("load_warehouse")) == 1
