"""An example on a real Prefect, as its docstring and the docs tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowyml_prefect import PrefectOrchestrator
from tests.engines.prefect import PrefectServer

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

TRAINING = Path(__file__).parents[3] / "examples/train_classifier.py"


def test_an_example_runs_as_a_script(prefect: PrefectServer, orchestrator: PrefectOrchestrator, tmp_path: Path) -> None:
    """By somebody who has Prefect's address in the environment."""
    environment = {**os.environ, "PREFECT_API_URL": f"{prefect.url}/api", "FLOWYML_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-W", "error", TRAINING, "--on", "prefect", "--trees", "20"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "on prefect, job " in said
    assert "Status:   COMPLETED" in said
    assert "tumours that it has never seen." in said
    job = said.partition(", job ")[2].partition(".")[0]
    assert f"Look at:  {prefect.url}/runs/flow-run/{job}" in said
    assert orchestrator.get_run(job).parameters["trees"] == 20
