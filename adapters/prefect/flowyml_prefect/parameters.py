"""The parameters of a run in Prefect's notation: the schema of its form, and values that it takes as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flowyml.plan.model import Plan

__all__ = ["given_parameters", "parameter_schema", "read_parameters"]

_TEMPLATE = "__prefect_kind"


def parameter_schema(plan: Plan) -> dict[str, Any]:
    """What Prefect's form for a run is made from."""
    properties = {
        parameter.name: {
            "title": parameter.name, "position": position, **parameter.schema,
            **({} if parameter.required else {"default": parameter.default}),
        }
        for position, parameter in enumerate(plan.parameters)
    }  # fmt: skip
    required = [parameter.name for parameter in plan.parameters if parameter.required]
    return {"title": "Parameters", "type": "object", "properties": properties, "required": required}


def given_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as Prefect's API takes them: a value that looks like one of its templates is quoted.

    >>> given_parameters({"rows": 5, "x": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}})["x"]["__prefect_kind"]
    'json'
    """
    return {name: _quoted(value) if _looks_like_a_template(value) else value for name, value in values.items()}


def read_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``given_parameters`` was given."""
    return {name: json.loads(value["value"]) if _is_quoted(value) else value for name, value in values.items()}


def _is_quoted(value: Any) -> bool:
    return isinstance(value, dict) and value.get(_TEMPLATE) == "json" and isinstance(value.get("value"), str)


def _quoted(value: Any) -> dict[str, str]:
    return {_TEMPLATE: "json", "value": json.dumps(value)}


def _looks_like_a_template(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_looks_like_a_template, value))
    return isinstance(value, dict) and (_TEMPLATE in value or any(map(_looks_like_a_template, value.values())))
