"""Conditions of branches: small trees of plain data, evaluated by the same code on every engine.

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
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, ClassVar

from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source

__all__ = [
    "AllOf",
    "AnyOf",
    "Compare",
    "Condition",
    "IsTrue",
    "Not",
    "holds",
    "leaves_of",
    "of_text",
    "format_source",
    "sources_in",
    "with_leaves",
    "with_sources",
]

_SHOWN = 60
"""The number of characters of a constant in the text of a condition."""

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, among: value in among,
}

_OF_TEXT: Mapping[str, Callable[[str], date]] = {"date": date.fromisoformat, "date-time": datetime.fromisoformat}


@dataclass(frozen=True, slots=True)
class Compare:
    """True if ``left operator right`` is; the operator is a key of ``OPERATORS``.

    ``texts`` is the type of strings on either side: "date" or "date-time", which JSON lacks, or "".
    """

    KIND: ClassVar[str] = "compare"

    operator: str
    left: Source
    right: Source
    texts: str = ""

    def __str__(self) -> str:
        return f"{format_source(self.left)} {self.operator} {format_source(self.right)}"


@dataclass(frozen=True, slots=True)
class IsTrue:
    """True if the value is true in Python: not False, None, 0, or empty."""

    KIND: ClassVar[str] = "is_true"

    value: Source

    def __str__(self) -> str:
        return format_source(self.value)


@dataclass(frozen=True, slots=True)
class Not:
    """True if the condition is false."""

    KIND: ClassVar[str] = "not"

    condition: Condition

    def __str__(self) -> str:
        return f"not {self.condition}" if isinstance(self.condition, IsTrue) else f"not ({self.condition})"


@dataclass(frozen=True, slots=True)
class AllOf:
    """True if all conditions are; stops at the first that is false."""

    KIND: ClassVar[str] = "all_of"

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.conditions)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True if any condition is; stops at the first that is true."""

    KIND: ClassVar[str] = "any_of"

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.conditions))


Condition = Compare | IsTrue | Not | AllOf | AnyOf


def holds(condition: Condition, value_of: Callable[[Source], Any]) -> bool:
    """Return whether a condition is true for the values that ``value_of`` returns.

    Raises what comparing them raises.
    """
    match condition:
        case Compare(name, left, right, texts):
            return bool(OPERATORS[name](of_text(texts, value_of(left)), of_text(texts, value_of(right))))
        case IsTrue(value):
            return bool(value_of(value))
        case Not(inner):
            return not holds(inner, value_of)
        case AllOf(conditions):
            return all(holds(part, value_of) for part in conditions)
        case AnyOf(conditions):
            return any(holds(part, value_of) for part in conditions)


def of_text(texts: str, value: Any) -> Any:
    """Convert a value for comparison. Raises ``ValueError`` for a string that is not of the type ``texts``.

    >>> of_text("date", ["2026-01-31", None])
    [datetime.date(2026, 1, 31), None]
    """
    if isinstance(value, list) and texts:
        return [of_text(texts, item) for item in value]
    return _OF_TEXT[texts](value) if isinstance(value, str) and texts else value


def leaves_of(condition: Condition) -> Iterator[Compare | IsTrue]:
    """Yield the comparisons and truth tests in a condition, as written."""
    match condition:
        case Not(inner):
            yield from leaves_of(inner)
        case AllOf(conditions) | AnyOf(conditions):
            for part in conditions:
                yield from leaves_of(part)
        case leaf:
            yield leaf


def with_leaves(condition: Condition, new: Callable[[Compare | IsTrue], Compare | IsTrue]) -> Condition:
    """Return the same condition with other leaves."""
    match condition:
        case Not(inner):
            return Not(with_leaves(inner, new))
        case AllOf(conditions) | AnyOf(conditions):
            return type(condition)(tuple(with_leaves(part, new) for part in conditions))
        case leaf:
            return new(leaf)


def sources_in(condition: Condition | None) -> Iterator[Source]:
    """Yield the sources that a condition depends on; empty without a condition."""
    for leaf in leaves_of(condition) if condition else ():
        yield from (leaf.left, leaf.right) if isinstance(leaf, Compare) else (leaf.value,)


def with_sources(condition: Condition, new: Callable[[Source], Source]) -> Condition:
    """Return the same condition with other sources."""

    def changed(leaf: Compare | IsTrue) -> Compare | IsTrue:
        if isinstance(leaf, IsTrue):
            return IsTrue(new(leaf.value))
        return replace(leaf, left=new(leaf.left), right=new(leaf.right))

    return with_leaves(condition, changed)


def format_source(source: Source) -> str:
    """Return a value in the text of a condition."""
    match source:
        case FromStep(_, output):
            return output
        case FromEither(outputs):
            return f"either({', '.join(map(format_source, outputs))})"
        case FromParameter(name) | FromItem(_, name):
            return name
        case Constant(value):
            text = repr(value)  # a list may have thousands of items, and this names a branch
            return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
