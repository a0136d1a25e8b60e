"""The parameters of a run: their JSON Schema, and the check of values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from datetime import date, datetime
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from flowyml.core.dates import DATA_INTERVAL_END, DATA_INTERVAL_START, LOGICAL_DATE
from flowyml.core.errors import DefinitionError, ParameterError
from flowyml.core.near_names import nearest
from flowyml.plan.model import Parameter
from flowyml.plan.types import bare, is_rich_leaf, plain

if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError

__all__ = [
    "DEEPEST",
    "as_declared",
    "check_values",
    "days_of",
    "fillable",
    "in_words",
    "is_json",
    "is_of_type",
    "is_too_deep",
    "own_copy",
    "schema_of",
    "too_deep",
    "wanted",
]

DEEPEST = 100
"""The deepest nesting of lists and dicts: far less than any JSON parser refuses."""

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

_FORMATS: Mapping[str, str] = {
    "date": "a date, such as 2026-01-31",
    "date-time": "a time with its time zone, such as 2026-01-31T09:00:00+01:00",
}

_SURROGATE = re.compile("[\ud800-\udfff]")

_CONTAINERS = (list, dict, Sequence, MutableSequence, Collection, Iterable, Mapping, MutableMapping)

_FITS: Mapping[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


def schema_of(annotation: object, name: str) -> Mapping[str, Any]:
    """Return the JSON Schema of an annotation; pydantic knows it for all but the plainest types.

    Raises ``DefinitionError`` for a type that does not survive JSON and that no step could restore, such as a set or an
    array.
    """
    try:
        if annotation in _SCHEMAS:
            return _SCHEMAS[annotation]
    except TypeError:  # an unhashable annotation, such as Annotated[int, {}]
        pass
    if not _is_carried(annotation):
        written = annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
        raise DefinitionError(
            f"Parameter {name!r} has the type {written}, which JSON cannot carry. Use int, float, str, bool, list, "
            f"dict, date, datetime, Path, an Enum or a pydantic model, and create the {written} from it inside a step."
        )
    from pydantic import PydanticUserError, TypeAdapter

    try:
        schema = TypeAdapter[Any](annotation).json_schema()  # type: ignore[arg-type]  # any annotation that users write
    except PydanticUserError as error:
        if error.code != "typed-dict-version":
            raise
        raise DefinitionError(
            f"Parameter {name!r} has a type that contains a typing.TypedDict, which cannot be read before Python "
            f"3.12. Import TypedDict from typing_extensions."
        ) from error
    return {key: value for key, value in schema.items() if key != "title"}


def _is_carried(annotation: Any) -> bool:
    """Return whether a value of this type survives JSON unchanged."""
    from types import UnionType
    from typing import Literal, Union, get_args, get_origin

    from typing_extensions import get_type_hints, is_typeddict  # as pydantic wants them before Python 3.12

    annotation = bare(annotation)
    if is_typeddict(annotation):
        return all(map(_is_carried, get_type_hints(annotation).values()))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return all(map(is_json, arguments))
    if origin in (Union, UnionType, *_CONTAINERS):
        return all(map(_is_carried, arguments))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return all(is_json(member.value) for member in annotation)
    return annotation in (*_SCHEMAS, *_CONTAINERS, None) or is_rich_leaf(annotation)


def own_copy(value: Any) -> Any:
    """Return a copy of plain JSON with its own lists and dicts, so that changes to the original do not affect it."""
    if type(value) is list:
        return [own_copy(item) for item in value]
    if type(value) is dict:
        return {key: own_copy(item) for key, item in value.items()}
    return value


def is_too_deep(value: object) -> bool:
    """Return whether lists and dicts are nested more than ``DEEPEST`` levels deep, or contain themselves.

    >>> is_too_deep([1, {"a": [2]}])
    False
    """
    level = _containers([value])
    for _ in range(DEEPEST):
        level = _containers(part for item in level for part in (item.values() if type(item) is dict else item))
        if not level:
            return False
    return True


def _containers(values: Iterable[Any]) -> Collection[Any]:
    """Return the lists and dicts among some values, without duplicates."""
    return {id(value): value for value in values if type(value) in (list, dict)}.values()


def too_deep(what: str) -> str:
    """Return the message for such a value."""
    return (
        f"{what} has lists or dicts nested more than {DEEPEST} levels deep, which not every engine can carry. Make it "
        f"flatter, or pass it as text or as a file."
    )


def is_json(value: object) -> bool:
    """Return True for a value that JSON restores unchanged: no tuples, no NaN, only string keys, not too deep."""
    return not is_too_deep(value) and _is_json(value)


def _is_json(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if type(value) in (int, str):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(_is_json, value))
    return type(value) is dict and all(type(key) is str and _is_json(item) for key, item in value.items())


def is_of_type(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a value has one of a schema's types, if they are plain. For workers, which have no jsonschema.

    >>> union = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    >>> is_of_type("x", union), is_of_type(3, union), is_of_type(3, {})
    (True, False, True)
    """
    kinds = {str(choice.get("type")) for choice in schema.get("anyOf", (schema,))}
    return not kinds <= _FITS.keys() or any(_FITS[kind](value) for kind in kinds)


