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
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.options import FORMS
from tests.engines.kubeflow_compiled import compiled, kubernetes


def test_steps_with_other_retries_have_pods_of_their_own_time() -> None:
    again = OrchestratorRetryPolicy(max_attempts=5, initial_delay_seconds=1, retryable_errors=["ConnectionError"])
    steps = [Step(name=name, function="m:f", timeout_seconds=3600, retry=retry) for name, retry in
             (("plain", None), ("retried", again), ("by kfp", OrchestratorRetryPolicy()))]  # fmt: skip
    made = compile_pipeline(build(Plan(name="patient", steps=tuple(steps))))
    pods = made.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name: pod["activeDeadlineSeconds"] for name, pod in pods.items()} == {
        "exec-plain": "5401", "exec-retried": "19816",
    }  # fmt: skip


def test_delays_are_durations_of_protobuf() -> None:
    policy = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=1e-5)
    asked = compiled(retry=policy).spec["root"]["dag"]["tasks"]["add"]["retryPolicy"]
    assert asked["backoffDuration"] == "0.00001s"


@pytest.mark.parametrize("kept", [{"backoff_multiplier": 1.5}, {"max_delay_seconds": 3}], ids=["factor", "cap"])
def test_delays_that_kfp_could_not_keep_are_kept_in_the_pod(kept: dict[str, Any]) -> None:
    """Argo reads a factor as a whole number, and the longest delay as the time in which all retries have to begin.

    Source: Argo, operator.go, ``processNodeRetries``; KFP, argocompiler/container.go.
    """
    policy = OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=2, **kept)
    made = compiled(retry=policy, timeout=60)
    assert "retryPolicy" not in made.spec["root"]["dag"]["tasks"]["add"]
    seconds = int(4 * 60 + sum(policy.delays))
    assert kubernetes(made)["activeDeadlineSeconds"] == str(seconds + 1801)


def test_retries_after_certain_errors_happen_in_the_pod() -> None:
    policy = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=40, retryable_errors=["Connection"])
    made = compiled(retry=policy, timeout=60)
    assert "retryPolicy" not in made.spec["root"]["dag"]["tasks"]["add"]
    assert kubernetes(made)["activeDeadlineSeconds"] == str(3 * 60 + 40 + 80 + 1801), "the pod is there for all of them"


@pytest.mark.parametrize("form", FORMS)
def test_hooks_stand_in_an_exit_handler(form: str) -> None:
    """KFP runs it after each task that it depends on, and adds those whose outputs it takes: so it takes none."""
    made = compile_pipeline(pipelines.hooked("/x").bundle(), form=form, store="s3://code").spec
    root = made["root"]["dag"]["tasks"]
    assert {name: task.get("dependentTasks", []) for name, task in root.items()} == {
        "flowyml--bundle": [],
        "flowyml--start": ["flowyml--bundle"],
        "flowyml--run": ["flowyml--bundle", "flowyml--start"],
    }
    around = made["components"]["comp-flowyml--run"]["dag"]["tasks"]
    assert {name: task.get("dependentTasks", []) for name, task in around.items()} == {
        "flowyml--steps": [],
        "flowyml--end": ["flowyml--steps"],
    }
    end = around["flowyml--end"]
    assert end["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert end["inputs"]["parameters"].pop("status__") == {"taskFinalStatus": {"producerTask": "flowyml--steps"}}
    assert {kind for side in end["inputs"].values() for item in side.values() for kind in item} == {
        "componentInputParameter", "componentInputArtifact",
    }  # fmt: skip


@pytest.mark.parametrize("cached", [False, True])
def test_a_dag_that_a_hook_waits_for_ends_with_a_task_that_runs_in_a_pod(cached: bool) -> None:
    """What comes from the cache does not end the DAG around it. Source: KFP, launcher_v2.go."""
    steps = tuple(Step(name=name, function="m:f", options={"kubeflow": {"cache": cached}}) for name in ("a", "b"))
    made = compile_pipeline(build(Plan(name="kept", steps=steps, hooks=("h",))))
    assert spec.validate(made)
    tasks = made.spec["components"]["comp-flowyml--steps"]["dag"]["tasks"]
    assert tasks.get("flowyml--last", {}).get("dependentTasks") == (["a", "b"] if cached else None)
    assert "cachingOptions" not in tasks.get("flowyml--last", {})


@pytest.mark.parametrize(("display", "workflow", "expected"), [("run 1", "wf-x1", "run 1"), ("", "wf-x1", "wf-x1")])
def test_hooks_get_the_name_of_the_workflow_where_a_run_has_none(
    display: str, workflow: str, expected: str, tmp_path: Path
) -> None:
    """KFP compiles the runs of a recurring run without a display name (template/v2_template.go)."""
    from flowyml_kubeflow import launcher

    made = compile_pipeline(pipelines.hooked(str(tmp_path)).bundle())
    bundle = made.bundle.write(tmp_path)
    given = made.spec["root"]["dag"]["tasks"]["flowyml--start"]["inputs"]["parameters"]
    placeholders = {"{{$.pipeline_job_name}}": display, "{{$.pipeline_job_resource_name}}": workflow}
    values = {port: placeholders[given[port]["runtimeValue"]["constant"]] for port in ("run__", "job__")}
    outputs = {"outputFile": str(tmp_path / "o.json"), "parameters": {"started__": {"outputFile": str(tmp_path / "s")}}}
    assert (
        launcher.main([str(bundle), "start", json.dumps({"inputs": {"parameterValues": values}, "outputs": outputs})])
        == 0
    )
    assert expected in (tmp_path / "journal").read_text()


@pytest.mark.parametrize(
    ("state", "status"),
    [("SUCCEEDED", "COMPLETED"), ("COMPLETE", "COMPLETED"), ("CACHED", "COMPLETED"), ("CANCELED", "CANCELLED"),
     ("FAILED", "FAILED"), ("UNKNOWN", "FAILED")],
)  # fmt: skip
def test_the_last_hook_gets_the_status_in_whatever_words_kfp_has(state: str, status: str, tmp_path: Path) -> None:
    """Of the API, and of its metadata store, which is where the driver takes it from."""
    from flowyml_kubeflow import launcher

    bundle = compile_pipeline(pipelines.hooked(str(tmp_path)).bundle()).bundle.write(tmp_path)
    given = {"run__": "run 1", "started__": "1.0", "status__": {"state": state}}
    output = {"outputFile": str(tmp_path / "output.json")}
    text = json.dumps({"inputs": {"parameterValues": given}, "outputs": output})
    assert launcher.main([str(bundle), "end", text]) == 0
    assert (tmp_path / "journal").read_text() == f"pipeline_end run 1 {status} True\n"
