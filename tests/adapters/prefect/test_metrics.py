"""Metrics of runs on Prefect of a hook reach a Pushgateway from a process that ends right after."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.prefect import PrefectServer
from tests.engines.prometheus import check_hook

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_a_hook_measures_runs_that_no_process_waits_for(prefect: PrefectServer, tmp_path: Path) -> None:
    check_hook(tmp_path, "unattended_on_prefect", FLOWYML_ORCHESTRATOR=prefect.url)
