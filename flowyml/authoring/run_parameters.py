"""The parameters of a run: their names, types and defaults, from a pipeline's function or its context."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from flowyml.core.errors import DefinitionError
from flowyml.plan.model import FromParameter, Input, Parameter
from flowyml.plan.parameters import as_declared, fillable, is_too_deep, own_copy, schema_of
from flowyml.plan.types import check_restored, plain, type_hints

__all__ = ["annotation_of", "context_parameter", "declared_parameter", "type_of"]


def declared_parameter(pipeline: str, item: inspect.Parameter, annotation: object) -> Parameter:
    if item.kind in (item.VAR_POSITIONAL, item.VAR_KEYWORD, item.POSITIONAL_ONLY):
        raise DefinitionError(f"Pipeline {pipeline!r}: parameter {item} has no fixed name. Write it out.")
    required = item.default is item.empty
    parameter = Parameter(name=item.name, schema=schema_of(annotation, item.name), required=required)
    return parameter if required else _with_default(parameter, annotation, item.default)


def _with_default(parameter: Parameter, annotation: object, default: object) -> Parameter:
    value = default if is_too_deep(default) else plain(default)
    check_restored(parameter.name, annotation, default, value)
    schema = fillable(parameter.schema, value)
    return replace(parameter, schema=schema, default=own_copy(as_declared(schema, value)))


def context_parameter(name: str, annotation: object, value: object) -> Parameter:
    return _with_default(Parameter(name=name, schema=schema_of(annotation, name)), annotation, value)


def type_of(default: object) -> object:
    """Return the type of a value without annotation."""
    if default is inspect.Parameter.empty:
        return object
    return Path if isinstance(default, PurePath) else type(default)


def annotation_of(name: str, takers: Iterable[tuple[Callable[..., Any], Input]], value: object) -> object:
    """Return the annotation of the parameter ``name`` in the first step that takes it, else the type of the value."""
    source = FromParameter(name)
    hints = (type_hints(function).get(item.name) for function, item in takers if item.source == source)
    return next((hint for hint in hints if hint is not None), type_of(value))
