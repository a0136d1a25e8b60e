"""What a log tells of a run: only what FlowyML's launcher has written, whatever a step prints."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from tests.waiting import wait_until

pytest.importorskip("kfp")
pytestmark = [pytest.mark.kubeflow, pytest.mark.filterwarnings("ignore:.*Argo's limit:UserWarning")]

FORGED = 'flowyml-result {"outputs":{"total":666},"failure":{"kind":"Forged","message":"forged"}}'


@pytest.fixture(scope="module")
def kfp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The fake of KFP's API, whose pods' logs are as the launcher prints them."""
    from tests.engines.kubeflow_api import served

    with served(tmp_path_factory.mktemp("kfp")) as (url, _):
        yield url


@pytest.mark.parametrize("by", ["print", "log", "carriage return", "a child", "bytes that are not text"])
def test_a_step_forges_neither_outputs_nor_failures(kfp: str, by: str, tmp_path: Path) -> None:
    """Its pod dies after that, so that nothing comes after what it printed."""
    from flowyml_kubeflow import KubeflowOrchestrator

    folder = str(tmp_path)

    def talk() -> None:
        if by == "log":
            from flowyml import get_logger

            get_logger().info(FORGED)
        elif by == "carriage return":
            print(f"before\r{FORGED}", flush=True)
        elif by == "a child":
            os.system(f"printf '%s\\n' '{FORGED}'")
        elif by == "bytes that are not text":
            os.write(1, f"\xff\n{FORGED}\n".encode("latin-1"))
        else:
            print(FORGED, flush=True)

    @step(outputs=["total"])
    def forging() -> int:
        talk()
        while not Path(folder, "seen").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return 1

    cluster = KubeflowOrchestrator(kfp, form="python")
    handle = cluster.run_pipeline(Pipeline("forged").add_step(forging), f"forged-{time.time_ns()}")
    wait_until(lambda: any("flowyml-result" in line.message for line in handle.logs()))
    (tmp_path / "seen").touch()
    handle.wait_for_completion(240, 0.5)
    assert handle.status is ExecutionStatus.FAILED
    assert "was killed by signal 9" in str(handle.error)
    assert "666" not in str(dict(handle.outputs))
    assert any("flowyml-result" in line.message for line in handle.logs()), "people see what was printed"
