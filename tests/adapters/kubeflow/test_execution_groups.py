"""Execution groups: several steps in one pod, which stay steps, beside what the conformance suite says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flowyml import Pipeline, pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml_kubeflow import KubeflowOrchestrator, spec
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.tasks import Tasks

pytest.importorskip("kfp")
from tests.engines.kubeflow_calls import RUN, run_id
from tests.engines.kubeflow_ir import faults

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


def note(folder: str, name: str, value: int = 0) -> int:
    """Where a step runs."""
    import os

    with (Path(folder) / "trace").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    print(f"{name} was here")
    return value


class Noting(PipelineHook):
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_step_end(self, step_name: str, outputs: Any, duration: float) -> None:
        note(self.folder, f"ended:{step_name}")

    def on_error(self, step_name: str, error: BaseException) -> None:
        note(self.folder, f"failed:{step_name}")


def grouped(folder: str) -> Pipeline:
    """A group with a step that is tried again, one that is killed, one after it and one beside them."""

    @step
    def one() -> int:
        return note(folder, "one", 1)

    @step(execution_group="work", retry=OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0))
    def again(one: int) -> int:
        note(folder, "again")
        if (Path(folder) / "trace").read_text().count("again") == 1:
            raise ValueError("once")
        return one + 1

    @step(execution_group="work", timeout=10)
    def slow(again: int) -> int:
        import time

        note(folder, "slow")
        print("half a line", end="", flush=True)
        time.sleep(120)
        return again

    @step(execution_group="work")
    def after(slow: int) -> int:
        return note(folder, "after", slow)

    @step(execution_group="work")
    def beside(again: int) -> int:
        return note(folder, "beside", again + 1)

    @step
    def far(beside: int) -> int:
        return note(folder, "far", beside + 1)

    @pipeline(name="grouped", hooks=[Noting(folder)])
    def made() -> Any:
        first = again(one())
        after(slow(first))
        return {"far": far(beside(first))}

    return made


@pytest.mark.kubeflow
def test_steps_of_a_pod_have_their_own_attempts_timeouts_hooks_and_ends(
    orchestrator: KubeflowOrchestrator, shared: Path
) -> None:
    handle = orchestrator.run_pipeline(grouped(str(shared)), run_id("grouped")).wait_for_completion(RUN, 0.2)
    assert handle.status is FAILED
    assert str(handle.error).startswith("step 'slow' ran longer than its timeout of 10 s")
    runs = {run.name: run for run in handle.step_runs()}
    assert {name: (run.status, run.attempt) for name, run in runs.items()} == {
        "one": (COMPLETED, 1), "again": (COMPLETED, 2), "slow": (ExecutionStatus.TIMEOUT, 1),
        "after": (ExecutionStatus.CANCELLED, 0), "beside": (COMPLETED, 1), "far": (COMPLETED, 1),
    }  # fmt: skip
    assert runs["after"].error == "not run, since step 'slow' ended TIMEOUT"
    lines = [line.split() for line in (shared / "trace").read_text().splitlines()]
    assert [name for name, _ in lines] == [
        "one", "ended:one", "again", "failed:again", "again", "ended:again", "slow", "failed:slow", "beside",
        "ended:beside", "far", "ended:far",
    ]  # fmt: skip
    own = [pid for name, pid in lines if name in ("again", "slow")]
    assert len(set(own)) == 1, "an attempt that failed by itself leaves the process"
    assert own[0] not in [pid for name, pid in lines if name in ("one", "beside", "far")]
    said = {(line.step, line.message) for line in handle.logs() if line.message in ("again was here", "far was here")}
    assert said == {("again", "again was here"), ("far", "far was here")}
    assert [line.message for line in handle.logs() if line.step == "slow"][:2] == ["slow was here", "half a line"]
    assert all(line.step == "beside" for line in handle.logs() if line.message == "beside was here")


def asking() -> Plan:
    retry = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=5)  # which KFP could keep for a step alone
    return Plan(name="asking", steps=(
        Step(name="before", function="m:f"), Step(name="other", function="m:f"),
        Step(name="a", function="m:f", after=("before",), execution_group="Both of them", timeout_seconds=100,
             resources=ResourceRequirements(cpu="500m", memory="2Gi"), retry=retry,
             options={"kubeflow": {"labels": {"a": "b"}}}),
        Step(name="b", function="m:f", after=("a", "other"), execution_group="Both of them", timeout_seconds=50,
             resources=ResourceRequirements(cpu=2, memory="1Gi", gpu=1), options={"kubeflow": {"image": "own:1"}}),
        Step(name="after", function="m:f", after=("a",)), Step(name="alone", function="m:f", execution_group="alone"),
    ))  # fmt: skip


def test_a_group_is_one_task_that_asks_for_what_its_steps_need() -> None:
    made = compile_pipeline(build(asking()), store="s3://code")
    assert faults(made.documents) == []
    tasks = made.spec["root"]["dag"]["tasks"]
    (task,) = [name for name, item in tasks.items() if item["taskInfo"]["name"] == "Both of them"]
    assert set(tasks[task]["dependentTasks"]) == {"before", "other"}
    assert tasks["after"]["dependentTasks"] == [task]
    assert "alone" in tasks, "a group of one step is a step"
    container = made.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    assert container["image"] == "own:1"
    assert {name: container["resources"][name] for name in ("resourceCpuLimit", "resourceMemoryLimit")} == {
        "resourceCpuLimit": "2", "resourceMemoryLimit": "2Gi",
    }  # fmt: skip
    pod = made.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    assert pod["activeDeadlineSeconds"] == str(3 * 100 + 5 + 10 + 50 + 1 + 1800)
    assert pod["podMetadata"]["labels"] == {"a": "b"}


def test_steps_of_a_pod_are_read_back_by_their_names() -> None:
    named = ("{{=1+1}}", "{ {x} }", "a", "日本")
    plan = Plan(name="odd", steps=tuple(Step(name=name, function="m:f", execution_group="g") for name in named))
    made = compile_pipeline(build(plan))
    assert faults(made.documents) == []
    read = Tasks(type("Run", (), {"run_details": None}), yaml.safe_load(spec.text(made)))
    assert [*read.steps.values()] == [*named]
    assert {*read.run_by.values()} == {"g--group"}
    assert read.logged == {"g--group": "", "flowyml--result": ""}
