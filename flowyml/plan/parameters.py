"""The parameters of a run: their JSON Schema, and whether given values fit it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowyml.core.errors import DefinitionError, ParameterError
from flowyml.plan.model import Parameter

__all__ = ["check_values", "is_json", "schema_of"]

_SCHEMAS: Mapping[object, Mapping[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    list: {"type": "array"},
    dict: {"type": "object"},
    type(None): {},
    Any: {},
    object: {},
}

_FITS: Mapping[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def schema_of(annotation: object, name: str) -> Mapping[str, Any]:
    """The JSON Schema of an annotation; pydantic knows it for all but the plainest types."""
    try:
        if annotation in _SCHEMAS:
            return _SCHEMAS[annotation]
    except TypeError:  # an unhashable annotation, such as Annotated[int, {}]
        pass
    from pydantic import PydanticUserError, TypeAdapter

    try:
        schema = TypeAdapter[Any](annotation).json_schema()  # type: ignore[arg-type]  # any annotation that users write
    except (PydanticUserError, TypeError, NameError) as error:
        raise DefinitionError(
            f"Parameter {name!r} has the type {annotation!r}, which JSON cannot carry. "
            f"Use int, float, str, bool, list or dict."
        ) from error
    return {key: value for key, value in schema.items() if key != "title"}


def is_json(value: object) -> bool:
    """True for what JSON gives back just as it was: no tuples, no NaN, string keys only."""
    if value is None or isinstance(value, bool):
        return True
    if type(value) in (int, str):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(is_json, value))
    return type(value) is dict and all(type(key) is str and is_json(item) for key, item in value.items())


def check_values(pipeline: str, parameters: Sequence[Parameter], values: Mapping[str, Any] | None) -> dict[str, Any]:
    """All parameters of a run, defaults filled in. Raises one ``ParameterError`` for all that is wrong."""
    given = dict(values or {})
    known = {parameter.name: parameter for parameter in parameters}
    faults = [_unknown(name, known) for name in given if name not in known]
    for name, parameter in known.items():
        if name not in given and parameter.required:
            faults.append(f"{name!r} is missing and has no default")
        elif name in given and (fault := _misfit(parameter, given[name])):
            faults.append(fault)
    if faults:
        raise ParameterError(f"Parameters of pipeline {pipeline!r}: {'; '.join(faults)}.")
    return {name: given.get(name, parameter.default) for name, parameter in known.items()}


def _misfit(parameter: Parameter, value: Any) -> str | None:
    """What is wrong with a value, or None."""
    name, schema = parameter.name, parameter.schema
    if not is_json(value):
        return f"{name!r} is {value!r:.60} ({type(value).__name__}), which is not plain JSON"
    if not schema:
        return None
    if len(schema) == 1 and (fits := _FITS.get(str(schema.get("type")))):
        return None if fits(value) else f"{name!r} must be of type {schema['type']}, not {value!r:.60}"
    from jsonschema import Draft202012Validator

    faults = [error.message for error in Draft202012Validator(dict(schema)).iter_errors(value)]
    return f"{name!r}: {'; '.join(faults)}" if faults else None


def _unknown(name: str, known: Mapping[str, Parameter]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(map(repr, known)) or 'none'}"
    return f"there is no parameter {name!r}{hint}"
