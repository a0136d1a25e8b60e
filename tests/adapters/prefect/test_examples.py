"""The examples on a real Prefect, in each way that their docstrings and the docs tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import httpx
import pytest

from flowyml import Pipeline
from flowyml.plan.bundle import Bundle
from flowyml.plan.names import slug
from flowyml_prefect.compiler import compile_flow
from flowyml_prefect.orchestrator import PrefectOrchestrator
from tests.engines.prefect import PrefectServer
from tests.refusals import xfail_if_refused

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
GOLDEN = ROOT / "tests/golden/prefect"
TRAINING = EXAMPLES / "train_classifier.py"


def run(server: PrefectServer, folder: Path, *command: str | Path) -> str:
    """A command as somebody types it who has Prefect's address in the environment."""
    environment = {**os.environ, "PREFECT_API_URL": f"{server.url}/api", "FLOWYML_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_the_flow_of_an_example(example: str, update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its plan alone, so that a golden file changes with the compiler and not with the code of FlowyML."""
    monkeypatch.syspath_prepend(EXAMPLES)
    (pipeline,) = [made for made in vars(import_module(example)).values() if isinstance(made, Pipeline)]
    xfail_if_refused(pipeline.compile(), PrefectOrchestrator)
    text = compile_flow(Bundle(pipeline.compile(), b""))
    golden = GOLDEN / f"{slug(example, separator='_')}.py"
    if update_golden:
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


@pytest.mark.prefect
@pytest.mark.slow
def test_an_example_runs_as_a_script(prefect: PrefectServer, tmp_path: Path) -> None:
    said = run(prefect, tmp_path, "-W", "error", TRAINING, "--on", "prefect", "--trees", "20")
    assert "on prefect, job " in said
    assert "Status:   COMPLETED" in said
    assert "tumours that it has never seen." in said
    job = said.partition(", job ")[2].partition(".")[0]
    assert f"Look at:  {prefect.url}/runs/flow-run/{job}" in said
    assert httpx.get(f"{prefect.url}/api/flow_runs/{job}").json()["parameters"]["trees"] == 20


@pytest.mark.prefect
@pytest.mark.slow
def test_the_compiled_flow_of_an_example_runs_by_itself(prefect: PrefectServer, tmp_path: Path) -> None:
    """``flowyml compile … --to prefect -o flow.py``, and then plain ``python flow.py``."""
    run(prefect, tmp_path, "-m", "flowyml", "compile", TRAINING, "--to", "prefect", "-o", "flow.py")
    run(prefect, tmp_path, "flow.py", json.dumps({"trees": 21}))
    flows = {"flows": {"name": {"any_": ["train-classifier"]}}, "sort": "START_TIME_DESC"}
    found = httpx.post(f"{prefect.url}/api/flow_runs/filter", json=flows).json()
    (made,) = [flow_run for flow_run in found if flow_run["parameters"].get("trees") == 21]
    assert (made["state_name"], made["deployment_id"]) == ("Completed", None)
