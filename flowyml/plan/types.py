"""Types of parameters that JSON does not restore by itself: dates, paths, enumerations, pydantic's models.

Everywhere but in a step, such a value is pydantic's JSON for it: a string for a date or a path, the value of an
enumeration's member, an object for a model. A step that takes it gets a value of the annotated type.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from datetime import date, datetime
from enum import Enum
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from flowyml.core.errors import ParameterError
from flowyml.plan.model import Input

__all__ = [
    "CONSTANTS", "bare", "check_restored", "is_model", "is_rich", "is_rich_leaf", "leaves", "plain", "returned_type",
    "revived", "spell_out", "type_hints", "type_text", "wanted",
]  # fmt: skip

CONSTANTS = "plain JSON, dates, paths, enumerations or pydantic models"
"""The values that ``plain`` makes JSON of, and that a pipeline can therefore contain, as errors name them."""


def bare(annotation: Any) -> Any:
    """Return the annotation that a ``NewType``, a ``type X = …`` or ``Annotated`` stands for."""
    for alias in ("__supertype__", "__value__"):
        if hasattr(annotation, alias):
            return bare(getattr(annotation, alias))
    return bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def type_text(annotation: Any) -> str:
    """Return an annotation as people write it: ``int``, ``list[int]``, ``None``."""
    if annotation is NoneType:
        return "None"
    if get_args(annotation):
        return str(annotation).replace("pathlib._local.", "pathlib.")  # where Python 3.13 alone has the classes
    return str(getattr(annotation, "__name__", annotation))


def leaves(annotation: Any) -> Iterable[Any]:
    """Return the types in an annotation, without their containers."""
    annotation = bare(annotation)
    return [leaf for argument in get_args(annotation) for leaf in leaves(argument)] or [annotation]


def is_rich_leaf(kind: Any) -> bool:
    """Return whether values of this type become JSON, and are restored from it."""
    if not isinstance(kind, type):
        return False
    return issubclass(kind, date | PurePath | Enum) or is_model(kind)


def is_rich(annotation: Any) -> bool:
    """Return whether values of this annotation must be restored from JSON."""
    return any(map(is_rich_leaf, leaves(annotation)))


def plain(value: Any) -> Any:
    """Return the JSON of a value of such a type, even within lists and dicts; anything else unchanged.

    >>> plain({"since": date(2026, 1, 31), "to": [PurePath("a/b")]})
    {'since': '2026-01-31', 'to': ['a/b']}
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if type(value) is list:
        return [plain(item) for item in value]
    if type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    if not is_model(type(value)):
        return value
    try:
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    except ValueError as error:  # bytes that are not UTF-8; pydantic's own errors are such, too
        raise ParameterError(f"{value!r:.80} cannot be passed as JSON: {error}") from error


def check_restored(name: str, annotation: Any, value: Any, json_value: Any, *, has_schema: bool = True) -> None:
    """Raise ``ParameterError`` if a step would get another value from the JSON of a parameter than the one passed.

    A value that the annotation does not allow is left to the parameter's schema, if it has one.
    JSON does not hold all that a model may: excluded fields, untyped ones, those of a subclass of the annotation.
    """
    if not is_rich(annotation) or (has_schema and (value is json_value or value == json_value)):
        return
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    try:
        passed = TypeAdapter[Any](annotation).validate_python(value)
    except (ValidationError, PydanticUserError) as error:
        if has_schema:
            return
        text = f"Parameter {name!r} is {value!r:.200}, which is not a {type_text(annotation)}."
        raise ParameterError(text) from error
    restored = revived(annotation, json_value)
    if not _is_same(restored, passed):
        raise ParameterError(
            f"Parameter {name!r} is {passed!r:.200}, and a step would get {restored!r:.200}, since parameters travel "
            f"as JSON. Annotate the parameter, and the fields of a model, with the types of their values."
        )


def _is_same(value: Any, other: Any) -> bool:
    """Return whether two values are equal; two times if they have the same offset, in whatever zone.

    Python calls times of two zones different in the hours when the clocks change.
    """
    if isinstance(value, datetime) and isinstance(other, datetime):
        return value.isoformat() == other.isoformat()
    if type(value) is not type(other):
        return bool(value == other)
    if is_model(type(value)):
        return _is_same([vars(value), value.model_extra], [vars(other), other.model_extra])
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(_is_same(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(_is_same, value, other))
    return bool(value == other)


def revived(annotation: Any, value: Any) -> Any:
    """Restore a value for a step from its JSON. Raises ``ParameterError``.

    >>> revived(date | None, "2026-01-31"), revived(date | None, None), revived(list[date], [])
    (datetime.date(2026, 1, 31), None, [])
    """
    try:
        return _revived(annotation, value)
    except Exception as error:  # whatever a validator of the user's raises
        raise ParameterError(f"{value!r:.80} is not a valid {type_text(annotation)}: {error}") from error


def wanted(function: Callable[..., Any]) -> Callable[[Input], Any]:
    """Return a function that finds, for an input, the annotated type; None if that is unknown."""
    hints = type_hints(function)
    code = getattr(inspect.unwrap(function), "__code__", None)
    others = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :] if code else ()

    def of(item: Input) -> Any:
        name = item.into or item.name
        hint = hints.get(name, next((hints[other] for other in others if other in hints), None))
        return (get_args(hint) or (None,))[0] if item.into else hint

    return of


def returned_type(function: Callable[..., Any]) -> Any:
    """Return the annotated return type of a function; None if it is unknown."""
    return type_hints(function).get("return")


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function as types; empty if some are unknown."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # a name that only type checkers see
        return {}


def spell_out(function: Callable[..., Any]) -> None:
    """Convert the annotations of a function that is pickled by value into types.

    A pickle leaves out objects that only a string names, and annotations are strings after
    ``from __future__ import annotations``.
    """
    bare = inspect.unwrap(function)
    if any(isinstance(hint, str) for hint in getattr(bare, "__annotations__", {}).values()):
        bare.__annotations__ = get_type_hints(bare, include_extras=True)


def _revived(annotation: Any, value: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        if value is None and len(kinds) < len(get_args(annotation)):
            return None
        annotation = kinds[0] if len(kinds) == 1 else annotation
    if annotation in (date, datetime):
        return annotation.fromisoformat(value)
    if isinstance(annotation, type) and issubclass(annotation, PurePath | Enum):
        return annotation(value)
    if isinstance(annotation, type) and is_model(annotation):
        return annotation.model_validate_json(json.dumps(value))  # type: ignore[attr-defined]  # pydantic's
    from pydantic import TypeAdapter

    return TypeAdapter[Any](annotation).validate_json(json.dumps(value))


def is_model(kind: type) -> bool:
    """Return whether a type is pydantic's, by name: most workers never import pydantic."""
    return any((base.__module__, base.__name__) == ("pydantic.main", "BaseModel") for base in kind.__mro__)
