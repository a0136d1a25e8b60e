"""Choose the format of a value by its type: the plainest format that restores the value exactly."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from flowyml.artifacts.optional import loaded_class, require
from flowyml.artifacts.pickling import (
    pickle_by_reference,
    pickle_by_value,
    prefers_references,
    read_pickle,
    why_no_pickles,
)
from flowyml.artifacts.plain import is_plain, with_floats, without_floats

__all__ = ["ENTRY_POINTS", "FORMATS", "Format", "format_named", "formats_for"]


def write_pandas(frame: Any, file: BinaryIO) -> None:
    """Write a ``pandas.DataFrame``. Needs pyarrow."""
    require("pyarrow")
    frame.to_parquet(file, engine="pyarrow")


def read_pandas(source: Path | BinaryIO) -> Any:
    require("pyarrow")
    return require("pandas").read_parquet(source, engine="pyarrow")


def is_faithful_pandas(frame: Any) -> bool:
    """Return False if types would change.

    Checks the rows, too: objects may be anything, and categories are in the rows.
    """
    dtypes = [*frame.dtypes, frame.index.dtype]
    if frame.attrs or any(str(dtype) in ("object", "category") for dtype in dtypes):
        return False
    empty, file = frame.iloc[:0], io.BytesIO()
    write_pandas(empty, file)
    back = read_pandas(file)
    return bool(
        back.dtypes.equals(frame.dtypes)
        and back.columns.identical(frame.columns)
        and back.index.identical(empty.index)
        and getattr(back.index, "freq", None) == getattr(frame.index, "freq", None)
        and back.flags == frame.flags
    )


def write_arrow(table: Any, file: BinaryIO) -> None:
    require("pyarrow.parquet").write_table(table, file)


def read_arrow(source: Path | BinaryIO) -> Any:
    return require("pyarrow.parquet").read_table(source)


def is_faithful_arrow(table: Any) -> bool:
    """Return False if types would change."""
    file = io.BytesIO()
    write_arrow(table.schema.empty_table(), file)
    return bool(read_arrow(file).schema.equals(table.schema))


def write_polars(frame: Any, file: BinaryIO) -> None:
    """Write a ``polars.DataFrame``. Polars itself refuses columns that Parquet cannot restore."""
    frame.write_parquet(file)


def read_polars(source: Path | BinaryIO) -> Any:
    return require("polars").read_parquet(source, memory_map=False)


logger = logging.getLogger("flowyml.artifacts")

ENTRY_POINTS = "flowyml.formats"
"""The entry point group in which a package declares its ``Format`` objects."""


class Format(NamedTuple):
    """A way to write values, and to read them back.

    ``write`` may fail for some values; the next format is then tried. A ``mapped`` file is read piece by piece, when
    the value is used. ``takes`` returns whether a plug-in's format is for a value. A ``named`` format reads a file
    under the name in the reference, which is also passed to its ``read``.
    """

    name: str
    suffix: str
    write: Callable[[Any, BinaryIO], None]
    read: Callable[..., Any]
    mapped: bool = False
    takes: Callable[[Any], bool] | None = None
    named: bool = False


def formats_for(value: Any) -> Iterator[Format]:
    """Yield the formats for a value, plainest first; pickles come last, unless they are forbidden."""
    if name := _plainest(value):
        yield FORMATS[name]
    elif plugged := next((form for form in _plug_ins().values() if form.takes and form.takes(value)), None):
        yield plugged
    if why_no_pickles():
        return
    pickles = [FORMATS["pickle"], _PICKLE_BY_VALUE]
    yield from pickles if prefers_references() else reversed(pickles)


def _plainest(value: Any) -> str | None:
    kind = type(value)
    if kind is bytes or kind is str:
        return "bytes" if kind is bytes else "text"
    if isinstance(value, Path):
        return "folder" if value.is_dir() else "file" if value.is_file() else None
    if is_plain(value):
        return "json"
    if is_plain(value, in_file=True):
        return "json-nan"
    if type(value) is loaded_class("numpy", "ndarray"):
        return None if value.dtype.hasobject else "npy"
    if table := _table(value):
        return table
    from flowyml.artifacts.libraries import format_of

    return format_of(value)


def format_named(name: str) -> Format:
    """Return a format of FlowyML's own or of a plug-in. Raises ``KeyError``."""
    return FORMATS[name] if name in FORMATS else _plug_ins()[name]


