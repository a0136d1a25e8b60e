"""Formats of other libraries that run no code when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from flowyml.artifacts.optional import require

__all__ = ["read_plotly", "read_safetensors", "read_torch", "write_plotly", "write_safetensors", "write_torch"]

_TENSORS = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
"""The types of numbers that safetensors gives back as they were."""


def write_safetensors(value: dict[str, Any], file: BinaryIO) -> None:
    """Arrays by name, one by one, without the copy of them all that the library would make; the largest numbers first,
    so that all are aligned. Source: safetensors, *Format*. Raises ``ValueError`` for those that it would change.
    """
    numpy = require("numpy")
    if not all(each.dtype.name in _TENSORS and each.dtype.byteorder != ">" and each.ndim for each in value.values()):
        raise ValueError("safetensors holds arrays of little-endian numbers alone")
    header: dict[str, Any] = {"__metadata__": {"order": json.dumps(list(value))}}
    names, at = sorted(value, key=lambda name: -value[name].itemsize), 0
    for name in names:
        array, end = value[name], at + value[name].nbytes
        header[name] = {"dtype": _TENSORS[array.dtype.name], "shape": array.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(numpy.ascontiguousarray(value[name]).reshape(-1).view("uint8"))


def read_safetensors(path: Path) -> dict[str, Any]:
    """In the order in which they were written."""
    with require("safetensors").safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in json.loads(file.metadata()["order"])}


def write_torch(value: Any, file: BinaryIO) -> None:
    """A tensor, or tensors by name."""
    require("torch").save(value, file)


def read_torch(path: Path) -> Any:
    """Tensors alone, on the processor: anything else that a file of torch's may hold is not read."""
    return require("torch").load(path, weights_only=True, map_location="cpu")


def write_plotly(value: Any, file: BinaryIO) -> None:
    """A figure of plotly's, as its own JSON."""
    file.write(value.to_json().encode())


def read_plotly(path: Path) -> Any:
    """A figure."""
    return require("plotly.io").from_json(path.read_text("utf-8"))
