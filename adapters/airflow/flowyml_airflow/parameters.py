"""The parameters of a pipeline as the ``Param`` of Airflow's form, there and back."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from flowyml.core.errors import ParameterError
from flowyml.plan.layout import Group, Pair, Part, text_literal, value
from flowyml.plan.model import Parameter

__all__ = ["SIXTY_FOUR_BITS", "check_integers", "declared", "param"]

SIXTY_FOUR_BITS = range(-(2**63), 2**64)
"""The integers that msgpack has, by which the processes of Airflow 3 hand a run and its DAG on."""


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


def check_integers(values: Mapping[str, Any], carried: range | None) -> None:
    """Raise ``ParameterError`` for an integer that Airflow does not carry; None stands for one that carries them all.

    >>> check_integers({"rows": [2**64 - 1]}, SIXTY_FOUR_BITS)
    """
    for name, given in values.items():
        if carried is not None and (large := _too_large(given, carried)) is not None:
            raise ParameterError(
                f"{name!r} holds {large}, and Airflow 3 carries integers of 64 bits: from -2**63 to 2**64 - 1. "
                f"Declare it as text."
            )


def _too_large(given: Any, carried: range) -> int | None:
    if isinstance(given, int):
        return None if given in carried else given
    items = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    return next((found for item in items if (found := _too_large(item, carried)) is not None), None)


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
