"""Parameters of a run: as KFP types them, as its form takes them, and as they are read_back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowyml.core.errors import ParameterError
from flowyml.plan.model import Parameter
from flowyml.plan.parameters import schema_of
from flowyml_kubeflow import names
from flowyml_kubeflow.parameters import argument, described, kfp_type, read_back, restored
from tests.engines.kubeflow_replaced import expanded

TEXT = st.text(min_size=1, max_size=30).filter(lambda name: name == name.strip() and name.isprintable())


@pytest.mark.parametrize(
    ("schema", "value"),
    [({"type": "string"}, "a, JSON"), ({}, {"a": [1]}), ({"type": "number"}, 2.0), ({"type": "integer"}, 3)],
)
@given(TEXT)
@example("JSON")
@example("a, JSON")
@example("größe, JSON")
def test_parameters_are_shown_as_they_were_given(schema: dict[str, Any], value: Any, name: str) -> None:
    parameter = Parameter(name=name, schema=schema, required=True)
    definition = {"parameterType": kfp_type(parameter), **described(parameter)}
    found = read_back(names.port(name), argument(value, parameter), definition)
    assert (found, type(found[1])) == ((name, value), type(value))


@pytest.mark.parametrize(
    ("annotation", "typed", "meant"),
    [
        (str | None, "ada", "ada"), (str | None, '"ada"', "ada"), (str | None, "", ""), (str | None, "5", "5"),
        (str | None, "null", None), (int | None, "5", 5), (int | str, "5", 5), (list[int] | None, "[1, 2]", [1, 2]),
    ],
)  # fmt: skip
def test_what_a_person_types_into_kfps_form(annotation: Any, typed: str, meant: Any) -> None:
    parameter = Parameter(name="either", schema=schema_of(annotation, "either"))
    assert restored(typed, parameter) == meant


def test_a_person_who_types_nonsense_gets_an_error() -> None:
    parameter = Parameter(name="either", schema=schema_of(int | None, "either"))
    with pytest.raises(ParameterError, match="'five' is not a valid value of parameter 'either', neither as JSON"):
        restored("five", parameter)


@pytest.mark.parametrize("value", [{"k" * 1025: 1}, [{"ü" * 200: 1}], {"a": {"k" * 1025: 1}}])
def test_a_key_that_yaml_cannot_hold_is_refused(value: Any) -> None:
    """Readers of YAML take no longer key; an escaped character counts as it is written."""
    parameter = Parameter(name="query", schema={"type": "object"}, default=value)
    with pytest.raises(ParameterError, match=r"'query' contains a dict with a key of .* 1024 at most. Make it a value"):
        argument(value, parameter)


REPLACED = [
    "$(FLOWYML_SECRET_PW)", "a $$ b", ["$$(x)"], {"$(http.proxy)": 1},
    "{{$}}", "{{$.inputs.parameters['b']}}", "{{=1+1}}", "{{ workflow.name }}", ["{{{$}}}"],
]  # fmt: skip


@pytest.mark.parametrize("value", REPLACED)
def test_a_text_that_would_be_replaced_is_refused_or_written_so_that_it_is_not(value: Any) -> None:
    """The pod's launcher has parameters among its arguments. Sources: KFP issue 10370, launcher_v2.go; Argo."""
    typed = Parameter(name="q", schema=schema_of(type(value), "q"), required=True)
    with pytest.raises(ParameterError, match=r"'q' contains '(\$[$(]|\{\{).*Kubernetes reads '\$\$' as '\$'"):
        argument(value, typed)
    free = Parameter(name="q", schema={}, required=True)
    given = argument(value, free)
    assert expanded(given, {"FLOWYML_SECRET_PW": "planted", "http.proxy": "planted"}) == given
    assert not re.search(r"\{\{\s*[$=w]", given)
    assert restored(given, free) == value


@pytest.mark.parametrize("value", ["costs $5", "^a$", "$HOME", "${HOME}", "$(date -u)", "$", "{{ ds }}", "{$}"])
def test_other_texts_with_a_dollar_or_braces_are_themselves(value: str) -> None:
    assert argument(value, Parameter(name="q", schema={"type": "string"}, required=True)) == value
    assert expanded(value, {"HOME": "planted", "date -u": ""}) == value
