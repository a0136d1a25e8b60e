"""What FlowyML compiles, as KFP's and Argo's sources take it: a second opinion that knows nothing of the compiler."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from flowyml import cleanup, pipeline, step
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, PipelineOutput, Plan, Step
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import compile_pipeline

pytest.importorskip("kfp")

from tests.engines.kubeflow_ir import faults

ODD_NAMES = [
    "2nd", "matches", "x-driver", "x-iterations", "executor", "{{workflow.name}}", "{{inputs.parameters.x}}",
    "{{=1+1}}", "{{$.pipeline_job_name}}", "日本", "a" * 200, "cost in $$", "$(FLOWYML_SECRET_PW)",
]  # fmt: skip


@pytest.mark.parametrize("hooks", [False, True], ids=["plain", "hooks"])
def test_odd_names_have_no_faults(hooks: bool) -> None:
    steps = tuple(Step(name=name, function="m:f", outputs=(name,)) for name in (*ODD_NAMES, "x"))
    last = tuple(PipelineOutput(name, FromStep(name, name)) for name in ODD_NAMES)
    plan = Plan(name="{{workflow.name}}", steps=steps, outputs=last, hooks=("m:hook",) if hooks else ())
    made = compile_pipeline(build(plan))
    assert faults(made.documents) == []


def test_a_name_that_argo_would_compute_is_read_back() -> None:
    from flowyml_kubeflow.reader import Tasks

    named = (*ODD_NAMES, "{ {x} }", "{{{x")
    plan = Plan(name="computed", steps=tuple(Step(name=name, function="m:f") for name in named))
    made = compile_pipeline(build(plan))
    assert faults(made.documents) == []
    read = Tasks(type("Run", (), {"run_details": None}), yaml.safe_load(spec.text(made)))
    assert {*read.steps.values()} == {*named}


@pytest.mark.parametrize("hooks", [(), ("m:hook",)], ids=["", "hooks"])
@pytest.mark.parametrize("kind", ["plain", "cleanup", "loop"])
def test_a_pipeline_may_be_called_like_its_step(kind: str, hooks: tuple[str, ...]) -> None:
    @step
    def train(n: int = 0) -> int:
        return n

    @pipeline(name="train")
    def made() -> None:
        if kind == "loop":
            train.map(n=[1, 2])
        else:
            train()
        if kind == "cleanup":
            with cleanup():
                train.options(name="tidy")()

    plan = replace(made.bundle().plan, hooks=hooks)
    assert faults(compile_pipeline(build(plan)).documents) == []
