"""Convert parameters of a run to KFP's types, and back. This file travels in the bundle, too.

KFP carries every value as a protobuf ``Value``, whose only number is a double: 3 comes back as 3.0 from some of its
parts and 2.0 as 2 from others. The declared type of a parameter decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from flowyml.core.errors import ParameterError
from flowyml.plan.model import Parameter, Plan
from flowyml.plan.parameters import is_of_type
from flowyml_kubeflow import names

__all__ = [
    "JSON_TEXT", "argument", "arguments", "described", "described_output", "kfp_type", "output_name", "read_back",
    "restored",
]  # fmt: skip

JSON_TEXT = "STRING"
_TYPES: Mapping[str, str] = {
    "integer": "NUMBER_INTEGER", "number": "NUMBER_DOUBLE", "string": "STRING", "boolean": "BOOLEAN",
    "array": "LIST", "object": "STRUCT",
}  # fmt: skip
_LARGEST = 2**53
_JSON = "JSON"
_LONGEST_KEY = 1024  # source: YAML 1.2, 7.4.2, implicit keys


def kfp_type(parameter: Parameter) -> str:
    """Return KFP's type of a parameter. A type that KFP lacks, such as a union, becomes a string with JSON.

    >>> kfp_type(Parameter(name="rows", schema={"type": "integer"}, default=5))
    'NUMBER_INTEGER'
    """
    return JSON_TEXT if is_json_text(parameter) else _TYPES[parameter.schema["type"]]


def is_json_text(parameter: Parameter) -> bool:
    """Return True for a parameter that is JSON in a string for KFP: KFP lacks its type, or its default is None."""
    may_be_none = parameter.default is None and not parameter.required
    return may_be_none or str(parameter.schema.get("type")) not in _TYPES


def argument(value: Any, parameter: Parameter) -> Any:
    """Convert a value for KFP. Raises ``ParameterError`` for an integer or a text that would reach pods changed."""
    text = json.dumps(value, ensure_ascii=False)
    if is_json_text(parameter):
        return names.REPLACED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    if replaced := names.REPLACED.search(text):
        raise ParameterError(
            f"{parameter.name!r} contains {text[replaced.start() :]!r:.30}, but KFP gives values to pods as arguments, "
            f"where Kubernetes reads '$$' as '$' and '$(NAME)' as a variable of the pod, and KFP and Argo replace "
            f"'{{{{$…}}}}', '{{{{=…}}}}' and variables such as '{{{{inputs.…}}}}'. Declare it as str | None, which "
            f"travels as JSON, or write it in another way."
        )
    if long := _long_key(value):
        raise ParameterError(
            f"{parameter.name!r} contains a dict with a key of {len(long)} characters, {long[:40]!r}…: KFP pipelines "
            f"are YAML, whose keys have {_LONGEST_KEY} at most. Make it a value."
        )
    if large := _too_large(value):
        raise ParameterError(
            f"{parameter.name!r} contains {large}, but KFP carries numbers as doubles: beyond 2**53 they change. "
            f"Declare it as text."
        )
    return value


def arguments(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the parameters of a run for KFP, by port. Raises ``ParameterError`` as ``argument`` does."""
    by_name = {item.name: item for item in plan.parameters}
    return {names.port(name): argument(value, by_name[name]) for name, value in values.items()}


def restored(value: Any, parameter: Parameter) -> Any:
    """Convert back a value from ``argument``, or one that a person typed into KFP's form, where text needs no quotes.

    Raises ``ParameterError`` for a value that is not of the parameter's type.

    >>> restored([1.0, 2.5], Parameter(name="x", schema={"type": "array"}, required=True))
    [1, 2.5]
    >>> name = Parameter(name="name", schema={"anyOf": [{"type": "string"}, {"type": "null"}]})
    >>> restored('"ada"', name), restored("ada", name), restored("5", name), restored("null", name)
    ('ada', 'ada', '5', None)
    """
    if value is None:
        return parameter.default
    if not is_json_text(parameter):
        return _typed(value, parameter.schema)
    with suppress(ValueError, RecursionError):
        if is_of_type(meant := json.loads(value), parameter.schema):
            return meant
    if not is_of_type(value, parameter.schema):
        raise ParameterError(
            f"{value!r:.60} is not a valid value of parameter {parameter.name!r}, neither as JSON nor as text."
        )
    return value


def described(parameter: Parameter) -> dict[str, str]:
    """Return the description of a parameter in KFP's form, for ``read_back``: its own name, if KFP has another."""
    about = [parameter.name] if names.port(parameter.name) != parameter.name else []
    about += [_JSON] if is_json_text(parameter) else []
    return {"description": ", ".join(about)} if about else {}


def described_output(name: str) -> dict[str, str]:
    """Return the name of an output of the pipeline, if its port has another; read by ``output_name``."""
    return {"description": name} if names.port(name) != name else {}


def output_name(port: str, definition: Mapping[str, Any]) -> str:
    """Return the name of an output, from the definition of its port in the pipeline's file. 1.0.0rc1 added the type.

    >>> output_name("groe_d353a267", {"description": "größe"}), output_name("rows", {})
    ('größe', 'rows')
    >>> output_name("groe_d353a267", {"description": "größe, JSON"}), output_name("rows", {"description": "JSON"})
    ('größe', 'rows')
    """
    return _about(port, str(definition.get("description") or ""))[0]


def read_back(port: str, value: Any, definition: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and value of a run's parameter, from the definition of its port in the pipeline's file.

    >>> read_back("groe_d353a267", '{"cm": 3}', {"parameterType": "STRING", "description": "größe, JSON"})
    ('größe', {'cm': 3})
    """
    name, is_text = _about(port, str(definition.get("description") or ""))
    if is_text:
        with suppress(ValueError, TypeError, RecursionError):  # typed in by a person, or not given
            return name, json.loads(value)
        return name, value
    kind = {"NUMBER_DOUBLE": "number"}.get(str(definition.get("parameterType")))
    return name, _typed(value, {"type": kind})


def _about(port: str, description: str) -> tuple[str, bool]:
    """Return the name of a parameter or output, and whether it is JSON in a string, by its description."""
    if description == _JSON:
        return port, True
    plain = description.removesuffix(f", {_JSON}")
    for name, is_text in ((plain, plain != description), (description, False)):
        if name and names.port(name) == port:
            return name, is_text
    return port, False


def _typed(value: Any, schema: Any) -> Any:
    schema = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, list):
        return [_typed(item, schema.get("items")) for item in value]
    if isinstance(value, dict):
        known, other = schema.get("properties") or {}, schema.get("additionalProperties")
        return {key: _typed(item, known.get(key, other)) for key, item in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if schema.get("type") == "number":
        return float(value)
    return int(value) if isinstance(value, int) or value.is_integer() else value


def _long_key(value: Any) -> str | None:
    if isinstance(value, dict):
        long = (key for key in value if len(json.dumps(key)) > _LONGEST_KEY)
        return next((name for name in (*long, *map(_long_key, value.values())) if name), None)
    return next((name for item in value if (name := _long_key(item))), None) if isinstance(value, list) else None


def _too_large(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) > _LARGEST else None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((number for item in items if (number := _too_large(item)) is not None), None)
