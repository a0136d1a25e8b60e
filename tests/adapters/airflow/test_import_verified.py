"""Airflow's shipped example DAGs become pipelines, and Airflow's own DagBag finds the same in what they compile to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.airflow import airflow_python
from tests.unit.commands import flowyml

pytest.importorskip("libcst")

# Steps that FlowyML has no words for yet, one DAG each, and teardowns, which it ends by another rule.
OTHERWISE = {
    "example_dynamic_task_mapping_with_no_taskflow_operators", "example_setup_teardown",
    "example_setup_teardown_taskflow", "example_task_state_store_mapped", "tutorial_taskflow_api",
    "tutorial_taskflow_api_virtualenv",
}  # fmt: skip


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shipped_examples_are_the_same_to_airflow(tmp_path: Path) -> None:
    python = airflow_python(3)
    (examples,) = python.parent.parent.glob("lib/python*/site-packages/airflow/example_dags")
    given = ["import", "airflow", str(examples), "-o", str(tmp_path), "--verify", str(python), "--json"]
    found = json.loads(flowyml(*given).out)["verified"]
    compared = [each for each in found if each["problem"] is None]
    assert len(compared) >= len(found) - 2, [each for each in found if each["problem"]]  # two need Kubernetes
    differing = {each["dag_id"] for each in compared if any(": schedule: " not in line for line in each["differences"])}
    assert differing <= OTHERWISE
    assert not [line for each in compared for line in each["differences"] if "timetable:Cron" in line]
