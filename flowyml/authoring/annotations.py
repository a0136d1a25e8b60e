"""What functions are annotated with, followed through a pipeline: values that cannot be compared, and wrong items."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from functools import reduce
from pathlib import PurePath
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from flowyml.authoring.calls import Call
from flowyml.authoring.places import Place, errors_at
from flowyml.core.errors import DefinitionError
from flowyml.plan.conditions import AllOf, AnyOf, Compare, Condition, IsTrue, Not, shown
from flowyml.plan.groups import Branch, Groups, Loop
from flowyml.plan.model import Step
from flowyml.plan.types import is_model, is_rich_leaf, returned_type, wanted
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source

__all__ = ["check_annotations"]

_NUMBERS = (bool, int, float)
_ORDERED = (bool, int, float, str, bytes, list, tuple, set, frozenset, date, datetime)
"""The types of Python's own that are ordered among themselves, numbers also with one another."""


def check_annotations(
    structure: Groups, calls: Mapping[str, Call], types: Mapping[str, object], steps: Iterable[Step],
    places: Mapping[str, Place],
) -> None:  # fmt: skip
    """Raise ``DefinitionError`` where annotations say that a comparison would raise, or that an item is a wrong one.

    ``types`` are those of the parameters, ``places`` the lines of groups. What is not annotated is not checked.
    """
    known = _Annotations(structure, calls, types)
    for group in structure:
        if isinstance(group, Branch) and group.condition is not None:
            members = structure.members(group.name)
            with errors_at(places.get(group.name) or (calls[members[0]].place if members else None)):
                for compared in _comparisons(group.condition):
                    known.check_comparison(compared, group)
    for step in steps:
        if any(isinstance(item.source, FromItem) for item in step.inputs):
            with errors_at(calls[step.name].place):
                known.check_items(step)


class _Annotations:
    def __init__(self, structure: Groups, calls: Mapping[str, Call], types: Mapping[str, object]) -> None:
        self._structure = structure
        self._calls = calls
        self._types = types
        self._returned: dict[str, Any] = {}

    def of(self, source: Source, group: str) -> Any:
        """What a value is annotated as where it is seen from ``group``; ``Any`` where that is unknown."""
        match source:
            case FromParameter(name):
                return self._types.get(name, Any)
            case Constant(value):
                return _type_of(value)
            case FromEither(outputs):
                return _union([self.of(output, group) for output in outputs])
            case FromItem(loop, name):
                return self._item(loop, name)
            case FromStep():
                return self._output(source, group)

    def _item(self, loop: str, name: str) -> Any:
        around = self._structure.by_name[loop]
        assert isinstance(around, Loop)
        over = next((item.source for item in around.over if item.name == name), None)
        return Any if over is None else _element(self.of(over, around.parent))

    def _output(self, source: FromStep, group: str) -> Any:
        call = self._calls[source.step]
        if source.step not in self._returned:
            self._returned[source.step] = returned_type(call.step.function)
        found = self._returned[source.step]
        if found is None:
            found = Any if len(call.outputs) == 1 else None
        if len(call.outputs) > 1:
            found = _part(found, call.outputs.index(source.output), len(call.outputs))
        for loop in self._structure.loops_between(source.step, group):
            goes_on = loop.on_item_error == "continue"
            found = GenericAlias(list, (GenericAlias(tuple, (int, found)) if goes_on else found,))
        return found

    def check_comparison(self, compared: Compare, branch: Branch) -> None:
        left, right = (_compared_as(self.of(side, branch.parent), side) for side in (compared.left, compared.right))
        if _may_work(compared.operator, left, right):
            return
        sides = ((compared.left, left), (compared.right, right))
        what = " and ".join(f"{shown(side)} is {_shown(kind)}" for side, kind in sides)
        raise DefinitionError(
            f"The condition {compared} would raise TypeError: {what}. Compare what can be compared, or let a step "
            f"decide that gives True or False."
        )

    def check_items(self, step: Step) -> None:
        hint_of = wanted(self._calls[step.name].step.function)
        for item in step.inputs:
            if not isinstance(item.source, FromItem):
                continue
            given, hint = self.of(item.source, step.group), hint_of(item)
            if hint is not None and _is_wrong(given, hint):
                raise DefinitionError(
                    f"step {step.name!r} takes {item.into or item.name!r} as {_shown(hint)}, and the items of loop "
                    f"{item.source.loop!r} are {_shown(given)}."
                )


def _comparisons(condition: Condition) -> Iterator[Compare]:
    match condition:
        case Compare():
            yield condition
        case Not(inner):
            yield from _comparisons(inner)
        case AllOf(conditions) | AnyOf(conditions):
            for each in conditions:
                yield from _comparisons(each)
        case IsTrue():
            pass


