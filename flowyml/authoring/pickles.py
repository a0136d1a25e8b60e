"""Pickles for a bundle: the same bytes in every process if possible, and a list of the modules that they need.

Python orders a set by the hashes of its elements, which differ from process to process, and calls a running script
``__main__``. A bundle must not depend on either: its digest shows whether anything has changed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from flowyml.artifacts.pickling import as_step, named
from flowyml.authoring.steps import Step
from flowyml.core.errors import DefinitionError
from flowyml.core.modules import found_by_name, shipped_name, travels

__all__ = ["pickled"]

_PROTOCOL = 4
_ATOMS = (bool, int, float, complex, str, bytes, type(None))


def pickled(value: object, what: str, modules: dict[str, None]) -> bytes:
    """Pickle by reference if possible, else by value; the modules needed to read it are added to ``modules``.

    Without a file for ``__main__``, as in a notebook, no worker could follow a reference. Raises ``DefinitionError``.
    """
    if shipped_name("__main__") is not None:
        with suppress(Exception):  # whatever a user's __reduce__ raises; by value it may do
            return _written(_Pickler, value, modules)
    try:
        return _written(_value_pickler(), value, modules)
    except Exception as error:
        raise DefinitionError(
            f"{what} cannot be sent to another process: {error}. Move it to module level, or create what it holds "
            f"(connections, locks, open files) inside the step."
        ) from error


def _written(kind: type[_Pickler], value: object, modules: dict[str, None]) -> bytes:
    file = io.BytesIO()
    pickler = kind(file)
    pickler.dump(value)
    modules.update(pickler.modules)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles by reference: refuses objects without an importable name."""

    by_name: Any = (type, FunctionType)
    """Objects of the user's to which a pickle refers by their name on a worker, from a script or a module."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, _PROTOCOL)
        self.modules: dict[str, None] = {}
        self._sets: dict[int, tuple[int, object]] = {}

    def reducer_override(self, item: Any) -> Any:
        """Reduce an object; pickle calls this for all but the plainest ones."""
        if isinstance(item, type | FunctionType | ModuleType):
            module = item.__name__ if isinstance(item, ModuleType) else item.__module__
            if isinstance(module, str):  # a function created by exec may have none
                self.modules[module] = None
        if isinstance(item, self.by_name) and travels(item.__module__) and found_by_name(item) is item:
            return named, (shipped_name(item.__module__), item.__qualname__)
        return (as_step, (item.function, item.name)) if isinstance(item, Step) else self.otherwise(item)

    def otherwise(self, item: Any) -> Any:
        """Pickle any other object."""
        return NotImplemented

    def persistent_id(self, item: Any) -> Any:
        """Return a stand-in for a set, which ``Unpickler.persistent_load`` restores once for all occurrences."""
        if type(item) not in (set, frozenset) or len(item) < 2:
            return None
        if id(item) in self._sets:
            return (self._sets[id(item)][0],)
        if (items := _ordered(item)) is None:
            return None
        number = len(self._sets)
        self._sets[id(item)] = number, item  # which stays alive, so that no other gets its id
        return number, type(item) is set, items


@cache
def _value_pickler() -> type[_Pickler]:
    import cloudpickle

    class ValuePickler(_Pickler, cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
        """Pickles by value what cannot be imported; a script's functions may be below the line that ends its import."""

        by_name = type
        otherwise = cloudpickle.Pickler.reducer_override

    return ValuePickler


def _ordered(items: Iterable[Any]) -> list[Any] | None:
    """Sort items in an order that is the same in every process; None if there is no such order."""
    try:
        return sorted(items, key=_key)
    except TypeError:
        return None


def _key(item: Any) -> str:
    kind = type(item)
    if kind in _ATOMS:
        return f"{kind.__name__} {item!r}"
    if kind is tuple:
        return f"tuple {[_key(part) for part in item]}"
    if kind is frozenset:
        return f"frozenset {sorted(_key(part) for part in item)}"
    if isinstance(item, Enum):
        return f"enum {kind.__qualname__}.{item.name}"
    if isinstance(item, type | FunctionType):
        return f"name {item.__qualname__}"
    raise TypeError
