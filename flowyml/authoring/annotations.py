"""Follow annotations of functions through a pipeline: find dates that travel as strings, and values of a wrong type.

A type checker finds comparisons of types that do not fit: for it, a step returns what its function returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from functools import partial
from types import GenericAlias, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from flowyml.authoring.calls import Call
from flowyml.authoring.constants import RichConstant, kind_of_value, union
from flowyml.authoring.placeholders import texts_of
from flowyml.authoring.source_lines import SourceLine, errors_at
from flowyml.core.errors import DefinitionError
from flowyml.plan.conditions import Compare, IsTrue, format_source, leaves_of, of_text, with_leaves
from flowyml.plan.groups import Branch, Group, Groups, Loop
from flowyml.plan.model import Step
from flowyml.plan.types import bare, is_rich_leaf, returned_type, type_text, wanted
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source

__all__ = ["check_annotations", "with_dates"]

_NUMBERS = (bool, int, float)


def with_dates(structure: Groups, calls: Mapping[str, Call], types: Mapping[str, object]) -> tuple[Group, ...]:
    """Return the groups of a pipeline, with comparisons with date parameters marked, because dates travel as strings.

    ``types`` are those of the parameters.
    """
    known = _Annotations(structure, calls, types)
    return tuple(
        dataclasses.replace(group, condition=with_leaves(group.condition, partial(known.with_date, group)))
        if isinstance(group, Branch) and group.condition is not None
        else group
        for group in structure
    )


def check_annotations(
    structure: Groups, calls: Mapping[str, Call], types: Mapping[str, object], steps: Iterable[Step],
    lines: Mapping[str, SourceLine],
) -> None:  # fmt: skip
    """Raise ``DefinitionError`` if annotations say that a comparison never holds, or that a value has a wrong type.

    ``types`` are those of the parameters, ``lines`` the lines of groups. Values without annotations are not checked.
    """
    known = _Annotations(structure, calls, types)
    for group in structure:
        if isinstance(group, Branch) and group.condition is not None:
            members = structure.members(group.name)
            with errors_at(lines.get(group.name) or (calls[members[0]].line if members else None)):
                for leaf in leaves_of(group.condition):
                    if isinstance(leaf, Compare):
                        known.check_comparison(leaf, group)
    for step in steps:
        if step.inputs:
            with errors_at(calls[step.name].line):
                known.check_inputs(step)


class _Annotations:
    def __init__(self, structure: Groups, calls: Mapping[str, Call], types: Mapping[str, object]) -> None:
        self._structure = structure
        self._calls = calls
        self._types = types
        self._returned: dict[str, Any] = {}

    def of(self, source: Source, group: str) -> Any:
        """Return the annotation of a value as seen from ``group``; ``Any`` if it is unknown."""
        match source:
            case FromParameter(name):
                return self._types.get(name, Any)
            case RichConstant():
                return source.kind
            case Constant(value):
                return kind_of_value(value)
            case FromEither(outputs):
                return union([self.of(output, group) for output in outputs])
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
        kind = self._returned[source.step]
        if kind is None:
            kind = Any if len(call.outputs) == 1 else None
        if len(call.outputs) > 1:
            kind = _part(kind, call.outputs.index(source.output), len(call.outputs))
        for loop in self._structure.loops_between(source.step, group):
            goes_on = loop.on_item_error == "continue"
            kind = GenericAlias(list, (GenericAlias(tuple, (int, kind)) if goes_on else kind,))
        return kind

    def with_date(self, branch: Branch, compared: Compare | IsTrue) -> Compare | IsTrue:
        if isinstance(compared, IsTrue):
            return compared
        sides = [self._members_of(side, branch) for side in (compared.left, compared.right) if self._is_json(side)]
        kinds = {texts_of(_class(_element(kind) if _class(kind) is list else kind)) for side in sides for kind in side}
        texts = next((texts for texts in ("date-time", "date") if texts in kinds), compared.texts)
        return dataclasses.replace(compared, texts=texts)

    def check_comparison(self, compared: Compare, branch: Branch) -> None:
        sides = (compared.left, compared.right)
        if compared.texts:
            self._check_texts(compared)
        for side, other in (sides, sides[::-1]):
            kinds = [] if self._is_json(other) else self._members_of(other, branch)
            if self._is_json(side) and kinds and all(_is_lost_as_json(kind) for kind in kinds):
                raise DefinitionError(
                    f"The condition {compared} always has the same result: {format_source(side)} is compared as JSON, "
                    f"and {format_source(other)} is {type_text(union(kinds))}. Return True or False from a step "
                    f"instead."
                )

    def _check_texts(self, compared: Compare) -> None:
        sides = (compared.left, compared.right)
        needs_zone = any(self._is_json(side) and not isinstance(side, Constant) for side in sides)
        for side in sides:
            try:
                known = of_text(compared.texts, side.value if isinstance(side, Constant) else None)
            except ValueError as error:
                raise DefinitionError(
                    f"The condition {compared} compares a date with {format_source(side)}: {error}."
                ) from error
            times = [each for each in (known if isinstance(known, list) else [known]) if isinstance(each, datetime)]
            if needs_zone and any(time.tzinfo is None for time in times):
                raise DefinitionError(
                    f"The condition {compared} compares {format_source(side)}, which has no time zone, with a time "
                    f"that has one. Add a time zone."
                )

    def _members_of(self, source: Source, branch: Branch) -> list[Any]:
        return _members(self.of(source, branch.parent))

    def _is_json(self, source: Source) -> bool:
        """Return whether a value arrives as JSON: a parameter's value, or an item of its list."""
        while isinstance(source, FromItem):
            loop = self._structure.by_name[source.loop]
            assert isinstance(loop, Loop)
            source = next(item.source for item in loop.over if item.name == source.name)
        return isinstance(source, FromParameter | Constant)

    def check_inputs(self, step: Step) -> None:
        """Check the types of values: a step gets them as they are, whatever its annotations."""
        function = self._calls[step.name].step
        hint_of = wanted(function.function)
        for item in step.inputs:
            actual, hint, why = self.of(item.source, step.group), hint_of(item), ""
            parameter = function.signature.parameters.get(item.name)
            defaults_to_none = parameter is not None and parameter.default is None
            if hint is not None and _is_builtin(hint):
                for what, value in self._constants(item.source):
                    if not _takes(hint, value) and not (value is None and defaults_to_none):
                        kind = "" if value is None else f" ({type(value).__name__})"
                        raise DefinitionError(
                            f"step {step.name!r} takes {item.into or item.name!r} as {type_text(hint)}, and {what} "
                            f"{value!r:.80}{kind}."
                        )
            match item.source:
                case FromItem(loop):
                    what = f"the items of loop {loop!r} are"
                    if _class(hint) is list and not _is_wrong(actual, _element(hint)):
                        why = f"; if all items share it, pass it with partial({item.name}=…)"
                case FromStep(name) if loops := self._structure.loops_between(name, step.group):
                    what = f"loop {loops[0].name!r} gives"
                    if any(each.on_item_error == "continue" for each in loops):
                        why = ": each value with its index, since items may fail"
                case FromStep(name) if not item.into and _is_builtin(actual):  # NumPy's types may do for Python's
                    what = f"step {name!r} returns"
                case RichConstant():
                    what = "it is given"
                case FromParameter(name) if not item.typed and not item.into and _is_builtin(hint):
                    what = f"parameter {name!r} is"
                case _:
                    continue
            if hint is not None and _is_wrong(actual, hint):
                raise DefinitionError(
                    f"step {step.name!r} takes {item.into or item.name!r} as {type_text(hint)}, and {what} "
                    f"{type_text(actual)}{why}."
                )

    def _constants(self, source: Source) -> Iterator[tuple[str, Any]]:
        """Yield the values of a source that are known, with how the message goes on."""
        match source:
            case RichConstant():  # whose type is checked
                return
            case Constant(value):
                yield "it is given", value
            case FromItem(loop, name):
                around = self._structure.by_name[loop]
                assert isinstance(around, Loop)
                over = next(item.source for item in around.over if item.name == name)
                for number, value in enumerate(over.value if type(over) is Constant else ()):
                    yield f"item {number} of loop {loop!r} is", value


