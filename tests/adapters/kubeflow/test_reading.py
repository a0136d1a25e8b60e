"""Steps and their pods, among the nodes that KFP's API tells of."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import pytest

from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.home import home
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, PipelineOutput, Plan, Step
from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.deployer import one_at_a_time
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.reader import KubeflowReader
from flowyml_kubeflow.tasks import Tasks
from flowyml_kubeflow.workflow import Workflow

pytestmark = pytest.mark.kubeflow
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_outputs_have_the_names_that_the_user_gave_them() -> None:
    two = Plan(
        name="named", steps=(Step(name="a", function="m:f", outputs=("x", "größe")),),
        outputs=(PipelineOutput("x", FromStep("a", "x")), PipelineOutput("train größe", FromStep("a", "größe"))),
    )  # fmt: skip
    for hooks in ((), ("Hook",)):
        pipeline = compile_pipeline(build(replace(two, hooks=hooks))).spec
        found = Tasks(SimpleNamespace(run_details=SimpleNamespace(task_details=[])), pipeline)
        assert found.outputs() == {"a": ["x", "train größe"]}


def run_of(*states: str, **fields: Any) -> Any:
    """A run in the last of these states, each of which began a second after the one before it."""
    history = [
        kfp_server_api.V2beta1RuntimeStatus(state=state, update_time=NOON + timedelta(seconds=number))
        for number, state in enumerate(states)
    ]
    return kfp_server_api.V2beta1Run(
        run_id=str(uuid.UUID(int=1)), display_name="one", state=states[-1], state_history=history, created_at=NOON,
        finished_at=NOON + timedelta(hours=1), **fields,
    )  # fmt: skip


def reader() -> KubeflowReader:
    return KubeflowOrchestrator("http://127.0.0.1:1").reader


def test_a_run_began_when_it_ran_not_when_it_was_due() -> None:
    """A schedule that catches up makes runs late, and those wait for each other."""
    late = {"scheduled_at": NOON - timedelta(days=1)}
    assert started(run_of("PENDING", **late)) is None
    assert started(run_of("PENDING", "PENDING", "RUNNING", "SUCCEEDED", **late)) == NOON + timedelta(seconds=2)
    assert started(run_of("FAILED", **late)) == NOON  # so fast that KFP did not see it run


def started(run: Any) -> datetime | None:
    return reader().record(run).started_at


@pytest.mark.parametrize("before", [(), ("PENDING", "RUNNING", "FAILED")], ids=["anew", "goes on"])
def test_a_run_that_was_stopped_here_and_retried_elsewhere_can_fail(before: tuple[str, ...]) -> None:
    """KFP need not write into the history that it stopped a run. Of a retry, some releases begin the history anew."""
    runs = reader()
    stopped = run_of("PENDING", "RUNNING")
    runs.note_stopped(stopped)
    assert runs.status(run_of("PENDING", "RUNNING", "FAILED")) is ExecutionStatus.CANCELLED
    again = run_of(*before, "RUNNING", "FAILED")
    for item in again.state_history[len(before) :]:
        item.update_time += timedelta(minutes=1)
    assert runs.status(again) is ExecutionStatus.FAILED


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.last_words() == ""
    with run.log.open("wb") as file:
        file.truncate(2**40)  # more than fits into memory; the file system keeps no zeros
        file.seek(0, 2)
        file.write("\n".join(["x" * 3000, "the end"]).encode())
    assert run.last_words().endswith("x\nthe end")
    assert len(run.last_words()) <= 2000


def test_locks_do_not_pile_up() -> None:
    for number in range(600):
        with one_at_a_time(f"run {number}"):
            pass
    assert len(list((home() / "kubeflow" / "locks").iterdir())) <= 256


def test_packed_nodes_that_are_damaged_are_an_error_of_the_engine() -> None:
    manifest = {"status": {"compressedNodes": "AAAA"}}
    with pytest.raises(EngineError, match="packed, and they cannot be read"):
        Workflow.of({"pipeline_runtime": {"workflow_manifest": json.dumps(manifest)}})


def test_a_pod_whose_retry_succeeded_is_no_cause_of_a_failure() -> None:
    def node(task: str, number: int, phase: str, second: int) -> dict[str, Any]:
        return {
            "id": f"w-{task}-{number}", "displayName": f"{task}({number})", "type": "Pod", "templateName": "impl",
            "phase": phase, "message": "exit code 1", "boundaryID": f"w-{task}",
            "startedAt": f"2026-01-01T12:00:0{second}Z",
        }  # fmt: skip

    nodes = [
        node("a", 0, "Failed", 1),
        node("a", 1, "Succeeded", 2),
        node("b", 0, "Failed", 3),
        node("b", 1, "Failed", 4),
    ]
    workflow = Workflow({"status": {"nodes": {item["id"]: item for item in nodes}}})
    assert [failed.id for failed in workflow.failed()] == ["w-b-1"]
