"""Metrics of runs on Prefect reach a Pushgateway from a process that ends right after its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.prefect import PrefectServer
from tests.engines.prometheus import check_hook, check_process

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_a_process_that_ends_after_its_run_has_sent_its_metrics(prefect: PrefectServer, tmp_path: Path) -> None:
    check_process(tmp_path, "measured_on_prefect", FLOWYML_ORCHESTRATOR=prefect.url)


def test_a_hook_measures_runs_that_no_process_waits_for(prefect: PrefectServer, tmp_path: Path) -> None:
    check_hook(tmp_path, "unattended_on_prefect", FLOWYML_ORCHESTRATOR=prefect.url)
