"""Code that one argument cannot take is given in parts, which one task joins: compiled, and run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flowyml.cli.source import load
from flowyml.core.execution_status import ExecutionStatus
from flowyml.plan.bundle import build
from flowyml.plan.differences import changed_files
from flowyml.plan.model import FromStep, PipelineOutput, Plan, Step
from flowyml_kubeflow import names, spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from flowyml_kubeflow.deployer import difference
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.engines.kubeflow_ir import faults

PARTS = [names.part_task(number) for number in (1, 2, 3)]
NOISE = random.Random(1).randbytes(300_000)  # no compression makes fewer of them


def compiled(*, noise: bytes = NOISE, returns: int = 1, **options: Any) -> Compiled:
    files = {"made.py": f"def one():\n    return {returns}\n".encode(), "noise.bin": noise}
    plan = Plan(name="heavy", steps=(Step(name="one", function="made:one"),), options={"kubeflow": options})
    return compile_pipeline(build(plan, files=files))


def test_drivers_of_older_releases_can_start_each_part() -> None:
    made = compiled()
    assert faults(made.documents) == []
    assert len(spec.code_containers(made.spec)) > len(PARTS)
    assert len(spec.code_containers(compiled(noise=b"").spec)) == 1
    surrounded = compiled(env={"LONG": "x" * 60_000})
    assert len(spec.code_containers(surrounded.spec)) > len(spec.code_containers(made.spec))
    assert not [fault for fault in faults(surrounded.documents) if "argument" in fault]


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


def test_a_dry_run_shows_the_code_of_a_version_in_parts() -> None:
    large = compiled()
    assert difference(json.loads(json.dumps(large.spec, sort_keys=True)), large) == ""
    for other in (compiled(returns=2), compiled(returns=2, noise=b"")):
        changed = difference(large.spec, other)
        assert "-    return 1\n+    return 2" in changed
        assert "flowyml/" not in changed


class TestOverTheApi:
    pytestmark: ClassVar = OVER_THE_API

    @pytest.mark.parametrize(
        "made",
        [
            "flowyml_airflow.AirflowOrchestrator",
            "flowyml_kubeflow.KubeflowOrchestrator",
            "flowyml_prefect.PrefectOrchestrator",
        ],
    )
    def test_a_script_that_makes_an_orchestrator_when_it_is_loaded_runs_on_a_stock_2_17(
        self, kfp_api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
    ) -> None:
        """With its code inside, as no store is named."""
        if kfp_api.state is not None:
            monkeypatch.setattr(kfp_api.state, "version", "2.17.0")
        (tmp_path / "made.py").write_text(f"""
from flowyml import pipeline, step
import {made.rpartition(".")[0]}

engine = {made}("http://server")

@step
def count():
    return type(engine).__module__

@pipeline
def counting():
    return {{"home": count()}}
""")
        orchestrator = kfp_api.orchestrator(artifacts=None)
        handle = orchestrator.run_pipeline(load(str(tmp_path / "made.py")), run_id("made")).wait_for_completion(RUN)
        assert handle.status is ExecutionStatus.COMPLETED, handle.error
        assert handle.outputs == {"home": "flowyml.runtime.definition_parts"}

    def test_a_run_that_is_retried_has_no_step_but_its_own(
        self, kfp_api: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a KFP before 2.17, where the workflow has room for two parts."""
        if kfp_api.state is not None:
            monkeypatch.setattr(kfp_api.state, "version", "2.16.0")
        orchestrator = kfp_api.orchestrator(artifacts=None)
        if orchestrator.client.connection.release() >= (2, 17):
            pytest.skip("the workflow has no room for two parts on this server")
        code = f"""
from pathlib import Path

def measure():
    if not Path({str(shared)!r}, "go").exists():
        raise ValueError("not yet")
    return Path(__file__).with_name("noise.bin").stat().st_size
"""
        step = Step(name="measure", function="made:measure", outputs=("total",))
        plan = Plan(
            name=run_id("heavy"), steps=(step,), outputs=(PipelineOutput("total", FromStep("measure", "total")),)
        )
        bundle = build(plan, files={"made.py": code.encode(), "noise.bin": NOISE[:50_000]})
        assert len(spec.code_containers(orchestrator.pipelines.compiled(bundle).spec)) == 2
        job_id = orchestrator.submit(bundle, run_id("heavy"), {})
        handle = orchestrator.attach(job_id).wait_for_completion(RUN, 0.5)
        assert handle.step_statuses() == {"measure": ExecutionStatus.FAILED}, handle.error
        (shared / "go").touch()
        handle.retry()
        handle = orchestrator.attach(job_id).wait_for_completion(RUN, 0.5)
        assert handle.step_statuses() == {"measure": ExecutionStatus.COMPLETED}, handle.error
        assert handle.outputs == {"total": 50_000}
        assert [*changed_files(orchestrator.bundle_of(job_id), bundle)] == []
        assert orchestrator.diff(bundle) != ""  # only the run needed that version
