"""What is written of a compiled pipeline: YAML that every reader takes for the same, small, and weighed."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import yaml

from flowyml.core.errors import PlanError
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, Input, Parameter, Plan, Step
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator, spec
from flowyml_kubeflow.compiler import compile_pipeline


def test_where_the_code_comes_from_stands_in_the_file_once() -> None:
    """Each task needs it; a name that looks like it is left alone."""
    origin = '{taskOutputArtifact: {producerTask: "flowyml--bundle",outputArtifactKey: "code__"}}'
    steps = tuple(Step(name=name, function="m:f") for name in (origin, f'"x":{origin}', "*code"))
    made = compile_pipeline(build(Plan(name="same", steps=steps)))
    text = spec.text(made)
    assert text.count(origin) == text.count(f"&code {origin}") == 1
    assert text.count(":*code") == 2
    assert [*yaml.safe_load_all(text)] == [*yaml.load_all(text, yaml.CSafeLoader)] == made.documents


@pytest.mark.parametrize("key", ["name", 'x"name', 'x"componentRef'])
def test_what_looks_like_the_words_of_a_task_is_left_alone(key: str) -> None:
    reference = '"componentRef":{"name":"comp-one"}'
    parameter = Parameter(name="given", schema={"type": "object"}, default={key: reference})
    steps = tuple(Step(name=name, function="m:f", outputs=("x",)) for name in ("one", "inputs", reference))
    made = compile_pipeline(build(Plan(name="words", steps=steps, parameters=(parameter,))))
    text = spec.text(made)
    assert (text.count("&c1 {"), text.count("*c1,")) == (1, 2)
    assert ('"componentRef":' in text) == (key == 'x"componentRef')
    assert [*yaml.safe_load_all(text)] == [*yaml.load_all(text, yaml.CSafeLoader)] == made.documents


def test_a_thousand_steps_are_small() -> None:
    """About 325 bytes a step, whatever their number, beside the code."""
    sizes = []
    for count in (1, 1001):
        steps = [Step(name="work 0", function="m:f", outputs=("value",))]
        for number in range(1, count):
            inputs = (Input("value", FromStep(f"work {number - 1}", "value")),)
            steps.append(Step(name=f"work {number}", function="m:f", inputs=inputs, outputs=("value",)))
        plan = Plan(name="big", steps=tuple(steps))
        sizes.append(len(spec.text(compile_pipeline(build(plan), store="s3://code"))))
    assert (sizes[1] - sizes[0]) / 1000 < 330


@pytest.mark.parametrize("value", [1e-5, 1e16, 1e22, -1e-9, 5e-324, 1.5e-7, [1e-5, "1e-5"], {"1e-5": 1e300}])
def test_numbers_are_numbers_for_every_reader(value: Any) -> None:
    """YAML 1.1 takes 1e-05 for text: it wants a point."""
    kind = {float: "number", list: "array", dict: "object"}[type(value)]
    parameter = Parameter(name="x", schema={"type": kind}, default=value)
    made = compile_pipeline(build(Plan(name="exact", steps=(Step(name="a", function="m:f"),), parameters=(parameter,))))
    text = spec.text(made)
    assert [*yaml.safe_load_all(text)] == [*yaml.load_all(text, yaml.CSafeLoader)] == made.documents
    assert made.spec["root"]["inputDefinitions"]["parameters"]["x"]["defaultValue"] == value


def test_a_pipeline_near_argos_limit_says_what_weighs_most() -> None:
    heavy = Step(name="heavy", function="m:f", description="", outputs=("v",), inputs=())
    many = tuple(replace(heavy, name=f"step number {n}") for n in range(1500))
    large = Step(name="large", function="m:f", inputs=tuple(
        Input(f"input{n}", FromStep(f"step number {n}", "v")) for n in range(100)))  # fmt: skip
    plan = Plan(name="enormous", steps=(*many, large))
    with pytest.warns(
        UserWarning,
        match=r"is over Argo's limit of 1.0 MB. Heaviest: 'large' .*'bundle_store'.* 2.17 or newer.* the graph",
    ):
        KubeflowOrchestrator().compile_files(build(plan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KubeflowOrchestrator().compile_files(pipelines.greeting().bundle())


def test_code_that_fits_into_no_argument_is_told_or_goes_to_the_store_of_artifacts() -> None:
    """KFP before 2.17 hands it to its driver in one."""
    import random

    bundle = build(pipelines.greeting().compile(), files={"noise.bin": random.Random(1).randbytes(50_000)})
    with pytest.warns(UserWarning, match=r"needs KFP 2.17 or newer.* the code has 1\d\d kB .keep it in a store"):
        KubeflowOrchestrator().compile_files(bundle)
    assert compile_pipeline(bundle, artifacts="/a/folder").bundle_url is None
    assert compile_pipeline(pipelines.greeting().bundle(), artifacts="s3://bucket/it").bundle_url is None
    stored = compile_pipeline(bundle, artifacts="s3://bucket/it/")
    assert stored.bundle_url == f"s3://bucket/it/bundles/{stored.bundle.filename}"
    assert spec.size_warning(stored) is None


def test_half_a_surrogate_pair_in_a_description_is_shown_as_a_question_mark() -> None:
    """libyaml, and Go's reader, refuse a file with one."""
    plan = Plan(name="halved", steps=(Step(name="a", function="m:f"),), description="before \ud83d after")
    made = compile_pipeline(build(plan))
    assert [*yaml.load_all(spec.text(made).encode(), yaml.CSafeLoader)] == made.documents
    assert made.spec["pipelineInfo"]["description"] == "before ? after"


def test_half_a_surrogate_pair_anywhere_else_is_refused() -> None:
    parameter = Parameter(name="given", schema={"type": "string"}, default="before \ud83d")
    made = compile_pipeline(
        build(Plan(name="halved", steps=(Step(name="a", function="m:f"),), parameters=(parameter,)))
    )
    with pytest.raises(PlanError, match=r"half of a surrogate pair, in .*before .*ud83d"):
        spec.text(made)
