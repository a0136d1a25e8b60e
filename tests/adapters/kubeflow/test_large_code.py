"""Code that one argument cannot take is given in parts, which one task joins: compiled, and run."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator, names, spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from flowyml_kubeflow.deploy import difference
from flowyml_kubeflow.inline import encoded
from flowyml_kubeflow.options import FORMS
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.engines.kubeflow_ir import faults

PARTS = [names.part_task(number) for number in (1, 2, 3)]
NOISE = random.Random(1).randbytes(300_000)  # no compression makes fewer of them


def compiled(form: str = "container", *, noise: bytes = NOISE, returns: int = 1, **options: Any) -> Compiled:
    files = {"made.py": f"def one():\n    return {returns}\n".encode(), "noise.bin": noise}
    plan = Plan(name="heavy", steps=(Step(name="one", function="made:one"),), options={"kubeflow": options})
    return compile_pipeline(build(plan, files=files), form=form)


@pytest.mark.parametrize("form", FORMS)
def test_drivers_of_older_releases_can_start_each_part(form: str) -> None:
    made = compiled(form)
    assert faults(made.documents, kfp=(2, 14)) == []
    assert len(spec.code_containers(made.spec)) > len(PARTS)
    assert len(spec.code_containers(compiled(form, noise=b"").spec)) == 1
    surrounded = compiled(form, env={"LONG": "x" * 60_000})
    assert len(spec.code_containers(surrounded.spec)) > len(spec.code_containers(made.spec))
    assert not [fault for fault in faults(surrounded.documents, kfp=(2, 14)) if "argument" in fault]


def test_parts_start_at_once_and_one_task_joins_them() -> None:
    tasks = compiled().spec["root"]["dag"]["tasks"]
    parts = [name for name in tasks if name.startswith(f"{names.BUNDLE_TASK}-")]
    assert parts[:3] == PARTS
    assert [tasks[name].get("dependentTasks") for name in parts] == [None] * len(parts)
    assert tasks[names.BUNDLE_TASK]["dependentTasks"] == parts
    assert tasks["one"]["dependentTasks"] == [names.BUNDLE_TASK]
    assert [tasks[name]["taskInfo"]["name"] for name in (parts[0], names.BUNDLE_TASK)] == [
        "the code of all steps, part 1", "the code of all steps",
    ]  # fmt: skip
    assert all(tasks[name]["cachingOptions"] == {"enableCache": True} for name in (*parts, names.BUNDLE_TASK))


def test_kfps_local_runner_changes_no_part() -> None:
    """It puts the path of its Python for a word, wherever that stands."""
    data = base64.b64decode("AAAApython3AAAAA")
    assert "python3" not in encoded(data)
    assert base64.b64decode(encoded(data)) == data


class Pods:
    """Runs the containers that give the code, one after another, as a launcher would in the container form."""

    def __init__(self, made: Compiled, folder: Path) -> None:
        self.made = made
        self.folder = folder

    def run(self, task: str) -> subprocess.CompletedProcess[str]:
        container = self.made.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        out = self.folder / f"{task}.json"
        artifact = {"artifacts": [{"uri": str(self.folder / task)}]}
        given = {"outputs": {"artifacts": {names.BUNDLE: artifact}, "outputFile": str(out)}}
        words = [self._filled(word, task) for word in container["args"][1:]]
        start = [sys.executable, *container["command"][1:], json.dumps(given), *words]
        return subprocess.run(start, capture_output=True, text=True, check=False)

    def _filled(self, word: str, task: str) -> str:
        taken = self.made.spec["root"]["dag"]["tasks"][task].get("inputs", {}).get("artifacts", {})
        for port, source in taken.items():
            path = self.folder / source["taskOutputArtifact"]["producerTask"]
            word = word.replace(f"{{{{$.inputs.artifacts['{port}'].path}}}}", str(path))
        return word.replace(f"{{{{$.outputs.artifacts['{names.BUNDLE}'].path}}}}", str(self.folder / task))


def test_containers_join_the_parts_and_check_them(tmp_path: Path) -> None:
    made = compiled()
    pods = Pods(made, tmp_path)
    parts = made.spec["root"]["dag"]["tasks"][names.BUNDLE_TASK]["dependentTasks"]
    for task in (*parts, names.BUNDLE_TASK):
        done = pods.run(task)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / names.BUNDLE_TASK).read_bytes() == made.bundle.data
    given = json.loads((tmp_path / f"{names.BUNDLE_TASK}.json").read_text())["artifacts"][names.BUNDLE]["artifacts"]
    assert [item["metadata"] for item in given] == [{"sha256": made.bundle.digest}]
    first = tmp_path / parts[0]
    for damaged in (first.read_bytes()[:-1], b"", (tmp_path / parts[1]).read_bytes()):
        first.write_bytes(damaged)
        (tmp_path / names.BUNDLE_TASK).unlink(missing_ok=True)
        refused = pods.run(names.BUNDLE_TASK)
        assert refused.returncode != 0
        assert "The bundle of the pipeline is not the one that was compiled: its SHA-256 differs." in refused.stderr
        assert not (tmp_path / names.BUNDLE_TASK).exists()


def test_a_dry_run_shows_the_code_of_a_version_in_parts() -> None:
    large = compiled()
    assert difference(json.loads(json.dumps(large.spec, sort_keys=True)), large) == ""
    for other in (compiled(returns=2), compiled(returns=2, noise=b"")):
        changed = difference(large.spec, other)
        assert "-    return 1\n+    return 2" in changed
        assert "flowyml/" not in changed


def heavy(name: str = "heavy", *, folder: str = "") -> Pipeline:
    """Its step holds as much; with a folder it fails until there is ``go``."""
    noise = NOISE

    @step(outputs=["total"])
    def measure() -> int:
        if folder and not (Path(folder) / "go").exists():
            raise ValueError("not yet")
        return len(noise)

    return Pipeline(name).add_step(measure)


@pytest.mark.kubeflow
def test_a_run_on_kfps_local_runner(tmp_path: Path) -> None:
    orchestrator = KubeflowLocalOrchestrator(folder=tmp_path)
    handle = orchestrator.run_pipeline(heavy(), "heavy").wait_for_completion(600, 0.1)
    assert handle.outputs == {"total": 300_000}, handle.error
    assert handle.step_statuses() == {"measure": ExecutionStatus.COMPLETED}
    joined = [path.read_bytes() for path in (tmp_path / "heavy").rglob(f"*{names.BUNDLE_TASK}/{names.BUNDLE}")]
    assert joined
    assert {*joined} == {(tmp_path / "heavy" / "bundle.pyz").read_bytes()}


class TestOverTheApi:
    pytestmark: ClassVar = OVER_THE_API

    def test_a_run_that_is_retried_has_no_step_but_its_own(
        self, orchestrator: KubeflowOrchestrator, shared: Path
    ) -> None:
        pipeline = heavy(run_id("heavy"), folder=str(shared))
        handle = orchestrator.run_pipeline(pipeline, run_id("heavy")).wait_for_completion(RUN, 0.5)
        assert handle.step_statuses() == {"measure": ExecutionStatus.FAILED}, handle.error
        (shared / "go").touch()
        handle.retry()
        handle = orchestrator.attach(handle.job_id).wait_for_completion(RUN, 0.5)
        assert handle.step_statuses() == {"measure": ExecutionStatus.COMPLETED}, handle.error
        assert handle.outputs == {"total": 300_000}
        assert orchestrator.diff(pipeline.bundle()) != ""  # only the run needed that version
