"""The checks of a DAG's ``Param`` in the words of a parameter: its type, ``Literal``, pydantic's ``Field``.

A ``Param`` is a JSON Schema, and so is FlowyML's form of a parameter's annotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowyml.migration.airflow.model import Reference
from flowyml.migration.airflow.writer.values import is_plain

_KINDS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "string": ("str", (str,)),
    "integer": ("int", (int,)),
    "number": ("float", (int, float)),
    "boolean": ("bool", (bool,)),
    "array": ("list", (list,)),
    "object": ("dict", (dict,)),
    "null": ("None", (type(None),)),
}
_NUMBERS = {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt",
            "multipleOf": "multiple_of"}  # fmt: skip
_WORDS: Mapping[str, Mapping[str, str]] = {
    "int": _NUMBERS,
    "float": _NUMBERS,
    "str": {"minLength": "min_length", "maxLength": "max_length"},
    "list": {"minItems": "min_length", "maxItems": "max_length"},
}
# Keywords that change how Airflow's form looks, and check nothing. Source: Airflow's "Params", the fields of its
# trigger form.
_LOOKS = frozenset({
    "0", "1", "default", "description", "title", "description_md", "section", "examples", "values_display", "source",
    "custom_html_prefix", "readOnly", "schema", "type",
})  # fmt: skip
_FORMATS = ("date", "date-time")
"""The formats that FlowyML checks."""


@dataclass(frozen=True, slots=True)
class Declared:
    """The annotation of a parameter: ``base`` is its type, ``choices`` its possible values, if they are few.

    ``limits`` are arguments of ``Field``; ``schema`` has the other keywords, for its ``json_schema_extra``. ``unsaid``
    pairs the parts of a ``Param`` that none of them expresses with the reason.
    """

    base: str
    choices: tuple[Any, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    unsaid: Sequence[tuple[str, str]] = ()


def default_of(param: Any) -> Any:
    """Return the default of a parameter, which may be a ``Param``."""
    if not _is_param(param):
        return param
    found = [each.value for each in param.arguments if each.name in ("0", "default")]
    return found[0] if found else None


def declared(param: Any) -> Declared:
    """Return the annotation of a parameter, from the DAG's default for it."""
    default = default_of(param)
    schema = _schema_of(param) if _is_param(param) else {}
    kinds = _kinds(schema, default)
    base = _base(kinds, default)
    keywords = {name: value for name, value in schema.items() if name not in _LOOKS and value is not None}
    unsaid = [(name, "only Airflow knows it") for name, value in keywords.items() if not is_plain(value)]
    keywords = {name: value for name, value in keywords.items() if is_plain(value)}
    if schema and default is None and "null" not in (schema.get("type") or "null"):
        unsaid.append(("default", "a run of the DAG must be given a value; here it is None without one"))
    choices = keywords.get("enum")
    if isinstance(choices, list) and _are_choices(choices, default):
        return Declared(base, tuple(choices), unsaid=tuple(unsaid))
    if (shown := keywords.get("format")) is not None and shown not in _FORMATS:
        del keywords["format"]
        if shown != "multiline":  # which is for the form alone
            unsaid.append(("format", f"nothing checks that a value is {shown!r:.40}"))
    words = _WORDS.get(base, {})
    limits = {words[name]: value for name, value in keywords.items() if name in words}
    return Declared(
        base, (), limits, {name: value for name, value in keywords.items() if name not in words}, tuple(unsaid)
    )


def _is_param(value: Any) -> bool:
    return isinstance(value, Reference) and value.call and value.import_path.rpartition(".")[2] == "Param"


def _schema_of(param: Reference) -> dict[str, Any]:
    found = {each.name: each.value for each in param.arguments}
    whole = found.get("schema")
    return {**found, **whole} if isinstance(whole, dict) else found


def _kinds(schema: Mapping[str, Any], default: Any) -> list[str]:
    """Return the types of a ``Param``, if its default has one of them."""
    said = schema.get("type")
    kinds = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    if not kinds or not all(isinstance(kind, str) and kind in _KINDS for kind in kinds):
        return []
    if default is None:
        return kinds if "null" in kinds else [*kinds, "null"]
    is_bool = isinstance(default, bool)
    fits = any(kind == "boolean" if is_bool else isinstance(default, _KINDS[kind][1]) for kind in kinds)
    return kinds if fits else []


def _base(kinds: Sequence[str], default: Any) -> str:
    if not kinds:
        found = next((name for name, types in _KINDS.values() if type(default) in types), "None")
        return "str | None" if found == "None" else found
    names = [_KINDS[kind][0] for kind in kinds if kind != "null"]
    if "number" in kinds and "integer" not in kinds and type(default) is int:
        names.insert(names.index("float"), "int")  # so that it stays one, as it does in Airflow
    return " | ".join([*names, *(["None"] if "null" in kinds else [])])


def _are_choices(choices: list[Any], default: Any) -> bool:
    """Return whether ``Literal`` can contain the choices: it allows only whole numbers."""
    if not all(isinstance(each, str | int | None) for each in choices):
        return False
    return any(type(each) is type(default) and each == default for each in choices)
