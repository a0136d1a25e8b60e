"""The parameters of a pipeline as the ``Param`` of Airflow's form, there and back."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from flowyml.plan.layout import Group, Pair, Part, text_literal, value
from flowyml.plan.model import Parameter

__all__ = ["declared", "param"]


def param(parameter: Parameter, given: Mapping[str, Any]) -> Part:
    """A ``Param`` for the form of a run: the keywords of JSON Schema are its arguments."""
    schema = {key: part for key, part in _flat(parameter.schema).items() if key != "default"}
    plain = {key: part for key, part in schema.items() if key.isidentifier() and not keyword.iskeyword(key)}
    others = {key: part for key, part in schema.items() if key not in plain}
    arguments: list[Part] = []
    if parameter.name in given or not parameter.required:
        arguments.append(value(given.get(parameter.name, parameter.default)))
    arguments += [Pair(f"{key}=", value(part)) for key, part in plain.items()]
    if others:
        arguments.append(Pair("**", value(others)))
    return Pair(f"{text_literal(parameter.name)}: ", Group("Param(", arguments, ")"))


def _flat(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A union of plain types as a list of them, since Airflow's form has a field for that and none for ``anyOf``.

    Source: Airflow, ``FlexibleForm`` of its UI, which looks at ``type``.
    """
    union = schema.get("anyOf", ())
    if not union or any(part.keys() != {"type"} or not isinstance(part["type"], str) for part in union):
        return schema
    return {"type": [part["type"] for part in union], **{key: part for key, part in schema.items() if key != "anyOf"}}


def declared(params: Mapping[str, Any] | None) -> list[Parameter]:
    """The parameters of a DAG as Airflow's API shows them. Each has a value, since the DAG may have a schedule."""
    return [_read(name, plain) for name, plain in (params or {}).items()]


def _read(name: str, plain: Any) -> Parameter:
    schema = plain.get("schema") or {} if isinstance(plain, Mapping) else {}
    return Parameter(name=name, schema=schema)
