"""Convert the parameters of a pipeline to the ``Param`` of Airflow's form, and back."""

from __future__ import annotations

import json
import keyword
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flowyml.artifacts.plain import is_exact_in_postgresql, parts
from flowyml.core.errors import ParameterError
from flowyml.plan.model import Parameter
from flowyml.plan.parameters import in_words
from flowyml_airflow.names import CONF_KEYS, EXACT_KEY

if TYPE_CHECKING:
    from flowyml.plan.layout import Part

__all__ = ["SIXTY_FOUR_BITS", "check_carried", "conf_of", "declared", "filled", "param", "parameters_of"]

SIXTY_FOUR_BITS = range(-(2**63), 2**64)
"""The integers of msgpack, in which the processes of Airflow 3 exchange a run and its DAG."""


def param(parameter: Parameter, values: Mapping[str, Any]) -> Part:
    """Write a ``Param`` for the form of a run: its arguments are the keywords of JSON Schema.

    A parameter that is filled with a date of the run is an empty field, which may stay empty: see ``filled``.
    """
    from flowyml.plan.layout import Group, Pair, text_literal, value  # no worker writes a DAG file

    schema = {key: part for key, part in _flat(parameter.schema).items() if key != "default"}
    default = values.get(parameter.name, parameter.default)
    if default == parameter.default and (date := _date_of(parameter)):
        default, schema = None, _may_be_empty(schema, f"Leave it empty for {date}.")
    plain = {key: part for key, part in schema.items() if key.isidentifier() and not keyword.iskeyword(key)}
    others = {key: part for key, part in schema.items() if key not in plain}
    arguments: list[Part] = []
    if parameter.name in values or not parameter.required:
        arguments.append(value(default))
    arguments += [Pair(f"{key}=", value(part)) for key, part in plain.items()]
    if others:
        arguments.append(Pair("**", value(others)))
    return Pair(f"{text_literal(parameter.name)}: ", Group("Param(", arguments, ")"))


def _may_be_empty(schema: Mapping[str, Any], hint: str) -> dict[str, Any]:
    """Allow an empty field, and for a date also its name, such as ``<logical_date>``, which FlowyML passes."""
    about = " ".join(filter(None, [schema.get("description"), hint]))
    choices = {"anyOf": [{"type": "null"}, *schema["anyOf"]]} if "anyOf" in schema else {}
    kinds = schema.get("type", "string")
    listed = kinds if isinstance(kinds, list) else [kinds]
    return {**schema, **choices, "type": list(dict.fromkeys(["null", *listed])), "description": about}


def _date_of(parameter: Parameter) -> str:
    """Return the name of the run's date for which an empty field stands; empty if None is a value itself."""
    choices = parameter.schema.get("anyOf", (parameter.schema,))
    return "" if any(choice.get("type") == "null" for choice in choices) else in_words(parameter.default)


def filled(values: Mapping[str, Any], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Replace empty dates among the values of a run by the name of the date that fills the parameter.

    >>> filled({"day": None, "rows": None}, [Parameter(name="day", default="<logical_date>")])
    {'day': '<logical_date>', 'rows': None}
    """
    dates = {parameter.name: parameter.default for parameter in parameters if _date_of(parameter)}
    return {name: dates.get(name) if value is None else value for name, value in values.items()}


def check_carried(values: Mapping[str, Any], carried: range | None) -> None:
    """Raise ``ParameterError`` for integers outside of ``carried``, and for other values that Airflow does not carry.

    >>> check_carried({"rows": [2**64 - 1]}, SIXTY_FOUR_BITS)
    """
    for name, content in values.items():
        for part in parts(content):
            if isinstance(part, str) and "\0" in part:
                raise ParameterError(
                    f"{name!r} contains a NUL character, which PostgreSQL, one of Airflow's databases, rejects. "
                    f"Remove it."
                )
            is_whole_float = isinstance(part, float) and part.is_integer()
            if (isinstance(part, int) or is_whole_float) and carried is not None and int(part) not in carried:
                stored = ", which PostgreSQL stores as an integer" if is_whole_float else ""  # JSONB has 1e22 as digits
                raise ParameterError(
                    f"{name!r} contains {part}{stored}, but Airflow 3 carries 64-bit integers: from -2**63 to 2**64 - "
                    f"1. Declare it as text."
                )


def conf_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conf of a run: its parameters, and the text of those that PostgreSQL would change or sort.

    >>> conf_of({"rows": 3, "rate": -0.0})
    {'rows': 3, 'rate': -0.0, 'flowyml.exact': '{"rate": -0.0}'}
    """
    exact = {name: value for name, value in parameters.items() if not is_exact_in_postgresql(value)}
    return {**parameters, EXACT_KEY: json.dumps(exact)} if exact else dict(parameters)


def parameters_of(conf: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters of the pipeline, from the conf of a run or the params of a task.

    One that differs from its text in ``EXACT_KEY`` was edited since, in Airflow's form for another run.

    >>> parameters_of({"rows": 3, "rate": 0.0, "flowyml.exact": '{"rate": -0.0}', "flowyml.run_id": "mine & yours"})
    {'rows': 3, 'rate': -0.0}
    """
    conf, exact = conf or {}, {}
    with suppress(TypeError, ValueError, RecursionError):  # written by hand
        exact = dict(json.loads(conf.get(EXACT_KEY, "{}")))
    return {
        name: exact[name] if name in exact and exact[name] == value else value
        for name, value in conf.items()
        if name not in CONF_KEYS
    }


def _flat(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write a union of plain types as a list of types: Airflow's form has a field for that, but not for ``anyOf``.

    Source: Airflow, ``FlexibleForm`` of its UI, which reads ``type``.
    """
    union = schema.get("anyOf", ())
    if not union or any(part.keys() != {"type"} or not isinstance(part["type"], str) for part in union):
        return schema
    return {"type": [part["type"] for part in union], **{key: part for key, part in schema.items() if key != "anyOf"}}


def declared(params: Mapping[str, Any] | None) -> list[Parameter]:
    """Return the parameters of a DAG in Airflow's API. Each has a value, since the DAG may have a schedule."""
    return [_read(name, plain) for name, plain in (params or {}).items()]


def _read(name: str, plain: Any) -> Parameter:
    schema = plain.get("schema") or {} if isinstance(plain, Mapping) else {}
    return Parameter(name=name, schema=schema)
