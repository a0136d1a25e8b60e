"""Conditions of branches: small trees of plain data, which one evaluator decides on every engine.

>>> score = FromStep("train", "score")
>>> good = AllOf((Compare(">", score, Constant(0.9)), Not(Compare("in", score, Constant([1.0])))))
>>> holds(good, lambda source: source.value if isinstance(source, Constant) else 0.95)
True
>>> print(good)
score > 0.9 and not (score in [1.0])
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source

__all__ = ["AllOf", "AnyOf", "Compare", "Condition", "IsTrue", "Not", "holds", "shown", "sources_in", "with_sources"]

_SHOWN = 60
"""How many characters of a constant a condition shows."""

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, among: value in among,
}


@dataclass(frozen=True, slots=True)
class Compare:
    """True where ``left operator right`` is; the operator is a key of ``OPERATORS``."""

    KIND: ClassVar[str] = "compare"

    operator: str
    left: Source
    right: Source

    def __str__(self) -> str:
        return f"{shown(self.left)} {self.operator} {shown(self.right)}"


@dataclass(frozen=True, slots=True)
class IsTrue:
    """True where Python takes the value for true: not for False, None, 0, and what is empty."""

    KIND: ClassVar[str] = "is_true"

    value: Source

    def __str__(self) -> str:
        return shown(self.value)


@dataclass(frozen=True, slots=True)
class Not:
    """True where the condition is false."""

    KIND: ClassVar[str] = "not"

    condition: Condition

    def __str__(self) -> str:
        return f"not {self.condition}" if isinstance(self.condition, IsTrue) else f"not ({self.condition})"


@dataclass(frozen=True, slots=True)
class AllOf:
    """True where all conditions are; the first that is false ends it."""

    KIND: ClassVar[str] = "all_of"

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(f"({each})" if isinstance(each, AnyOf) else str(each) for each in self.conditions)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True where a condition is; the first that is true ends it."""

    KIND: ClassVar[str] = "any_of"

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.conditions))


Condition = Compare | IsTrue | Not | AllOf | AnyOf


def holds(condition: Condition, value_of: Callable[[Source], Any]) -> bool:
    """Whether a condition is true of the values that ``value_of`` gives. Raises what comparing them raises."""
    match condition:
        case Compare(name, left, right):
            return bool(OPERATORS[name](value_of(left), value_of(right)))
        case IsTrue(value):
            return bool(value_of(value))
        case Not(inner):
            return not holds(inner, value_of)
        case AllOf(conditions):
            return all(holds(each, value_of) for each in conditions)
        case AnyOf(conditions):
            return any(holds(each, value_of) for each in conditions)


def sources_in(condition: Condition | None) -> Iterator[Source]:
    """The values that a condition is about; none for no condition."""
    match condition:
        case Compare(_, left, right):
            yield left
            yield right
        case IsTrue(value):
            yield value
        case Not(inner):
            yield from sources_in(inner)
        case AllOf(conditions) | AnyOf(conditions):
            for each in conditions:
                yield from sources_in(each)


def with_sources(condition: Condition, new: Callable[[Source], Source]) -> Condition:
    """The same condition about other values."""
    match condition:
        case Compare(name, left, right):
            return Compare(name, new(left), new(right))
        case IsTrue(value):
            return IsTrue(new(value))
        case Not(inner):
            return Not(with_sources(inner, new))
        case AllOf(conditions) | AnyOf(conditions):
            return type(condition)(tuple(with_sources(each, new) for each in conditions))


def shown(source: Source) -> str:
    """A value as conditions show it."""
    match source:
        case FromStep(_, output):
            return output
        case FromEither(outputs):
            return f"either({', '.join(map(shown, outputs))})"
        case FromParameter(name) | FromItem(_, name):
            return name
        case Constant(value):
            text = repr(value)  # a list may have thousands of items, and this names a branch
            return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
