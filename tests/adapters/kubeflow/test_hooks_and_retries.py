"""Hooks and retries in a compiled file, and what their containers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml.testing import pipelines
from flowyml_kubeflow.compiler import compile_pipeline


def policy(attempts: int, delay: float, **more: Any) -> OrchestratorRetryPolicy:
    return OrchestratorRetryPolicy(max_attempts=attempts, initial_delay_seconds=delay, **more)


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [
        (policy(4, 2, backoff_multiplier=1.5), 4 * 60 + 2 + 3 + 4),
        (policy(4, 2, max_delay_seconds=3), 4 * 60 + 2 + 3 + 3),
        (policy(3, 40, retryable_errors=["Connection"]), 3 * 60 + 40 + 80),
        (policy(3, 5), 3 * 60 + 5 + 10),
    ],
    ids=["factor", "cap", "certain errors", "plain"],
)  # fmt: skip
def test_retries_happen_in_the_pod(retry: OrchestratorRetryPolicy, seconds: int) -> None:
    """It has the time for all of them; other steps have pods of their own time."""
    steps = (Step(name="a", function="m:f", timeout_seconds=60, retry=retry), Step(name="b", function="m:f"))
    made = compile_pipeline(build(Plan(name="patient", steps=steps)), store="s3://code")
    assert "retryPolicy" not in made.spec["root"]["dag"]["tasks"]["a"]
    pods = made.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name: pod.get("activeDeadlineSeconds") for name, pod in pods.items()} == {"exec-a": str(seconds + 1801)}


@pytest.mark.parametrize(
    ("state", "status"),
    [("SUCCEEDED", "COMPLETED"), ("COMPLETE", "COMPLETED"), ("CACHED", "COMPLETED"), ("CANCELED", "CANCELLED"),
     ("FAILED", "FAILED"), ("UNKNOWN", "FAILED")],
)  # fmt: skip
def test_the_last_hook_gets_the_status_in_whatever_words_kfp_has(state: str, status: str, tmp_path: Path) -> None:
    """Of the API, and of its metadata store, which is where the driver takes it from."""
    from flowyml_kubeflow import worker

    bundle = compile_pipeline(pipelines.hooked(str(tmp_path)).bundle()).bundle.write(tmp_path)
    given = {"run-name": "run 1", "started-at": "1.0", "status-of-steps": {"state": state}}
    output = {"outputFile": str(tmp_path / "output.json")}
    text = json.dumps({"inputs": {"parameterValues": given}, "outputs": output})
    assert worker.main([str(bundle), "end", text, "{}"]) == 0
    assert (tmp_path / "journal").read_text() == f"pipeline_end run 1 {status} True\n"
