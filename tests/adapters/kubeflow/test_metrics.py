"""Metrics of a hook of runs by KFP's local runner reach a Pushgateway from a process that ends right after."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.prometheus import check_hook

pytestmark = [pytest.mark.kubeflow, pytest.mark.slow]


def test_a_hook_measures_runs_that_no_process_waits_for(tmp_path: Path) -> None:
    check_hook(tmp_path, "unattended_on_kfp_local", FLOWYML_ORCHESTRATOR="kubeflow-local")
