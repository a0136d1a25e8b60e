"""How a value is written, chosen by its type: the plainest format that gives it back exactly."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from flowyml.artifacts.allowed import why_no_pickles
from flowyml.artifacts.optional import require
from flowyml.artifacts.pickling import pickle_by_reference, pickle_by_value, prefers_references, read_pickle
from flowyml.artifacts.plain import is_plain
from flowyml.artifacts.tables import (
    is_faithful_arrow,
    is_faithful_pandas,
    read_arrow,
    read_pandas,
    read_polars,
    write_arrow,
    write_pandas,
    write_polars,
)

__all__ = ["FORMATS", "Format", "formats_for"]


class Format(NamedTuple):
    """A way to write values, and to read them back.

    ``write`` may fail for some values; the next format is tried then. ``mapped`` files are read piece by piece, when
    the value is used.
    """

    name: str
    suffix: str
    write: Callable[[Any, BinaryIO], None]
    read: Callable[[Path], Any]
    mapped: bool = False


def formats_for(value: Any) -> Iterator[Format]:
    """The formats that may hold a value, the plainest first; pickles come last, and not where they are forbidden."""
    if name := _plainest(value):
        yield FORMATS[name]
    if why_no_pickles():
        return
    pickles = [FORMATS["pickle"], _PICKLE_BY_VALUE]
    yield from pickles if prefers_references() else reversed(pickles)


def _plainest(value: Any) -> str | None:
    kind = type(value)
    if kind is bytes or kind is str:
        return "bytes" if kind is bytes else "text"
    if is_plain(value):
        return "json"
    if _is(value, "numpy", "ndarray"):
        return None if value.dtype.hasobject else "npy"
    return _table(value)


def _table(value: Any) -> str | None:
    """The format of a table; None for other values, and where parquet would give back something else."""
    try:
        if _is(value, "pandas", "DataFrame"):
            return "parquet" if is_faithful_pandas(value) else None
        if _is(value, "pyarrow", "Table"):
            return "parquet-arrow" if is_faithful_arrow(value) else None
    except Exception:  # no pyarrow, or a type that it does not know
        return None
    return "parquet-polars" if _is(value, "polars", "DataFrame") else None


def _is(value: Any, module: str, name: str) -> bool:
    """Compare a type without importing its module: while that is not loaded, the value is not of its types."""
    return type(value) is getattr(sys.modules.get(module), name, None)


def _write_bytes(value: bytes, file: BinaryIO) -> None:
    file.write(value)


def _write_text(value: str, file: BinaryIO) -> None:
    file.write(value.encode("utf-8", "surrogatepass"))


def _read_text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogatepass")


def _write_json(value: Any, file: BinaryIO) -> None:
    file.write(json.dumps(value, ensure_ascii=False).encode())


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _write_npy(value: Any, file: BinaryIO) -> None:
    require("numpy.lib.format").write_array(file, value, allow_pickle=False)


def _read_npy(path: Path) -> Any:
    """Mapped copy-on-write: a step may change its array, and the file stays as it is."""
    numpy = require("numpy")
    try:
        return numpy.asarray(numpy.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:  # an array without a byte cannot be mapped
        return numpy.load(path, allow_pickle=False)


FORMATS = {
    item.name: item
    for item in (
        Format("bytes", ".bin", _write_bytes, Path.read_bytes),
        Format("text", ".txt", _write_text, _read_text),
        Format("json", ".json", _write_json, _read_json),
        Format("npy", ".npy", _write_npy, _read_npy, mapped=True),
        Format("parquet", ".parquet", write_pandas, read_pandas),
        Format("parquet-arrow", ".parquet", write_arrow, read_arrow),
        Format("parquet-polars", ".parquet", write_polars, read_polars),
        Format("pickle", ".pkl", pickle_by_reference, read_pickle),
    )
}
_PICKLE_BY_VALUE = Format("pickle", ".pkl", pickle_by_value, read_pickle)