def _may_work(name: str, left: Any, right: Any) -> bool:
    """Whether comparing values so annotated may go well; in doubt it may."""
    if name in ("==", "!="):
        return True
    pairs = ((a, b) for a in _members(left) for b in _members(right))
    return any(_contains(a, b) if name == "in" else _are_ordered(a, b) for a, b in pairs)


def _are_ordered(left: Any, right: Any) -> bool:
    left, right = _class(left), _class(right)
    if left is None or right is None:
        return True
    own = [
        next((kind for kind in (*_ORDERED, dict, NoneType) if issubclass(each, kind)), None) for each in (left, right)
    ]
    if None not in own:
        return all(kind in _NUMBERS for kind in own) or (own[0] is own[1] and own[0] in _ORDERED)
    return any(_defines_order(each) for each, kind in zip((left, right), own, strict=True) if kind is None)


def _defines_order(kind: type) -> bool:
    return any(getattr(kind, name) is not getattr(object, name) for name in ("__lt__", "__gt__", "__le__", "__ge__"))


def _contains(value: Any, among: Any) -> bool:
    value, among = _class(value), _class(among)
    if among is None:
        return True
    if issubclass(among, str):
        return value is None or issubclass(value, str)
    return any(hasattr(among, name) for name in ("__contains__", "__iter__", "__getitem__"))


def _compared_as(kind: Any, source: Source) -> Any:
    """A parameter is compared as the JSON that it came as."""
    if not isinstance(source, FromParameter):
        return kind
    return _union([_as_json(each) for each in _members(kind)])


def _as_json(kind: Any) -> Any:
    found = _class(kind)
    if found is None or issubclass(found, Enum):
        return Any
    if issubclass(found, date | PurePath):
        return str
    return dict if is_model(found) else kind


def _is_wrong(given: Any, hint: Any) -> bool:
    """Whether no value so annotated is what a step takes; in doubt it may be."""
    return not any(_fits(a, b) for a in _members(given) for b in _members(hint))


def _fits(given: Any, hint: Any) -> bool:
    a, b = _class(given), _class(hint)
    if a is None or b is None or b is object:
        return True
    if a in _NUMBERS and b in (*_NUMBERS, complex):
        return True
    if a in (list, tuple) and b in (list, tuple):  # JSON knows lists only
        parts = get_args(given), get_args(hint)
        return not (a is b is list and all(len(each) == 1 for each in parts)) or not _is_wrong(parts[0][0], parts[1][0])
    try:
        is_related = issubclass(a, b) or issubclass(b, a)
    except TypeError:  # a protocol, a TypedDict
        return True
    return is_related or not (b.__module__ == "builtins" or is_rich_leaf(b) or dataclasses.is_dataclass(b))


def _members(kind: Any) -> list[Any]:
    """The types that a union is made of; of any other annotation itself."""
    for alias in ("__supertype__", "__value__"):  # of a NewType, of a `type X = …`
        if hasattr(kind, alias):
            return _members(getattr(kind, alias))
    origin = get_origin(kind)
    if origin is Annotated:
        return _members(get_args(kind)[0])
    if origin is Literal:
        return [type(value) for value in get_args(kind)]
    if origin in (Union, UnionType):
        return [member for each in get_args(kind) for member in _members(each)]
    return [NoneType if kind is None else kind]


def _class(kind: Any) -> type | None:
    """The class of an annotation, without what is in brackets; None where any value may fit."""
    found = get_origin(kind) or kind
    if not isinstance(found, type) or found in (object, Any) or _is_typed_dict(found):
        return dict if isinstance(found, type) and _is_typed_dict(found) else None
    return found


def _is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict) and hasattr(kind, "__total__")


def _element(kind: Any) -> Any:
    """What the items of a list are, so annotated."""
    found = []
    for each in _members(kind):
        parts = get_args(each)
        is_uniform = len(parts) == 1 or (len(parts) == 2 and parts[1] is Ellipsis)
        found.append(parts[0] if is_uniform and get_origin(each) is not dict else Any)
    return _union(found)


def _part(kind: Any, index: int, count: int) -> Any:
    """One of several outputs of a function that returns a tuple."""
    parts = get_args(kind) if get_origin(kind) is tuple else ()
    if len(parts) == 2 and parts[1] is Ellipsis:
        return parts[0]
    return parts[index] if len(parts) == count else Any


def _type_of(value: Any) -> Any:
    if isinstance(value, list) and value:
        return GenericAlias(list, (_union([type(item) for item in value]),))
    return type(value)


def _union(kinds: list[Any]) -> Any:
    different = list(dict.fromkeys(kinds))
    if any(each is Any for each in different):
        return Any
    combine: Callable[[Any, Any], Any] = operator.or_
    return reduce(combine, different) if len(different) > 1 else different[0] if different else Any


def _shown(kind: Any) -> str:
    return "None" if kind is NoneType else str(kind) if get_args(kind) else str(getattr(kind, "__name__", kind))