def _is_lost_as_json(kind: Any) -> bool:
    """Return whether values of this type equal no value that JSON has."""
    origin = _class(kind)
    if origin is list:
        return all(map(_is_lost_as_json, _members(_element(kind))))
    if origin is None or issubclass(origin, date | str | int):  # members of such an enumeration equal their values
        return False
    return is_rich_leaf(origin)


def _is_wrong(actual: Any, hint: Any) -> bool:
    """Return whether no value with this annotation fits a step's parameter; False if in doubt."""
    return not any(_fits(a, b) for a in _members(actual) for b in _members(hint))


def _takes(hint: Any, value: Any) -> bool:
    """Return whether a value of JSON fits an annotation; True if in doubt."""
    for member in _members(hint):
        kind, parts = _class(member), get_args(member)
        if kind in (int, bool) and type(value) is float:
            fits = value.is_integer()
        elif kind is list and type(value) is list and len(parts) == 1:
            fits = all(_takes(parts[0], item) for item in value)
        else:
            fits = _fits(NoneType if value is None else kind_of_value(value), member)
        if fits:
            return True
    return False


def _is_builtin(kind: Any) -> bool:
    return all((class_ := _class(member)) is not None and class_.__module__ == "builtins" for member in _members(kind))


def _fits(actual: Any, hint: Any) -> bool:
    a, b = _class(actual), _class(hint)
    if a is None or b is None or b is object:
        return True
    if a in _NUMBERS and b in (*_NUMBERS, complex):
        return True
    if a in (list, tuple) and b in (list, tuple):  # JSON knows lists only
        parts = get_args(actual), get_args(hint)
        return not (a is b is list and all(len(part) == 1 for part in parts)) or not _is_wrong(parts[0][0], parts[1][0])
    try:
        is_related = issubclass(a, b) or issubclass(b, a)
    except TypeError:  # a protocol, a TypedDict
        return True
    return is_related or not (b.__module__ == "builtins" or is_rich_leaf(b) or dataclasses.is_dataclass(b))


