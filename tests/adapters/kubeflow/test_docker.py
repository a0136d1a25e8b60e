"""KFP's Docker runner, on a real Docker engine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flowyml.orchestrators.base import Orchestrator
from flowyml.plan.bundle import build
from flowyml.plan.model import FromParameter, FromStep, Input, Parameter, PipelineOutput, Plan, Step
from flowyml.testing import (
    FailureConformance,
    FanOutConformance,
    LifeConformance,
    RunConformance,
    SecretConformance,
)
from flowyml.testing.base import Conformance
from flowyml_kubeflow import KubeflowLocalOrchestrator
from flowyml_kubeflow.compiler import compile_pipeline
from tests.engines.kubeflow_docker import IMAGE, can_run, docker_engine, same_python

pytestmark = [pytest.mark.kubeflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def docker() -> Iterator[str]:
    assert can_run(), "no Docker engine can be started: it takes root on Linux, docker.io and debootstrap"
    with docker_engine() as host:
        yield host


class TestDockerRunner(Conformance):
    """What may differ in containers: each task is one, one after another."""

    test_plain_steps = RunConformance.test_a_run_completes_and_gives_its_outputs
    test_logs = RunConformance.test_logs_hold_what_a_step_printed
    test_odd_values = RunConformance.test_large_and_odd_values_pass_between_steps
    test_failed_items = FanOutConformance.test_what_follows_a_failed_item_does_not_run
    test_hooks = LifeConformance.test_hooks_see_a_run_that_fails
    test_secrets = SecretConformance.test_an_argument_and_a_variable_are_filled
    test_cancel = FailureConformance.test_cancel_stops_the_work
    has_started, has_stopped = FailureConformance.has_started, FailureConformance.has_stopped
    beats = FailureConformance.beats

    joins_beside_failures = False  # KFP starts nothing that waits for a task that failed
    asks_the_cancelled = False  # no signal of the engine's reaches a step in its container
    refused: ClassVar = {"conformance secret shows": "which containers of KFP's local runner do not get"}

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, docker: str) -> Callable[..., Orchestrator]:
        """The steps of the suite leave traces in temporary folders, so the containers see those."""
        options = same_python(tempfile.gettempdir())

        def make(**given: Any) -> Orchestrator:
            return KubeflowLocalOrchestrator(runner="docker", runner_options=options, **given)

        return make


class Pod:
    """Runs containers of a compiled pipeline as KFP's launcher does, on an image that it has to take as it is.

    As on OpenShift: an unknown user, no privileges, no network, and nothing writable but ``/tmp`` and the folder where
    KFP's launcher has artifacts.
    """

    def __init__(self, documents: list[dict[str, Any]], folder: Path) -> None:
        self.spec = documents[0]
        self.folder = folder
        self.artifacts = folder / "minio"
        self.artifacts.mkdir()
        self.artifacts.chmod(0o777)

    def run(self, component: str, parameters: dict[str, Any], inputs: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """What it prints and what it gives: its output file, with the texts of its parameters."""
        import docker  # type: ignore[import-untyped]  # ships no types

        about = self.spec["components"][component]
        outputs = about.get("outputDefinitions", {})
        out = f"/minio/{component}"
        given = {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {port: {"artifacts": [self._given(path)]} for port, path in inputs.items()},
            },
            "outputs": {
                "parameters": {port: {"outputFile": f"{out}/{port}.txt"} for port in outputs.get("parameters", {})},
                "artifacts": {
                    port: {"artifacts": [{"uri": f"minio://{component}/{port}"}]}
                    for port in outputs.get("artifacts", {})
                },
                "outputFile": f"{out}/output.json",
            },
        }
        container = self.spec["deploymentSpec"]["executors"][about["executorLabel"]]["container"]
        words = [self._filled(word, given) for word in (*container["command"], *container["args"])]
        with closing(docker.from_env()) as client:
            printed = client.containers.run(
                ":".join(IMAGE), words, user="12345:0", read_only=True, tmpfs={"/tmp": "mode=1777"},
                network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges"], remove=True, stderr=True,
                environment={"HOME": "/"}, volumes={str(self.artifacts): {"bind": "/minio", "mode": "rw"}},
            )  # fmt: skip
        output = json.loads((self.artifacts / component / "output.json").read_text())
        texts = {
            port: (self.artifacts / component / f"{port}.txt").read_text() for port in outputs.get("parameters", {})
        }
        return printed.decode(), {**output, "texts": texts}

    def _given(self, path: str) -> dict[str, Any]:
        """An artifact with what its task said of it."""
        component, _, port = path.partition("/")
        output = json.loads((self.artifacts / component / "output.json").read_text())
        found: dict[str, Any] = output["artifacts"][port]["artifacts"][0]
        return found

    def _filled(self, word: str, given: dict[str, Any]) -> str:
        for side in ("inputs", "outputs"):
            for port, listed in given[side]["artifacts"].items():
                path = listed["artifacts"][0]["uri"].replace("minio://", "/minio/")
                word = word.replace(f"{{{{$.{side}.artifacts['{port}'].path}}}}", path)
        return word.replace("{{$}}", json.dumps(given))


@pytest.mark.usefixtures("docker")
def test_containers_run_as_an_unknown_user_on_a_read_only_system(tmp_path: Path) -> None:
    """Without pip, with hooks and a large output."""
    code = b"""
import os
from flowyml.core.hooks import PipelineHook

class Hook(PipelineHook):
    def on_pipeline_start(self, pipeline_name, run_id, context):
        print("start of", run_id)
    def on_pipeline_end(self, pipeline_name, run_id, status, duration_seconds):
        print("end of", run_id, status)

hook = Hook()

def make(count):
    print("made by", os.getuid())
    return {"rows": list(range(count)), "raw": b"x" * 100_000}

def add(made):
    return sum(made["rows"]) + len(made["raw"])
"""
    steps = (
        Step(name="make", function="m:make", inputs=(Input("count", FromParameter("count")),), outputs=("made",)),
        Step(name="add", function="m:add", inputs=(Input("made", FromStep("make", "made")),), outputs=("total",)),
    )
    plan = Plan(
        name="arbitrary", steps=steps, hooks=("m:hook",), outputs=(PipelineOutput("total", FromStep("add", "total")),),
        parameters=(Parameter(name="count", schema={"type": "integer"}, default=3),),
    )  # fmt: skip
    hooks = b"(cm\nhook\nl."  # a pickle of [m.hook]
    made = compile_pipeline(build(plan, files={"m.py": code}, objects={"hooks": hooks}))
    pod = Pod(made.documents, tmp_path)
    names = {"run-name": "run 1", "workflow-name": "job-1"}
    pod.run("comp-flowyml--bundle", {}, {})
    bundle = {"flowyml-code": "comp-flowyml--bundle/flowyml-code"}
    printed, output = pod.run("comp-flowyml--start", {"count": 4, **names}, bundle)
    assert "start of run 1" in printed
    printed, _ = pod.run("comp-make", {"count": 4}, bundle)
    assert "made by 12345" in printed
    printed, _ = pod.run("comp-add", {}, {**bundle, "made": "comp-make/made"})
    assert 'flowyml-result {"outputs":{"total":100006}}' in printed
    ended = {**names, "started-at": output["texts"]["started-at"], "status-of-steps": {"state": "COMPLETE"}}
    printed, _ = pod.run("comp-flowyml--end", ended, bundle)
    assert "end of run 1 COMPLETED" in printed
