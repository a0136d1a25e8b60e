"""Values that are written in a pipeline: plain JSON, or a date, a path and so on, which travel as JSON."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from types import GenericAlias
from typing import Any

from flowyml.authoring.run_parameters import type_of
from flowyml.core.errors import DefinitionError, ParameterError
from flowyml.plan.conditions import with_sources
from flowyml.plan.groups import Branch, Group, Loop
from flowyml.plan.parameters import is_json, is_too_deep, own_copy
from flowyml.plan.types import plain
from flowyml.plan.values import Constant, Source

__all__ = ["RichConstant", "as_in_plan", "constant", "is_constant", "kind_of_value", "union"]


@dataclass(frozen=True, slots=True)
class RichConstant(Constant):
    """The JSON of a value from which a step restores one of its annotated type; plans have a ``Constant``.

    ``original`` is the value; ``kind`` is the type of the value, or the annotation of the called pipeline's parameter.
    """

    original: Any = field(compare=False)
    kind: Any = field(compare=False)


def is_constant(value: object) -> bool:
    """Return whether a plan can hold a value. Raises ``DefinitionError`` for a model that JSON cannot hold."""
    try:
        return not is_too_deep(value) and is_json(plain(value))
    except ParameterError as error:
        raise DefinitionError(str(error)) from error


def constant(value: Any, kind: Any = None) -> Constant:
    """Return the constant of a value for which ``is_constant`` holds; ``kind`` is an annotation that JSON needs."""
    if kind is None and is_json(value):
        return Constant(own_copy(value))
    return RichConstant(own_copy(plain(value)), value, kind or kind_of_value(value))


def as_in_plan(group: Group) -> Group:
    """Return a group with the constants of plans."""
    if isinstance(group, Loop):
        return replace(group, over=tuple(replace(item, source=_in_plan(item.source)) for item in group.over))
    if isinstance(group, Branch) and group.condition is not None:
        return replace(group, condition=with_sources(group.condition, _in_plan))
    return group


def _in_plan(source: Source) -> Source:
    return Constant(source.value) if isinstance(source, RichConstant) else source


def kind_of_value(value: Any) -> Any:
    """Return the type of a value, for a list or a dict with that of its items."""
    if isinstance(value, list) and value:
        return GenericAlias(list, (union([kind_of_value(item) for item in value]),))
    if isinstance(value, dict) and value:
        return GenericAlias(dict, (str, union([kind_of_value(item) for item in value.values()])))
    return type_of(value)


def union(kinds: list[Any]) -> Any:
    """Return the annotation of a value that has one of these; ``Any`` if it is unknown."""
    different = list(dict.fromkeys(kinds))
    if any(kind is Any for kind in different):
        return Any
    combine: Callable[[Any, Any], Any] = operator.or_
    return reduce(combine, different) if len(different) > 1 else different[0] if different else Any
