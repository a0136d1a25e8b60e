"""What is written of a compiled pipeline: YAML that every reader takes for the same, and weighed."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml.core.errors import PlanError
from flowyml.plan.bundle import build
from flowyml.plan.model import Parameter, Plan, Step
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline


def read(made: Compiled) -> list[list[Any]]:
    """The documents, by each reader, of each way to write them."""
    texts = (spec.text(made), spec.compact(made))
    return [[*yaml.load_all(text, loader)] for text in texts for loader in (yaml.SafeLoader, yaml.CSafeLoader)]


def named(*steps: str, default: Any = "x", store: str | None = "s3://code") -> Compiled:
    kind = {float: "number", list: "array", dict: "object", str: "string"}[type(default)]
    parameter = Parameter(name="given", schema={"type": kind}, default=default)
    plan = Plan(name="it", steps=tuple(Step(name=name, function="m:f") for name in steps), parameters=(parameter,))
    return compile_pipeline(build(plan), store=store, artifacts="s3://bucket/it")


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.text(max_size=40))
def test_each_text_is_the_same_for_every_reader(shown: str, given_: str) -> None:
    made = named("a", default={shown: given_.encode("utf-8", "replace").decode()})
    assert read(made) == [made.documents] * 4


TEXTS = [
    "1e5", "0o7", "0x1F", "1_000", "12:30", "2026-01-31", "yes", "No", "~", "null", ".inf", "<<", "=", "- a", "a: b",
    "# c", " x ", "x\n", "\n\nx", "  x\ny", "x \n y\t", "\u0085", "\u2028", "\ufeff", "\x7f", "*a", "&a", "!t",
    "{", "]", "'", '"', "",
]  # fmt: skip
NUMBERS = [1e-5, 1e16, 1e22, -1e-9, 5e-324, 1.5e-7]  # YAML 1.1 takes 1e-05 for text: it wants a point


def test_a_text_that_looks_like_something_else_stays_a_text_and_a_number_a_number() -> None:
    for default in ({value: [value] for value in TEXTS}, NUMBERS, {"1e-5": NUMBERS}, 1e-5):
        made = named(*TEXTS[:-1], default=default)
        assert read(made) == [made.documents] * 4
        assert made.spec["root"]["inputDefinitions"]["parameters"]["given"]["defaultValue"] == default


def test_what_yaml_1_2_takes_for_a_number_is_quoted() -> None:
    """PyYAML reads YAML 1.1, KFP's server 1.2. Source: YAML 1.2, 10.3.2."""
    values = ["1e5", "0o7", "-1e5", "+12e03", ".5e3"]
    text = spec.text(named("a", default=values))
    assert [value for value in values if f'- "{value}"' not in text] == []


def test_a_file_is_in_block_style_for_review() -> None:
    """A step that is added is lines that are added."""
    before, after = (spec.text(named(*steps)).splitlines() for steps in (("a", "b"), ("a", "b", "c")))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
    assert {line[0] for line in changed} == {"+", "-"}
    assert len([line for line in changed if line[0] == "-"]) <= 2  # the digests of the code
    assert "+       c:" in changed
    assert [line for line in after if line.startswith(("      c:", "  comp-"))][:1] == ["      c:"]


def test_an_upload_is_json_wherever_yaml_takes_it() -> None:
    assert json.loads(spec.compact(named("a", default="plain größe 😀"))) == named("a", default="plain größe 😀").spec
    assert spec.compact(named("a", default="\u2028")).startswith("pipelineInfo:")
    assert spec.compact(named("a", default=1e-5)).startswith("pipelineInfo:")


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
    for write in (spec.text, spec.compact):
        with pytest.raises(PlanError, match=r"a lone surrogate near .*before .*ud83d"):
            write(made)
