"""A failed run that KFP itself retries: what succeeded is kept, hooks included, and the rest is read as it is."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml_kubeflow import KubeflowOrchestrator
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id

pytestmark = OVER_THE_API


def note(folder: str, text: str) -> list[str]:
    """Add a line to the journal of a test; gives all of it."""
    path = Path(folder) / "journal"
    with path.open("a") as file:
        file.write(f"{text}\n")
    return path.read_text().splitlines()


class Notes(PipelineHook):
    """Writes down when it is called; its launcher can be made to die, which fails the task of the end hook."""

    def __init__(self, folder: str, *, dies: bool) -> None:
        self.folder = folder
        self.dies = dies

    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
        note(self.folder, "start")

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: Any, duration_seconds: float) -> None:
        note(self.folder, f"end {status}")
        print("the end:", status)
        if self.dies and not (Path(self.folder) / "repaired").exists():
            os.kill(os.getppid(), signal.SIGKILL)


def retried(folder: str, *, dies: bool) -> Pipeline:
    """Its first step needs two attempts; its second fails until the file ``repaired`` is there."""

    @step(outputs=["first"], retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=1))
    def first(folder: str) -> int:
        tries = note(folder, "first").count("first")
        print("try", tries)
        if tries < 2:
            raise OSError("not at once")
        return tries

    @step(outputs=["second"])
    def second(first: int, folder: str) -> int:
        note(folder, "second")
        print("second")
        if not (Path(folder) / "repaired").exists():
            raise OSError("not yet")
        return first + 1

    given = context(folder=folder)
    return Pipeline("retried", hooks=[Notes(folder, dies=dies)], context=given).add_step(first).add_step(second)


@pytest.mark.parametrize("dies", [False, True], ids=["hook succeeded", "hook failed"])
def test_a_failed_run_goes_on_from_where_it_failed(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kfp_api.state:
        monkeypatch.setattr(kfp_api.state.pods, "starts_python", dies)
    completed, failed = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
    handle = orchestrator.run_pipeline(retried(str(shared), dies=dies), run_id("retried")).wait_for_completion(RUN, 0.5)
    assert handle.status is failed
    assert "step 'second': OSError: not yet" in str(handle.error)
    assert handle.step_statuses() == {"first": completed, "second": failed}
    assert [(item.name, item.attempt) for item in handle.step_runs()] == [("first", 2), ("second", 1)]

    (shared / "repaired").touch()
    with pytest.raises(RetryRefusedError, match="KFP cannot retry single steps"):
        handle.retry(["second"])
    orchestrator.retry_run(handle.job_id)
    assert not orchestrator.attach(handle.job_id).status.is_terminal
    again = orchestrator.attach(handle.job_id).wait_for_completion(RUN, 0.5)
    assert (again.status, again.error) == (completed, None)
    assert again.outputs == {"second": 3}
    assert again.step_statuses() == {"first": completed, "second": completed}
    assert [(item.name, item.attempt) for item in again.step_runs()] == [("first", 2), ("second", 1)]
    assert handle.refresh().status is completed

    calls = (shared / "journal").read_text().splitlines()
    assert calls == ["start", "first", "first", "second", "end FAILED", "second", *(["end FAILED"] if dies else [])]
    said = ("try", "second", "the end")
    printed = [(line.step, line.message) for line in again.logs() if line.message.startswith(said)]
    end = "the end: FAILED"  # KFP keeps the driver of a hook, which says how the run had ended before
    assert printed == [("first", "try 1"), ("first", "try 2"), ("second", "second"), ("", end)]
