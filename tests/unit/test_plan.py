"""The plan: the same bytes for the same pipeline, and nothing lost on the way through JSON."""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Literal, NewType, NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typing_extensions import TypedDict

from flowyml import pipeline, step
from flowyml.core.errors import DefinitionError, PlanError
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.codec import decode
from flowyml.plan.model import (
    SCHEMA_VERSION,
    Constant,
    FromParameter,
    FromStep,
    Input,
    Parameter,
    PipelineOutput,
    Plan,
    Step,
)
from flowyml.plan.parameters import schema_of

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
sources = st.builds(FromStep, texts, texts) | st.builds(FromParameter, texts) | st.builds(Constant, json_values)
steps = st.builds(
    Step,
    name=texts,
    function=texts,
    inputs=st.lists(st.builds(Input, texts, sources), max_size=3).map(tuple),
    outputs=st.lists(texts, max_size=3).map(tuple),
    after=st.lists(texts, max_size=2).map(tuple),
    retry=st.none() | st.builds(OrchestratorRetryPolicy, max_attempts=st.integers(1, 9)),
    timeout_seconds=st.none() | st.floats(0.1, 1e6),
    resources=st.none() | st.just(ResourceRequirements(cpu="500m", gpu=2)),
    tags=st.lists(texts, max_size=2).map(tuple),
    description=texts,
)
plans = st.builds(
    Plan,
    name=texts,
    steps=st.lists(steps, max_size=3).map(tuple),
    parameters=st.lists(
        st.builds(
            Parameter, name=texts, schema=st.just({"type": "integer"}), required=st.booleans(), default=json_values
        ),
        max_size=2,
    ).map(tuple),
    outputs=st.lists(st.builds(PipelineOutput, texts, st.builds(FromStep, texts, texts)), max_size=2).map(tuple),
    timeout_seconds=st.none() | st.floats(0.1, 1e6),
)


@given(plans)
def test_a_plan_survives_its_json(plan: Plan) -> None:
    assert decode(plan.canonical) == plan
    assert decode(plan.canonical).digest == plan.digest


def test_a_field_at_its_default_takes_no_room() -> None:
    plan = Plan(name="p", steps=(Step(name="s", function="m:f"),))
    assert json.loads(plan.canonical) == {"name": "p", "schema_version": 1, "steps": [{"function": "m:f", "name": "s"}]}


def test_one_is_not_true() -> None:
    """1 == True in Python; as JSON they differ, and a default may not hide it."""
    plan = Plan(name="p", steps=(), parameters=(Parameter(name="n", default=0), Parameter(name="m", required=True)))
    assert decode(plan.canonical).parameters[0].default == 0
    assert decode(plan.canonical).parameters[1].required is True


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"schema_version": 1}', b"\xff", b'{"schema_version":1,"x":2}'])
def test_invalid_plans_are_refused(data: bytes) -> None:
    with pytest.raises(PlanError, match="not a FlowyML plan"):
        decode(data)


def test_a_newer_schema_asks_for_an_upgrade() -> None:
    with pytest.raises(PlanError, match=r"schema 99; this FlowyML reads up to 2\. Upgrade"):
        decode(json.dumps({"schema_version": 99, "name": "p", "steps": []}))
    assert SCHEMA_VERSION == 2


class Options(TypedDict):
    rows: int
    name: NotRequired[str]


Rows = NewType("Rows", int)


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (Options, "object"),
        (Rows, "integer"),
        (Annotated[int, Field(ge=1)], "integer"),
        (dict[str, list[float]], "object"),
        (Sequence[int], "array"),
        (Literal["a", "b"], "string"),
    ],
)
def test_types_that_json_gives_back(annotation: object, kind: str) -> None:
    assert schema_of(annotation, "value")["type"] == kind
    assert {item["type"] for item in schema_of(int | None, "value")["anyOf"]} == {"integer", "null"}


def test_what_annotated_says_of_a_parameter_is_in_its_schema() -> None:
    @step
    def draw(rows: int) -> int:
        return rows

    @pipeline
    def sampled(rows: Annotated[int, Field(ge=1, le=9)] = 3) -> None:
        draw(rows)

    (rows,) = sampled.compile().parameters
    assert rows.schema == {"type": "integer", "minimum": 1, "maximum": 9}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes any TypedDict from Python 3.12 on")
def test_a_typed_dict_of_the_standard_library_says_what_to_use() -> None:
    class Plain(typing.TypedDict):
        rows: int

    for annotation in (Plain, list[Plain]):
        with pytest.raises(DefinitionError, match=r"Parameter 'value' .*Import TypedDict from typing_extensions\."):
            schema_of(annotation, "value")
