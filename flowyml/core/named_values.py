"""Named values that never change: what a context is, where a pipeline is built and on a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Self

__all__ = ["NamedValues"]


class NamedValues(Mapping[str, Any]):
    """Values by name and as attributes. Reading one gives a copy; ``|`` returns a new object."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] = {}, /, **named: Any) -> None:
        object.__setattr__(self, "_values", deepcopy({**values, **named}))

    def __getitem__(self, name: str) -> Any:
        return deepcopy(self._values[name])

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

    def __or__(self, other: Mapping[str, Any]) -> Self:
        return type(self)(self._values, **other)

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        return type(self), (dict(self._values),)

    def __repr__(self) -> str:
        return f"Context({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"