@cache
def _plug_ins() -> dict[str, Format]:
    """Return the plug-ins by the names of their entry points; those that cannot be loaded are left out and logged."""
    from importlib.metadata import entry_points

    loaded = {}
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        try:
            found = point.load()
            made = Format(*found)
            loaded[point.name] = made._replace(name=point.name, suffix=made.suffix.lower())  # as keys have it
        except Exception as error:  # whatever the module of a plug-in raises
            logger.warning("The format %r of artifacts cannot be loaded: %r", point.name, error)
    return {name: found for name, found in loaded.items() if name not in FORMATS}


def _table(value: Any) -> str | None:
    """Return the format of a table; None for other values, and for tables that Parquet would change."""
    try:
        if type(value) is loaded_class("pandas", "DataFrame"):
            return "parquet" if is_faithful_pandas(value) else None
        if type(value) is loaded_class("pyarrow", "Table"):
            return "parquet-arrow" if is_faithful_arrow(value) else None
    except Exception:  # no pyarrow, or a type that it does not know
        return None
    return "parquet-polars" if type(value) is loaded_class("polars", "DataFrame") else None


def _write_bytes(value: bytes, file: BinaryIO) -> None:
    file.write(value)


def _write_text(value: str, file: BinaryIO) -> None:
    file.write(value.encode("utf-8", "surrogatepass"))


def _read_text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogatepass")


def _write_json(value: Any, file: BinaryIO) -> None:
    file.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))  # as json.loads reads it


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _write_json_nan(value: Any, file: BinaryIO) -> None:
    _write_json(without_floats(value), file)


def _read_json_nan(path: Path) -> Any:
    return json.loads(path.read_bytes(), object_hook=with_floats)


def _write_npy(value: Any, file: BinaryIO) -> None:
    require("numpy.lib.format").write_array(file, value, allow_pickle=False)


def _read_npy(path: Path) -> Any:
    """Map the file copy-on-write: a step may change its array without changing the file."""
    numpy = require("numpy")
    try:
        return numpy.asarray(numpy.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:  # an array without a byte cannot be mapped
        return numpy.load(path, allow_pickle=False)


def _of_files(name: str) -> Callable[..., Any]:
    """Import a function on demand from a module that few values need."""

    def call(*arguments: Any) -> Any:
        from flowyml.artifacts import files

        return getattr(files, name)(*arguments)

    return call


def _of_libraries(name: str) -> Callable[..., Any]:
    """Import a function on demand from ``libraries``."""

    def call(*arguments: Any) -> Any:
        from flowyml.artifacts import libraries

        return getattr(libraries, name)(*arguments)

    return call


FORMATS = {
    item.name: item
    for item in (
        Format("bytes", ".bin", _write_bytes, Path.read_bytes),
        Format("text", ".txt", _write_text, _read_text),
        Format("json", ".json", _write_json, _read_json),
        Format("json-nan", ".json", _write_json_nan, _read_json_nan),
        Format("npy", ".npy", _write_npy, _read_npy, mapped=True),
        Format("parquet", ".parquet", write_pandas, read_pandas),
        Format("parquet-arrow", ".parquet", write_arrow, read_arrow),
        Format("parquet-polars", ".parquet", write_polars, read_polars),
        Format("file", ".file", _of_files("write_file"), _of_files("place_file"), named=True),
        Format("folder", ".tar", _of_files("write_folder"), _of_files("place_folder"), named=True),
        Format(
            "safetensors",
            ".safetensors",
            _of_libraries("write_safetensors"),
            _of_libraries("read_safetensors"),
        ),
        Format("torch", ".pt", _of_libraries("write_torch"), _of_libraries("read_torch")),
        Format("plotly", ".json", _of_libraries("write_plotly"), _of_libraries("read_plotly")),
        Format("pickle", ".pkl", pickle_by_reference, read_pickle),
    )
}
_PICKLE_BY_VALUE = Format("pickle", ".pkl", pickle_by_value, read_pickle)
