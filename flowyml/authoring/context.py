"""Values that steps receive by the name of their parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowyml.authoring.source_lines import adds_source_line
from flowyml.core.errors import DefinitionError
from flowyml.core.named_values import NamedValues
from flowyml.plan.parameters import is_json, is_too_deep, too_deep
from flowyml.plan.types import CONSTANTS, plain

__all__ = ["Context", "context"]


class Context(NamedValues):
    """Named values that each run may override. Immutable; ``|`` returns a new one.

    The values are plain JSON, dates, paths, enumerations and pydantic models.

    >>> ctx = Context(rows=100) | Context(rate=0.1)
    >>> ctx.rows, ctx["rate"]
    (100, 0.1)
    """

    __slots__ = ()

    @adds_source_line
    def __init__(self, values: Mapping[str, Any] = {}, /, **named: Any) -> None:
        if not isinstance(values, Mapping):
            raise DefinitionError(
                f"context={values!r:.80} is not a mapping. Write Context(rows=100), or {{'rows': 100}}."
            )
        merged = {**values, **named}
        for name, value in merged.items():
            if not str(name).isidentifier():
                raise DefinitionError(f"Context value {name!r}: the name must be that of a parameter of a step.")
            if is_too_deep(value):
                raise DefinitionError(too_deep(f"Context value {name!r}"))
            if not is_json(plain(value)):
                raise DefinitionError(
                    f"Context value {name!r} is a {type(value).__name__}; a context holds {CONSTANTS}, so that "
                    f"every engine can carry it. Make it the output of a step, or build it inside one."
                )
        super().__init__(merged)


def context(**values: Any) -> Context:
    """Return the same as ``Context(**values)``."""
    return Context(values)
