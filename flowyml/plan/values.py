"""The sources of values in a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["Constant", "FromEither", "FromItem", "FromParameter", "FromStep", "Source", "steps_of"]


@dataclass(frozen=True, slots=True)
class FromStep:
    """The value is an output of another step; outside its loop, the list of all items' outputs."""

    KIND: ClassVar[str] = "step"

    step: str
    output: str


@dataclass(frozen=True, slots=True)
class FromParameter:
    """The value is a parameter of the run."""

    KIND: ClassVar[str] = "parameter"

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """The value is fixed in the pipeline: plain JSON."""

    KIND: ClassVar[str] = "constant"

    value: Any


@dataclass(frozen=True, slots=True)
class FromItem:
    """The value is the current item of a loop, from its list ``name``."""

    KIND: ClassVar[str] = "item"

    loop: str
    name: str


@dataclass(frozen=True, slots=True)
class FromEither:
    """The value is the first of these outputs whose step ran: the steps are in branches, one of which is taken."""

    KIND: ClassVar[str] = "either"

    outputs: tuple[FromStep, ...]


Source = FromStep | FromParameter | Constant | FromItem | FromEither


def steps_of(source: Source) -> Iterator[str]:
    """Yield the steps of a source's outputs."""
    if isinstance(source, FromStep):
        yield source.step
    elif isinstance(source, FromEither):
        yield from (output.step for output in source.outputs)
