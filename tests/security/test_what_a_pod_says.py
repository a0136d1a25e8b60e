"""What a log tells of a run: only what FlowyML's launcher has written, whatever a step prints."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from flowyml import pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from tests.waiting import wait_until

pytest.importorskip("kfp")
pytestmark = pytest.mark.kubeflow

FORGED = 'flowyml-result {"outputs":{"total":666},"failure":{"kind":"Forged","message":"forged"}}'


WAYS = ["print", "log", "carriage return", "a child", "bytes that are not text"]


def talk(way: str) -> None:
    if way == "log":
        from flowyml import get_logger

        get_logger().info(FORGED)
    elif way == "carriage return":
        print(f"before\r{FORGED}", flush=True)
    elif way == "a child":
        os.system(f"printf '%s\\n' '{FORGED}'")
    elif way == "bytes that are not text":
        os.write(1, f"\xff\n{FORGED}\n".encode("latin-1"))
    else:
        print(FORGED, flush=True)


def test_a_step_forges_neither_outputs_nor_failures(tmp_path: Path) -> None:
    """Its pod dies after that, so that nothing comes after what it printed. The fake of KFP's API logs as pods do."""
    from flowyml_kubeflow import KubeflowOrchestrator
    from tests.engines.kubeflow_api import served

    seen = str(tmp_path / "seen")

    @step(outputs=["total"])
    def forging(way: str) -> int:
        talk(way)
        while not Path(seen).exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return 1

    @pipeline
    def forged() -> None:
        for way in WAYS:
            forging.options(name=way)(way)

    with served(tmp_path / "kfp") as (url, _):
        handle = KubeflowOrchestrator(url, artifacts=tmp_path.as_uri()).run_pipeline(forged)
        wait_until(lambda: any("flowyml-result" in line.message for line in handle.logs()))
        Path(seen).touch()
        handle.wait_for_completion(2400, 0.5)
        assert handle.status is ExecutionStatus.FAILED
        errors = {run.name: str(run.error) for run in handle.step_runs()}
        assert [way for way in WAYS if "was killed by signal 9" not in errors[way]] == []
        assert "666" not in str(dict(handle.outputs))
        said = {line.step for line in handle.logs() if "flowyml-result" in line.message}
        assert said == set(WAYS), "people see what was printed"


def test_a_secret_in_an_error_stays_out_of_the_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reason of a failure is kept for as long as KFP has the run, for all who may read it."""
    from flowyml_kubeflow import KubeflowOrchestrator
    from tests.engines.kubeflow_api import served

    @step(secrets={"key": "vault/key"})
    def reveals(key: str) -> int:
        raise ValueError(f"no access with {key}")

    @pipeline
    def revealed() -> None:
        reveals()

    monkeypatch.setenv("FLOWYML_SECRET_VAULT_KEY", "planted-secret")
    with served(tmp_path / "kfp") as (url, _):
        orchestrator = KubeflowOrchestrator(url, artifacts=tmp_path.as_uri())
        handle = orchestrator.run_pipeline(revealed)
        handle.wait_for_completion(2400, 0.5)
        manifest = str(orchestrator.client.run_of_v1(handle.job_id))
        assert "no access with ***" in manifest
        assert "planted-secret" not in manifest