def check_values(pipeline: str, parameters: Sequence[Parameter], values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return all parameters of a run, with defaults filled in.

    Raises one ``ParameterError`` with everything that is wrong.
    """
    by_name = _by_name(pipeline, parameters, values)
    known = {parameter.name: parameter for parameter in parameters}
    faults = [_unknown(name, known) for name in by_name if name not in known]
    for name, parameter in known.items():
        if name not in by_name and parameter.required:
            faults.append(f"{name!r} is missing and has no default")
        elif name in by_name and (fault := _misfit(parameter, by_name[name])):
            faults.append(fault)
        elif half := _half_a_pair(by_name.get(name, parameter.default)):
            faults.append(
                f"{name!r} contains {half!a}, a lone surrogate, which is not a character and which engines' databases "
                f"reject; pass a file name that is not UTF-8 as os.fsencode(name).hex()"
            )
    if faults:
        text = "; ".join(faults)
        raise ParameterError(f"Parameters of pipeline {pipeline!r}: {text}{'' if text.endswith('?') else '.'}")
    return {
        name: own_copy(as_declared(parameter.schema, by_name.get(name, parameter.default)))
        for name, parameter in known.items()
    }


def _half_a_pair(value: object) -> str:
    """Return the first lone surrogate in a string, a list or a dict; empty if there is none.

    >>> _half_a_pair([1, {"ok": "\U0001f600"}, {"not \\ud83d": 2}])
    '\\ud83d'
    """
    if isinstance(value, str):
        match = _SURROGATE.search(value)
        return match[0] if match else ""
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_half_a_pair, parts)), "")


def _by_name(pipeline: str, parameters: Sequence[Parameter], values: object) -> dict[str, Any]:
    if isinstance(values, Mapping | None):
        return {name: value if is_too_deep(value) else plain(value) for name, value in (values or {}).items()}
    name = parameters[0].name if parameters else "name"
    raise ParameterError(
        f"Parameters of pipeline {pipeline!r} must be a dict by name, such as {{{name!r}: …}}, not {values!r:.60}."
    )


def as_declared(schema: Mapping[str, Any], value: Any) -> Any:
    """Return the value; an int becomes a float if its type allows floats but no ints.

    Python lets an int stand for a float; some engines convert it (Prefect does, by pydantic), so that a step would see
    1 on one engine and 1.0 on another.

    >>> as_declared({"type": "number"}, 1), as_declared({"type": "integer"}, 1)
    (1.0, 1)
    """
    if type(value) is not int:
        return value
    choices = {choice.get("type") for choice in schema.get("anyOf", (schema,))}
    if "number" not in choices or "integer" in choices:
        return value
    try:
        return float(value)
    except OverflowError:  # too large for any float
        return value


_FILLED = {
    LOGICAL_DATE: "the run's logical date",
    DATA_INTERVAL_START: "the start of the run's data interval",
    DATA_INTERVAL_END: "the end of the run's data interval",
}


def in_words(value: object) -> str:
    """Return the words for a default that is a date of the run; empty for any other value."""
    return _FILLED.get(value, "") if type(value) is str else ""


def fillable(schema: Mapping[str, Any], default: object) -> Mapping[str, Any]:
    """Extend the schema of a date or a time by its default, if that is a placeholder for a date of the run.

    Engines check the format of values, and of defaults, before the date is filled in.
    """
    if not in_words(default) or not _takes_dates(schema):
        return schema
    marker, choices = {"type": "string", "const": default}, schema.get("anyOf")
    if choices is None:
        return {"anyOf": [marker, schema]}
    return schema if marker in choices else {**schema, "anyOf": [marker, *choices]}


def days_of(parameters: Iterable[Parameter]) -> set[str]:
    """Return the names of the parameters that are a day without a time."""
    return {parameter.name for parameter in parameters if _formats_of(parameter.schema) == {"date"}}


def _takes_dates(schema: Mapping[str, Any]) -> bool:
    return not _FORMATS.keys().isdisjoint(_formats_of(schema))


def _formats_of(schema: Mapping[str, Any]) -> set[str]:
    return {str(choice["format"]) for choice in schema.get("anyOf", (schema,)) if "format" in choice}


def _misfit(parameter: Parameter, value: Any) -> str | None:
    """Describe the fault of a value; None if it has none."""
    name, schema = parameter.name, parameter.schema
    if is_too_deep(value):
        return too_deep(repr(name)).rstrip(".")
    if (date := in_words(value)) and _takes_dates(schema) and schema != fillable(schema, value):
        return f"{name!r} can be {date} only as its default; pass a date here"
    if not is_json(value):
        return f"{name!r} is {value!r:.60} ({type(value).__name__}), which is not plain JSON"
    if not schema:
        return None
    if len(schema) == 1 and (fits := _FITS.get(str(schema.get("type")))):
        hint = "; annotate it as float to take both" if type(value) is float else ""
        return None if fits(value) else f"{name!r} must be of type {schema['type']}, not {value!r:.60}{hint}"
    validator = _validator_class()(dict(schema), format_checker=_formats())
    faults = [_explained(error) for error in validator.iter_errors(value)]
    return "; ".join(f"{name!r}{fault}" for fault in faults) if faults else None


@cache
def _validator_class() -> Callable[..., Any]:
    """Return JSON Schema's validator, which takes ``3.0`` for an integer, changed to refuse it: a step would."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: _FITS["integer"](value))
    return cast("Callable[..., Any]", extend(Draft202012Validator, type_checker=types))  # type: ignore[no-untyped-call]


@cache
def _formats() -> FormatChecker:
    """Return the checks of dates and times by RFC 3339, as engines check them: a time has a time zone."""
    from jsonschema import FormatChecker

    def is_moment(text: object) -> bool:
        return not isinstance(text, str) or datetime.fromisoformat(text).tzinfo is not None

    def is_date(text: object) -> bool:
        return not isinstance(text, str) or bool(date.fromisoformat(text))  # which raises

    checker = FormatChecker(formats=())
    checker.checks("date-time", raises=ValueError)(is_moment)
    checker.checks("date", raises=ValueError)(is_date)
    return checker


def _explained(error: ValidationError) -> str:
    """Describe the fault, and its position in a nested value; for a choice of types, describe the valid ones."""
    where = "".join(f"[{part!r}]" for part in error.absolute_path)
    if error.validator in ("anyOf", "oneOf"):
        if inner := [part for part in error.context or () if part.relative_path]:
            return _explained(max(inner, key=lambda part: len(part.relative_path)))
    elif error.validator not in ("type", "enum", "format"):
        return f"{where}: {error.message}"
    return f"{where} must be {wanted({str(error.validator): error.validator_value})}, not {error.instance!r:.60}"


def wanted(schema: Mapping[str, Any]) -> str:
    """Describe the values that a schema allows.

    >>> wanted({"anyOf": [{"enum": ["x", "y"]}, {"type": "integer"}, {"type": "null"}]})
    "'x' or 'y' or of type integer or null"
    """
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(wanted(choice) for choice in choices if not in_words(choice.get("const")))
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return "null" if schema.get("type") == "null" else f"of type {schema.get('type', 'any')}"


def _unknown(name: str, known: Mapping[str, Parameter]) -> str:
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near else f"; it has {', '.join(map(repr, known)) or 'none'}"
    return f"it has no parameter {name!r}{hint}"
