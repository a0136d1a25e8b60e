"""Values that steps receive by the name of their parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowyml.authoring.places import names_its_place
from flowyml.core.errors import DefinitionError
from flowyml.plan.parameters import is_json, is_too_deep, own_copy, too_deep
from flowyml.plan.types import plain

__all__ = ["Context", "context"]


class Context(Mapping[str, Any]):
    """Named values that each run may override. Immutable; ``|`` returns a new one.

    The values are plain JSON, dates, paths, enumerations and pydantic models.

    >>> ctx = Context(rows=100) | Context(rate=0.1)
    >>> ctx.rows, ctx["rate"]
    (100, 0.1)
    """

    __slots__ = ("_values",)

    @names_its_place
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
                    f"Context value {name!r} is a {type(value).__name__}; a context holds plain JSON, dates, paths, "
                    f"enumerations and models, so that every engine can carry it. Make it the output of a step, or "
                    f"build it inside one."
                )
        object.__setattr__(self, "_values", own_copy(merged))

    def __getitem__(self, name: str) -> Any:
        return own_copy(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"This context has no {name!r}; it has {', '.join(self) or 'nothing'}.") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A context never changes. Use `ctx | Context({name}=…)`.")

    def __or__(self, other: Mapping[str, Any]) -> Context:
        return Context(self._values, **other)

    def __reduce__(self) -> tuple[type[Context], tuple[dict[str, Any]]]:
        return Context, (dict(self._values),)

    def __repr__(self) -> str:
        return f"Context({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"


def context(**values: Any) -> Context:
    """Return the same as ``Context(**values)``."""
    return Context(values)
