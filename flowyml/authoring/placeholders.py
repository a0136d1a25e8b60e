"""Placeholders for values that are unknown while a pipeline's function is called, and conditions on them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, NoReturn, cast

from flowyml.core.errors import DefinitionError
from flowyml.plan.conditions import AllOf, AnyOf, Compare, Condition, IsTrue, Not
from flowyml.plan.parameters import is_json, own_copy
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source

__all__ = [
    "CallOutput", "EitherValue", "Expression", "ItemValue", "Placeholder", "ParameterValue", "all_of", "any_of",
    "condition_of", "is_in", "not_", "texts_of",
]  # fmt: skip


class Joinable:
    """Joined with others by ``&``, ``|`` and ``~``, it creates a condition."""

    __slots__ = ()

    def __and__(self, other: object) -> Expression:
        return Expression(AllOf((condition_of(self), condition_of(other))))

    def __or__(self, other: object) -> Expression:
        return Expression(AnyOf((condition_of(self), condition_of(other))))

    def __rand__(self, other: object) -> Expression:
        return Expression(AllOf((condition_of(other), condition_of(self))))

    def __ror__(self, other: object) -> Expression:
        return Expression(AnyOf((condition_of(other), condition_of(self))))

    def __invert__(self) -> Expression:
        return Expression(Not(condition_of(self)))


class Expression(Joinable):
    """A condition that is evaluated when the pipeline runs."""

    __slots__ = ("condition",)

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            f"{self} has no value while the pipeline is compiled. Branch by `with when({self}):`; join conditions "
            f"by &, | and ~, each in parentheses; write is_in(value, […]) for `in`."
        )

    def __str__(self) -> str:
        return str(self.condition)

    def __repr__(self) -> str:
        return f"<condition {self.condition}>"


class Placeholder(Joinable):
    """Stands for a value that is known only when the pipeline runs. Comparing it creates a condition."""

    __slots__ = ("source",)

    def __init__(self, source: Source) -> None:
        self.source = source

    def _refuse(self, *_: Any) -> Any:
        raise DefinitionError(
            f"{self!r} has no value while the pipeline is compiled. Compute inside a step; branch by when(…), and "
            f"loop by for_each(…) or the step's map(…)."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # a lookup of a protocol must find none
            raise AttributeError(name)
        self._refuse()

    # Operators and built-in functions that would need the value. Without a refusal, an f-string would contain the
    # `repr`, and a pipeline would fail silently.
    __bool__ = __iter__ = __len__ = __contains__ = __getitem__ = __str__ = __format__ = _refuse
    __int__ = __float__ = __index__ = __round__ = __abs__ = __neg__ = __pos__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rmatmul__ = _refuse
    __xor__ = __lshift__ = __rshift__ = __rxor__ = _refuse

    def _compared(self, operator: str, other: object) -> Expression:
        return Expression(comparison(operator, self, other))

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # as in SQLAlchemy and pandas
        return self._compared("==", other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]  # as above
        return self._compared("!=", other)

    def __lt__(self, other: object) -> Expression:
        return self._compared("<", other)

    def __le__(self, other: object) -> Expression:
        return self._compared("<=", other)

    def __gt__(self, other: object) -> Expression:
        return self._compared(">", other)

    def __ge__(self, other: object) -> Expression:
        return self._compared(">=", other)

    __hash__ = object.__hash__


class CallOutput(Placeholder):
    """The output of a step that was called in a pipeline's function."""

    source: FromStep

    def __iter__(self) -> NoReturn:
        raise DefinitionError(
            f"{self.source.step!r} returns one output, {self.source.output!r}; to unpack it, name its parts: "
            f"@step(outputs=['a', 'b']). To work on each of its items, use for_each(…) or the map(…) of a step."
        )

    def __repr__(self) -> str:
        return f"<output {self.source.output!r} of step {self.source.step!r}>"


class ParameterValue(Placeholder):
    """A parameter of the pipeline, for its function; a constant in a pipeline that another one calls."""

    source: FromParameter | Constant

    def __repr__(self) -> str:
        return f"<{'constant' if isinstance(self.source, Constant) else 'parameter'} {_name(self.source)!r}>"


class ItemValue(Placeholder):
    """The current item of a loop."""

    source: FromItem

    def __repr__(self) -> str:
        return f"<item of {self.source.loop!r}>"


class EitherValue(Placeholder):
    """The value of the branch that ran, among several."""

    source: FromEither

    def __repr__(self) -> str:
        return f"<either of {', '.join(output.output for output in self.source.outputs)}>"


def comparison(operator: str, left: object, right: object) -> Compare:
    """Compare two values, at least one of which is known only when the pipeline runs.

    Raises ``DefinitionError`` for a value that a plan cannot contain.
    """
    kinds = {texts_of(type(item)) for side in (left, right) for item in (side if type(side) is list else [side])}
    texts = next((kind for kind in ("date-time", "date") if kind in kinds), "")
    return Compare(operator, operand(left), operand(right), texts)


def operand(value: object) -> Source:
    """Return one side of a comparison. Raises ``DefinitionError`` for a value that a plan cannot contain."""
    if isinstance(value, Placeholder):
        return value.source
    known = [_dated(item) for item in value] if type(value) is list else _dated(value)
    if isinstance(value, Expression) or not is_json(known):
        raise DefinitionError(
            f"A condition compares outputs, parameters, dates and plain JSON, not {value!r:.80}. Compute it "
            f"in a step of its own."
        )
    return Constant(own_copy(known))


def _dated(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def texts_of(kind: object) -> str:
    """Return the way in which a comparison reads strings if one side has this type.

    >>> texts_of(date), texts_of(datetime), texts_of(int)
    ('date', 'date-time', '')
    """
    if not isinstance(kind, type) or not issubclass(kind, date):
        return ""
    return "date-time" if issubclass(kind, datetime) else "date"


def condition_of(value: object) -> Condition:
    """Convert a value to a condition. Raises ``DefinitionError`` for a value that is known already."""
    if isinstance(value, Expression):
        return value.condition
    if isinstance(value, Placeholder):
        return IsTrue(value.source)
    raise DefinitionError(
        f"A condition must use a step's output or a parameter. {value!r:.80} is known before the pipeline runs: use a "
        f"plain `if`."
    )


# To type checkers a condition is a bool, as `score > 0.9` is.


def all_of(*conditions: object) -> bool:
    """Return a condition that is true when all of these are: ``when(all_of(rows > 100, is_valid))``."""
    return cast(bool, _joined(AllOf, conditions))


def any_of(*conditions: object) -> bool:
    """Return a condition that is true when one of these conditions is."""
    return cast(bool, _joined(AnyOf, conditions))


def not_(condition: object) -> bool:
    """Return a condition that is true when this condition is not."""
    return cast(bool, Expression(Not(condition_of(condition))))


def is_in(value: object, among: object) -> bool:
    """Return a condition that is true when ``value`` is in ``among``, a list or a step's output."""
    among = list(among) if isinstance(among, tuple) else among
    return cast(bool, Expression(comparison("in", value, among)))


def _joined(kind: type[AllOf | AnyOf], conditions: Iterable[object]) -> Expression:
    if not (compiled := tuple(map(condition_of, conditions))):
        raise DefinitionError("Give at least one condition.")
    return Expression(kind(compiled))


def _name(source: FromParameter | Constant) -> object:
    return source.name if isinstance(source, FromParameter) else source.value
