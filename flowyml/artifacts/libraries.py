"""Formats of other libraries that run no code when they are read."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

from flowyml.artifacts.optional import loaded_class, require

__all__ = [
    "format_of", "read_plotly", "read_safetensors", "read_torch", "write_plotly", "write_safetensors", "write_torch",
]  # fmt: skip

_TENSORS = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
"""The number types that safetensors restores exactly."""
_PLAIN = frozenset({str, int, float, bool, NoneType})


def format_of(value: Any) -> str | None:
    """Return the name of the format for a value; None if there is none."""
    if type(value) is loaded_class("plotly.graph_objs", "Figure"):
        return "plotly"
    tensor = loaded_class("torch", "Tensor")
    if tensor and _are_tensors(value, {tensor, loaded_class("torch.nn", "Parameter")}):
        return "torch"
    if type(value) is dict and value and "__metadata__" not in value and find_spec("safetensors"):
        array = loaded_class("numpy", "ndarray")
        return "safetensors" if all(type(name) is str and type(value[name]) is array for name in value) else None
    return None


def _are_tensors(value: Any, tensors: set[type | None]) -> bool:
    """Return whether a value is a tensor, or contains only tensors and plain values, as a checkpoint does.

    A tensor with attributes of its own does not count: torch would write them, and may not read them again.
    """
    kinds = set()
    for leaf in _leaves(value):
        kind = type(leaf)
        if kind not in _PLAIN and (kind not in tensors or vars(leaf)):
            return False
        kinds.add(kind)
    return not kinds.isdisjoint(tensors)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the leaves of dicts, lists and tuples; each container is visited once."""
    within, seen = [value], set()
    while within:
        node = within.pop()
        if type(node) not in (dict, OrderedDict, list, tuple):
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, dict):
                within += node
                within += node.values()
                within += vars(node).values() if type(node) is OrderedDict else ()  # a state_dict's versions
            else:
                within += node


def write_safetensors(value: dict[str, Any], file: BinaryIO) -> None:
    """Write arrays by name, one by one, without a copy of all, which the library would make.

    The largest number types come first, so that all are aligned. Source: safetensors, *Format*. Raises ``ValueError``
    for arrays that would change.
    """
    numpy = require("numpy")
    if not all(part.dtype.name in _TENSORS and part.dtype.byteorder != ">" and part.ndim for part in value.values()):
        raise ValueError("safetensors stores only arrays of little-endian numbers")
    header: dict[str, Any] = {"__metadata__": {"order": json.dumps(list(value))}}
    names, offset = sorted(value, key=lambda name: -value[name].itemsize), 0
    for name in names:
        array, end = value[name], offset + value[name].nbytes
        header[name] = {"dtype": _TENSORS[array.dtype.name], "shape": array.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(numpy.ascontiguousarray(value[name]).reshape(-1).view("uint8"))


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read arrays in the order in which they were written."""
    with require("safetensors").safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in json.loads(file.metadata()["order"])}


def write_torch(value: Any, file: BinaryIO) -> None:
    """Write a tensor, or tensors and plain values in dicts and lists."""
    require("torch").save(value, file)


def read_torch(path: Path) -> Any:
    """Read what ``write_torch`` wrote, onto the CPU; anything else in a torch file is refused."""
    torch = require("torch")
    with warnings.catch_warnings():  # it warns of checks of sparse tensors' indices, which are wanted
        warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)
        return torch.load(path, weights_only=True, map_location="cpu")


def write_plotly(value: Any, file: BinaryIO) -> None:
    """Write a figure of plotly's as plotly's JSON."""
    file.write(value.to_json().encode())


def read_plotly(path: Path) -> Any:
    return require("plotly.io").from_json(path.read_text("utf-8"))
