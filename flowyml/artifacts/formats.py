"""How a value is written, chosen by its type: the plainest format that gives it back exactly."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from flowyml.artifacts.pickling import read_pickle, write_pickle
from flowyml.core.errors import ArtifactError

__all__ = ["FORMATS", "Format", "format_for"]


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write values. ``mapped`` files are read piece by piece, when the value is used."""

    name: str
    suffix: str
    write: Callable[[Any, BinaryIO], None]
    read: Callable[[Path], Any]
    mapped: bool = False


def format_for(value: Any) -> Format:
    """The format in which a value is stored."""
    from flowyml.artifacts.packing import is_plain

    if type(value) is bytes:
        return FORMATS["bytes"]
    if type(value) is str:
        return FORMATS["text"]
    if is_plain(value):
        return FORMATS["json"]
    return FORMATS[_tabular(value) or "pickle"]


def _tabular(value: Any) -> str | None:
    if _is(value, "numpy", "ndarray") and not value.dtype.hasobject:
        return "npy"
    return None


def _is(value: Any, module: str, name: str) -> bool:
    """Compare a type without importing its module: if the module is not loaded, the value is not of that type."""
    return type(value) is getattr(sys.modules.get(module), name, object())


def _need(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ArtifactError(f"This artifact needs {module} to be read: pip install {module}") from error


def _write_npy(value: Any, file: BinaryIO) -> None:
    from numpy.lib.format import write_array

    write_array(file, value, allow_pickle=False)


def _read_npy(path: Path) -> Any:
    """Mapped copy-on-write: a step may change the array, and the file stays as it is."""
    numpy = _need("numpy")
    try:
        return numpy.asarray(numpy.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped
        return numpy.load(path, allow_pickle=False)


FORMATS = {
    item.name: item
    for item in (
        Format("json", ".json", lambda value, file: _put(file, json.dumps(value).encode()), lambda path: json.loads(path.read_bytes())),
        Format("text", ".txt", lambda value, file: _put(file, value.encode("utf-8", "surrogatepass")),
               lambda path: path.read_bytes().decode("utf-8", "surrogatepass")),
        Format("bytes", ".bin", lambda value, file: _put(file, value), Path.read_bytes),
        Format("npy", ".npy", _write_npy, _read_npy, mapped=True),
        Format("pickle", ".pkl", write_pickle, read_pickle),
    )
}  # fmt: skip


def _put(file: BinaryIO, data: bytes) -> None:
    file.write(data)