def _members(kind: Any) -> list[Any]:
    """Return the members of a union; any other annotation itself."""
    kind = bare(kind)
    origin = get_origin(kind)
    if origin is Literal:
        return [type(value) for value in get_args(kind)]
    if origin in (Union, UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    return [NoneType if kind is None else kind]


def _class(kind: Any) -> type | None:
    """Return the class of an annotation, without its type arguments; None if any value may fit."""
    origin = get_origin(kind) or kind
    if not isinstance(origin, type) or origin in (object, Any) or _is_typed_dict(origin):
        return dict if isinstance(origin, type) and _is_typed_dict(origin) else None
    return origin


def _is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict) and hasattr(kind, "__total__")


def _element(kind: Any) -> Any:
    elements = []
    for member in _members(kind):
        parts = get_args(member)
        is_uniform = len(parts) == 1 or (len(parts) == 2 and parts[1] is Ellipsis)
        elements.append(parts[0] if is_uniform and get_origin(member) is not dict else Any)
    return union(elements)


def _part(kind: Any, index: int, count: int) -> Any:
    """Return the annotation of one of several outputs of a function that returns a tuple."""
    parts = get_args(kind) if get_origin(kind) is tuple else ()
    if len(parts) == 2 and parts[1] is Ellipsis:
        return parts[0]
    return parts[index] if len(parts) == count else Any
