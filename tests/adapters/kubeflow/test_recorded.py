"""What the adapter reads of runs of a real KFP 2.17 and of one configured as 2.16, by that server's own answers.

The answers are data beside the repository, in ``../shared/kubeflow-real``, and these tests are left out without them.
Nothing else of that server is there, so the logs of its pods are gone.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.execution_status import ExecutionStatus
from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_kubeflow.tasks import Tasks
from flowyml_kubeflow.workflow import Workflow
from tests.engines.web import Recorded, Reply, web

RECORDED = Path(__file__).resolve().parents[4] / "shared" / "kubeflow-real"
COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED

pytestmark = [
    pytest.mark.kubeflow,
    pytest.mark.skipif(not RECORDED.exists(), reason="the server's answers are not part of this checkout"),
]
NAMES = sorted(path.name for path in RECORDED.glob("*/"))


def recorded(name: str, what: str) -> Any:
    return json.loads(gzip.decompress((RECORDED / name / f"{what}.json.gz").read_bytes()))


@contextmanager
def server(name: str, **other: str) -> Iterator[tuple[KubeflowOrchestrator, str]]:
    """A server that has one run, and texts by their paths."""
    run, version = recorded(name, "v2beta1"), recorded(name, "version")
    pages: dict[str, Any] = {
        f"/apis/v2beta1/runs/{run['run_id']}": run,
        f"/apis/v1beta1/runs/{run['run_id']}": recorded(name, "v1beta1"),
        f"/apis/v2beta1/pipelines/{version['pipeline_id']}/versions/{version['pipeline_version_id']}": version,
        **other,
    }

    def answer(request: Recorded) -> Reply:
        page = pages.get(request.path.partition("?")[0]) or pages.get(request.path.partition("&")[0])
        if isinstance(page, str):
            return Reply(200, page.encode(), media_type="text/plain")
        return Reply(200 if page else 404, json.dumps(page or {"message": "not found"}).encode())

    with web(answer) as served:
        yield KubeflowOrchestrator(served.url), run["run_id"]


@pytest.mark.parametrize(
    ("name", "status", "steps"),
    [
        ("216-two", COMPLETED, {COMPLETED: 2}),
        ("stock-stwo", COMPLETED, {COMPLETED: 2}),
        ("216-chain25", COMPLETED, {COMPLETED: 25}),  # the task details stopped at 68 of 78 nodes
        ("216-twobad", FAILED, {COMPLETED: 2, FAILED: 1}),
        ("stock-stwobad", FAILED, {COMPLETED: 2, FAILED: 1}),
        ("stock-sflaky", FAILED, {FAILED: 1}),
        ("stock-two", FAILED, {CANCELLED: 2}),
        ("stock-schain30-cancelled", CANCELLED, {COMPLETED: 7, CANCELLED: 23}),
    ],
)
def test_states(name: str, status: ExecutionStatus, steps: dict[ExecutionStatus, int]) -> None:
    with server(name) as (kubeflow, job_id):
        assert kubeflow.get_run(job_id).status is status
        assert Counter(step.status for step in kubeflow.step_runs(job_id)) == steps


@pytest.mark.parametrize(
    ("name", "outputs", "steps"),
    [
        ("216-two", {"second": ["second"]}, ["first", "second"]),
        ("216-sweep20", {"flowyml--result": ["best", "scores"]}, ["best", "configs", "train"]),
    ],
)
def test_what_an_earlier_version_compiled_is_read(name: str, outputs: dict[str, list[str]], steps: list[str]) -> None:
    """1.0.0rc1 told tasks their steps by parameters, and had a parameter for each output."""
    tasks = Tasks(type("Run", (), {"run_details": None}), recorded(name, "version")["pipeline_spec"])
    assert {task: sorted(found) for task, found in tasks.outputs().items()} == outputs
    assert sorted(tasks.steps.values()) == steps


@pytest.mark.parametrize("name", NAMES)
def test_pods_have_the_names_that_the_server_gave_them(name: str) -> None:
    workflow = Workflow.of(recorded(name, "v1beta1"))
    assert workflow
    logged = [node for node in workflow.nodes if node.log and node.kind == "Pod"]
    assert [node.pod for node in logged] == [node.log.split("/")[-2] for node in logged]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stock-two", r"^workflow is longer than maximum allowed size\. compressed size 1230006"),
        ("stock-stwobad", r"^step 'bad': failed: main: Error \(exit code 1\); its log is gone$"),
        ("stock-ssweep20", r"^KFP's driver of 'train--all': main: Error \(exit code 1\)\nKFP .* Not run: 'best'\.$"),
    ],
)
def test_a_failed_run_says_why(name: str, said: str) -> None:
    with server(name) as (kubeflow, job_id):
        assert re.search(said, str(kubeflow.get_run(job_id).error))


def test_the_end_of_a_drivers_log_is_shown() -> None:
    run = recorded("stock-ssweep20", "v1beta1")
    workflow = Workflow.of(run)
    assert workflow
    (driver,) = workflow.failed()
    line = "F1201 03:50:13.5 11 main.go:79] KFP driver: two tasks have the same task name train_170_idx_11"
    log = {f"/apis/v1alpha1/runs/{run['run']['id']}/nodes/{driver.pod}/log": f"starting\n{line}\n"}
    with server("stock-ssweep20", **log) as (kubeflow, job_id):
        error = str(kubeflow.get_run(job_id).error)
    assert line in error
    assert "a fault of KFP 2.17" in error


def test_without_a_workflow_the_log_of_a_step_is_found_by_its_task_details() -> None:
    """Of the node around its pod: the API server takes that for its archived log."""
    run = recorded("stock-stwobad", "v2beta1")["run_id"]
    log = {f"/apis/v1alpha1/runs/{run}/nodes/stwobad-5fjt8-2322362122/log": "what bad printed\n"}
    with server("stock-stwobad", **{f"/apis/v1beta1/runs/{run}": ""}, **log) as (kubeflow, job_id):
        handle = kubeflow.attach(job_id)
        assert Counter(step.status for step in handle.step_runs()) == {COMPLETED: 2, FAILED: 1}
        assert [(line.step, line.message) for line in handle.logs()] == [("bad", "what bad printed")]


# What pods print beside the steps' own lines, as the server recorded it.
LAUNCHER = """I1201 03:44:47.771490      14 main.go:67] Setting log level to: '1'
W1201 03:44:48.657415      14 launcher_v2.go:590] Could not determine retry index from pod annotation
first says 4
I am a line of a user, not of 03:44:48
I1201 03:45:00.811017      14 launcher_v2.go:1230] ExecutorOutput: {
  "parameterValues": {
    "first": "[0,1,2,3]"
  }
}
I1201 03:45:02.380626      14 launcher_v2.go:206] publish success.
time=2026-12-01T03:45:03.000Z level=INFO msg="capturing logs" argo=true
"""


@pytest.mark.parametrize("by", ["API", "UI", "archive", "artifact"])
def test_logs_are_the_steps_own_by_whatever_way(by: str) -> None:
    """The names are those of the true pods: on stock 2.17 that of ``executor(0)``, not of the node around it."""
    run = recorded("stock-stwo", "v1beta1")
    workflow = Workflow.of(run)
    assert workflow
    (node,) = workflow.executors("first")
    ways = {
        "API": f"/apis/v1alpha1/runs/{run['run']['id']}/nodes/{node.pod}/log",
        "UI": f"/k8s/pod/logs?podname={node.pod}",
        "archive": f"/artifacts/minio/mlpipeline/{node.log}",
        "artifact": node.published_log.replace("minio://", "/artifacts/minio/"),
    }
    with server("stock-stwo", **{ways[by]: LAUNCHER}) as (kubeflow, job_id):
        handle = kubeflow.attach(job_id)
        lines = [line.message for line in handle.logs() if line.step == "first"]
        whole = [line.message for line in handle.logs(verbose=True) if line.step == "first"]
    assert lines == ["first says 4", "I am a line of a user, not of 03:44:48"]
    assert whole == LAUNCHER.splitlines()


@pytest.mark.parametrize("name", ["216-chain25", "stock-ssweep3"])
def test_tasks_with_hyphens_and_without_inputs_ran(name: str) -> None:
    pipeline = recorded(name, "version")["pipeline_spec"]
    tasks = pipeline.get("pipeline_spec", pipeline)["root"]["dag"]["tasks"]
    workflow = Workflow.of(recorded(name, "v1beta1"))
    assert workflow
    ended = {task: {node.state for node in workflow.executors(task)} for task in tasks}
    assert [task for task, body in tasks.items() if "inputs" not in body] == ["flowyml--bundle"]
    assert len([task for task in tasks if "-" in task and ended[task] == {"SUCCEEDED"}]) >= 3
    assert ended["flowyml--bundle"] == {"SUCCEEDED"}
