"""Copy values, so that no consumer sees another one's changes to a value, as on every engine."""

from __future__ import annotations

import copy
import mmap
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet, finalize

from flowyml.artifacts.optional import loaded_class
from flowyml.core.errors import NotPicklableError
from flowyml.core.home import private_folder
from flowyml.plan.parameters import own_copy

__all__ = ["MappedValue", "distinct", "own", "with_large_mapped"]

_LARGE = 10_000_000
"""The bytes of arrays in a value from which its copies are mapped."""

_MOST_OPEN = 100
"""The most files and mappings that are open at a time: steps need file descriptors too."""

_ALIGNMENT = 64
"""A multiple of the bytes that the instructions of processors and libraries of arrays expect an array to begin at."""

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)
_IMMUTABLE_TABLES = (("pyarrow", "Table"), ("pyarrow", "RecordBatch"))


def own(value: Any) -> Any:
    """Return a copy that shares nothing mutable with the value; the value itself if nothing in it is mutable.

    A value that cannot be copied, such as a lock or an open connection, is shared: on an engine it could not travel at
    all. Raises ``NotPicklableError`` for lists or dicts that are nested more deeply than Python copies them.
    """
    if _is_immutable(value):
        return value
    if _copies_on_write(value):
        return value.copy(deep=False)
    for copied in (copy.deepcopy, _pickled) if _is_block(value) else (_pickled, copy.deepcopy):
        with suppress(Exception):  # whatever the class of a value raises
            return copied(value)
    try:
        return own_copy(value)
    except RecursionError:
        raise NotPicklableError(f"{type(value).__qualname__} is nested too deeply to be copied or pickled") from None


def distinct(outputs: dict[str, Any]) -> dict[str, Any]:
    """Copy outputs that are the same object, so that all are separate objects, as on an engine."""
    seen: set[int] = set()
    for name, value in outputs.items():
        if id(value) in seen:
            outputs[name] = own(value)
        seen.add(id(value))
    return outputs


class MappedValue:
    """A value whose arrays are in a file. Its copies share them in memory, until one changes a page: that is its own.

    ``build`` makes a copy from mutable memory with the content of ``buffers``. Their file has no name, so it goes with
    the last copy. Raises ``OSError`` if the disk is full.
    """

    __slots__ = ("__weakref__", "_build", "_file", "_spans")

    def __init__(self, build: Callable[[list[memoryview]], Any], buffers: Iterable[memoryview], folder: Path) -> None:
        self._build = build
        self._spans: list[slice] = []
        self._file = tempfile.TemporaryFile(dir=private_folder(folder), buffering=0)  # noqa: SIM115  # as long as the value
        finalize(self, self._file.close)
        _open.add(self)
        for buffer in buffers:
            start = self._file.seek(-self._file.tell() % _ALIGNMENT, os.SEEK_CUR)
            self._spans.append(slice(start, start + buffer.nbytes))
            unwritten = buffer
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]

    def copy(self) -> Any:
        """Return a copy; while many are alive, one in memory of its own."""
        mapping = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        if len(_open) < _MOST_OPEN:
            _open.add(mapping)
            whole = memoryview(mapping)
        else:
            whole = memoryview(bytearray(mapping))
        return self._build([whole[span] for span in self._spans])


_open: WeakSet[Any] = WeakSet()
"""The values and copies of this process, each of which takes a file descriptor."""


def with_large_mapped(value: Any, folder: Path) -> Any:
    """Return a ``MappedValue`` of a value with large arrays, if these can be written to the folder; else the value."""
    if _is_immutable(value) or _copies_on_write(value) or len(_open) >= _MOST_OPEN:
        return value
    with suppress(Exception):  # whatever the class of a value raises
        build, buffers = _of_array(value) if _is_plain_array(value) else _pickled_apart(value)
        if sum(buffer.nbytes for buffer in buffers) >= _LARGE:
            made = MappedValue(build, buffers, folder)
            made.copy()  # which fails where the value can be pickled only
            return made
    return value


def _is_plain_array(value: Any) -> bool:
    """Return whether it is an array whose content is all in its buffer."""
    if type(value) is not loaded_class("numpy", "ndarray"):
        return False
    return value.dtype.kind in "biufcmMSUV" and not value.dtype.hasobject


def _of_array(array: Any) -> tuple[Callable[[list[memoryview]], Any], list[memoryview]]:
    """Return what builds a mutable array, also of a read-only one and of dates, which do not pickle so."""
    numpy, order = sys.modules["numpy"], "F" if array.flags.fnc else "C"
    dtype, shape = array.dtype, array.shape

    def build(buffers: list[memoryview]) -> Any:
        return numpy.frombuffer(buffers[0], dtype).reshape(shape, order=order)

    return build, [memoryview(array.ravel(order=order).view(numpy.uint8))]


def _pickled_apart(value: Any) -> tuple[Callable[[list[memoryview]], Any], list[memoryview]]:
    """Return what unpickles the value, and its buffers, which are not in the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)

    def build(views: list[memoryview]) -> Any:
        return pickle.loads(data, buffers=views)  # noqa: S301  # written by this process

    return build, [buffer.raw() for buffer in buffers]


def _pickled(value: Any) -> Any:
    """Copy by pickling, as values travel on an engine; for many small values, several times as fast as ``deepcopy``."""
    return pickle.loads(pickle.dumps(value, 5))  # noqa: S301  # written by this process


def _is_immutable(value: Any) -> bool:
    kind = type(value)
    return kind in _IMMUTABLE or any(kind is loaded_class(*name) for name in _IMMUTABLE_TABLES)


def _is_block(value: Any) -> bool:
    """Return whether ``deepcopy`` copies all of it as one block: pandas shares the objects in the cells of a table."""
    kind = type(value)
    if kind is loaded_class("pandas", "DataFrame"):
        objects = (column for column, dtype in enumerate(value.dtypes) if str(dtype) == "object")
        return all(_is_block(value.iloc[:, column]) for column in objects)
    if kind is loaded_class("pandas", "Series"):
        infer = sys.modules["pandas"].api.types.infer_dtype
        return value.dtype != object or not infer(value, skipna=True).startswith("mixed")
    return kind is loaded_class("numpy", "ndarray")


def _copies_on_write(value: Any) -> bool:
    """Return whether a shallow copy of a table or a column is enough: from pandas 3 on, a change to one of them copies
    first what they share. Source: "Copy-on-Write (CoW)" in pandas' user guide.
    """
    kind = type(value)
    if kind is not loaded_class("pandas", "DataFrame") and kind is not loaded_class("pandas", "Series"):
        return False
    return int(sys.modules["pandas"].__version__.partition(".")[0]) >= 3 and _is_block(value)
