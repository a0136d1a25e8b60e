"""Values that steps in threads got without a copy: their earlier state, for a retry of the run."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import pathlib
import threading
import uuid
from collections.abc import Iterable
from typing import Any

from flowyml.artifacts.optional import loaded_class
from flowyml.orchestrators.local.copies import own

__all__ = ["LentValues", "ChangedValueError", "bytes_of", "is_quickly_copied"]

_IMMUTABLE = (
    type(None), bool, int, float, complex, str, bytes, datetime.date, datetime.datetime, datetime.time,
    datetime.timedelta, decimal.Decimal, uuid.UUID, enum.Enum, pathlib.PurePath,
)  # fmt: skip
_MOST_PARTS = 10_000
_CHANGED = object()


class ChangedValueError(Exception):
    """The value may have been changed."""


class LentValues:
    """The values without a copy, and a copy of each that is small, or an array or table of up to ``max_bytes``."""

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self._copies: dict[int, Any] = {}
        self._lock = threading.Lock()

    def lend(self, value: Any) -> bool:
        """Note that a step gets this very value. Return False for an immutable value, which need not be noted."""
        if isinstance(value, _IMMUTABLE):
            return False
        copied = own(value) if is_quickly_copied(value, self._max_bytes) else _CHANGED
        with self._lock:
            self._copies[id(value)] = copied if copied is not value else _CHANGED
        return True

    def take_back(self, values: Iterable[Any]) -> None:
        """Forget these values: the step that had them has succeeded, so nothing will need them again."""
        with self._lock:
            for value in values:
                self._copies.pop(id(value), None)

    def as_returned(self, value: Any) -> Any:
        """Return a value, which may be a list of noted ones, in its earlier state.

        Raises ``ChangedValueError`` if that is unknown.
        """
        if id(value) in self._copies:
            copied = self._copies[id(value)]
            if copied is _CHANGED:
                raise ChangedValueError
            return copied
        if self._copies and type(value) in (list, tuple) and any(id(part) in self._copies for part in value):
            return type(value)(self.as_returned(part) for part in value)
        return value


def is_quickly_copied(value: Any, max_bytes: float) -> bool:
    """Return whether a value is an array or a table of at most ``max_bytes``, or has few plain parts."""
    return bytes_of(value) <= max_bytes or _is_light(value)


def bytes_of(value: Any) -> float:
    """Return the bytes of an array or a table; infinite for anything else."""
    kind = type(value)
    if kind is loaded_class("numpy", "ndarray"):
        return float("inf") if value.dtype.hasobject else float(value.nbytes)
    if kind is loaded_class("pandas", "DataFrame"):
        return float(value.memory_usage().sum())
    return float(value.nbytes) if kind is loaded_class("pandas", "Series") else float("inf")


def _is_light(value: Any) -> bool:
    """Return whether it has few parts, all of them plain collections, data classes or immutable."""
    parts, remaining = [value], _MOST_PARTS
    while parts:
        part = parts.pop()
        remaining -= 1
        if isinstance(part, _IMMUTABLE):
            continue
        if type(part) in (list, tuple, set, frozenset):
            remaining -= len(part)
            inner: Iterable[Any] = part
        elif type(part) is dict:
            remaining -= 2 * len(part)
            inner = (*part, *part.values()) if remaining >= 0 else ()
        elif dataclasses.is_dataclass(part) and not isinstance(part, type):
            inner = [getattr(part, field.name, None) for field in dataclasses.fields(part)]
        else:
            return False
        if remaining < 0:
            return False
        parts.extend(inner)
    return True
