"""The parameters of a run in Prefect's notation: the schema of its form, and values that it keeps unchanged.

A value that looks like one of Prefect's templates, or that PostgreSQL would change or sort, is stored as the text of
its JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from flowyml.artifacts.plain import is_exact_in_postgresql, parts
from flowyml.core.errors import EngineError, ParameterError
from flowyml.core.web import parsed
from flowyml.plan.model import Plan

__all__ = ["given_parameters", "parameter_schema", "read_parameters", "unfilled"]

_TEMPLATE = "__prefect_kind"
_LARGEST = "PREFECT_SERVER_API_MAX_PARAMETER_SIZE"  # the server's own setting
_DEFAULT_LARGEST = 524_288
_DEFS = "#/$defs/"  # where pydantic puts them


def parameter_schema(plan: Plan) -> dict[str, Any]:
    """Return the schema of Prefect's form for a run.

    Types to which a parameter's schema refers are at its root (``definitions``, as in Prefect's own schemas), since
    references start there. Their names begin with the parameter's, so that all are different.
    """
    properties, definitions = {}, {}
    for position, parameter in enumerate(plan.parameters):
        schema = _referring_to_the_root(parameter.schema, parameter.name)
        for name, definition in schema.pop("$defs", {}).items():
            definitions[f"{parameter.name}.{name}"] = definition
        default = {} if parameter.required else {"default": parameter.default}
        properties[parameter.name] = {"title": parameter.name, "position": position, **schema, **default}
    required = [parameter.name for parameter in plan.parameters if parameter.required]
    form = {"title": "Parameters", "type": "object", "properties": properties, "required": required}
    return {**form, "definitions": definitions} if definitions else form


def _referring_to_the_root(schema: Any, parameter: str) -> Any:
    if isinstance(schema, list):
        return [_referring_to_the_root(item, parameter) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: f"#/definitions/{parameter}.{value.removeprefix(_DEFS)}"
        if key == "$ref" and isinstance(value, str) and value.startswith(_DEFS)
        else _referring_to_the_root(value, parameter)
        for key, value in schema.items()
    }


def given_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Encode parameters for a run or a schedule, as Prefect is to store them.

    Raises ``ParameterError`` for more bytes of JSON than the server stores for a run.

    >>> given_parameters({"rows": 5, "x": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}})["x"]["__prefect_kind"]
    'json'
    """
    stored = {name: value if _is_kept(value) else _quoted(value) for name, value in values.items()}
    sent = json.dumps(unfilled(stored), separators=(",", ":"))
    size, largest = len(sent), int(os.environ.get(_LARGEST) or _DEFAULT_LARGEST)
    if size > largest > 0:
        raise ParameterError(
            f"These parameters have {size:,} bytes as JSON; Prefect stores at most {largest:,} of a run. Give the path "
            f"or the URL of a file instead. Where your server takes more, set {_LARGEST} to its limit here too."
        )
    return stored


def unfilled(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Quote what is quoted once more, for a call in which Prefect fills in templates before it stores parameters."""
    return {name: _quoted(value) if _is_quoted(value) else value for name, value in stored.items()}


def read_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Decode parameters that ``given_parameters`` encoded; any other value is unchanged."""
    return {name: _unquoted(value) if _is_quoted(value) else value for name, value in values.items()}


def _unquoted(value: Any) -> Any:
    try:
        return parsed(value["value"].encode())
    except (ValueError, EngineError):  # of another program
        return value


def _is_quoted(value: Any) -> bool:
    return isinstance(value, dict) and value.get(_TEMPLATE) == "json" and isinstance(value.get("value"), str)


def _quoted(value: Any) -> dict[str, str]:
    return {_TEMPLATE: "json", "value": json.dumps(value)}


def _is_kept(value: Any) -> bool:
    is_template = any(isinstance(part, dict) and _TEMPLATE in part for part in parts(value))
    return not is_template and is_exact_in_postgresql(value)
