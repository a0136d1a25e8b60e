"""Copy values, so that no consumer sees another one's changes to a value, as on every engine."""

from __future__ import annotations

import copy
import io
import sys
from contextlib import suppress
from typing import Any

from flowyml.artifacts.optional import loaded_class
from flowyml.artifacts.pickling import Unpickler, pickle_by_reference
from flowyml.core.errors import NotPicklableError
from flowyml.plan.parameters import own_copy

__all__ = ["copies_on_write", "distinct", "own"]

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)
_IMMUTABLE_TABLES = (("pyarrow", "Table"), ("pyarrow", "RecordBatch"))


def own(value: Any) -> Any:
    """Return a copy that shares nothing mutable with the value; the value itself if nothing in it is mutable.

    A value that cannot be copied, such as a lock or an open connection, is shared: on an engine it could not travel at
    all. Raises ``NotPicklableError`` for lists or dicts that are nested more deeply than Python copies them.
    """
    kind = type(value)
    if kind in _IMMUTABLE or any(kind is loaded_class(*name) for name in _IMMUTABLE_TABLES):
        return value
    if copies_on_write(value):
        return value.copy(deep=False)
    for copied in (copy.deepcopy, _pickled) if _is_block(value) else (_pickled, copy.deepcopy):
        with suppress(Exception):  # whatever the class of a value raises
            return copied(value)
    try:
        return own_copy(value)
    except RecursionError:
        raise NotPicklableError(f"{kind.__qualname__} is nested too deeply to be copied or pickled") from None


def distinct(outputs: dict[str, Any]) -> dict[str, Any]:
    """Copy outputs that are the same object, so that all are separate objects, as on an engine."""
    seen: set[int] = set()
    for name, value in outputs.items():
        if id(value) in seen:
            outputs[name] = own(value)
        seen.add(id(value))
    return outputs


def _pickled(value: Any) -> Any:
    """Copy by pickling, as values travel on an engine; for many small values, several times as fast as ``deepcopy``."""
    file = io.BytesIO()
    pickle_by_reference(value, file)
    file.seek(0)
    return Unpickler(file).load()


def _is_block(value: Any) -> bool:
    """Return whether ``deepcopy`` copies all of it as one block: pandas shares the objects in the cells of a table."""
    kind = type(value)
    if kind is loaded_class("pandas", "DataFrame"):
        objects = (at for at, dtype in enumerate(value.dtypes) if str(dtype) == "object")
        return all(_is_block(value.iloc[:, at]) for at in objects)
    if kind is loaded_class("pandas", "Series"):
        infer = sys.modules["pandas"].api.types.infer_dtype
        return value.dtype != object or not infer(value, skipna=True).startswith("mixed")
    return kind is loaded_class("numpy", "ndarray")


def copies_on_write(value: Any) -> bool:
    """Return whether a shallow copy of a table or a column is enough: from pandas 3 on, a change to one of them copies
    first what they share. Source: "Copy-on-Write (CoW)" in pandas' user guide.
    """
    kind = type(value)
    if kind is not loaded_class("pandas", "DataFrame") and kind is not loaded_class("pandas", "Series"):
        return False
    return int(sys.modules["pandas"].__version__.partition(".")[0]) >= 3 and _is_block(value)
