"""Metrics of runs on Airflow reach a Pushgateway from a process that ends right after its run.

Airflow's own Python has no prometheus-client, and its workers load the script that sets the collector all the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.airflow import Airflow
from tests.engines.prometheus import check_hook, check_process

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_a_process_that_ends_after_its_run_has_sent_its_metrics(airflow3: Airflow, tmp_path: Path) -> None:
    check_process(tmp_path, "measured_on_airflow", **environment(airflow3))


def test_a_hook_measures_runs_that_no_process_waits_for(airflow3: Airflow, tmp_path: Path) -> None:
    check_hook(tmp_path, "unattended_on_airflow", **environment(airflow3))


def environment(airflow: Airflow) -> dict[str, str]:
    return {
        **airflow.login, "FLOWYML_ORCHESTRATOR": "airflow", "FLOWYML_AIRFLOW_DAGS_FOLDER": str(airflow.dags_folder),
    }  # fmt: skip
