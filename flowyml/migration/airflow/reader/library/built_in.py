"""The builtins, by name."""

from __future__ import annotations

import ast
import builtins
from typing import Any

from flowyml.migration.airflow.reader.library import inspecting, items, objects
from flowyml.migration.airflow.reader.library.natives import known, nothing, plain
from flowyml.migration.airflow.reader.library.paths import open_file
from flowyml.migration.airflow.reader.operations import TooLarge
from flowyml.migration.airflow.reader.values import Arguments, Foreign, Instance, Native, hard

__all__ = ["BUILTINS"]


def _text(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if len(arguments.positional) + len(arguments.named) > 1:
        return plain(str).call(machine, arguments, node)
    value = arguments.value("object", 0, "")
    return machine.text_of(node, value, "s" if isinstance(hard(value), Instance) else "")


def _kind(kind: type) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        return machine.call(plain(kind), arguments, node)

    return Native(kind.__name__, call)


def _bytes(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("source", 0, b""))
    if isinstance(value, str):
        return plain(str.encode).call(machine, arguments, node)
    return value if isinstance(value, bytes) else machine.unknown(node)


def _int(value: Any = 0, base: int | None = None) -> int:
    if isinstance(value, str) and len(value) > 1000:
        raise TooLarge
    return int(value) if base is None else int(value, base)


def _rounded(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 50:
        raise TooLarge
    return round(value, digits)


def _range(*args: int) -> range:
    return range(*args)


BUILTINS: dict[str, Any] = {
    **items.NAMES,
    **objects.NAMES,
    "dir": inspecting.NAMES["builtins.dir"],
    "format": Native(
        "format",
        lambda machine, arguments, node: machine.text_of(
            node, arguments.value("value", 0), "", arguments.value("format_spec", 1, "")
        ),
    ),
    "str": Native("str", _text),
    "repr": Native("repr", lambda machine, arguments, node: machine.text_of(node, arguments.value("object", 0), "r")),
    "int": Native("int", lambda machine, arguments, node: plain(_int).call(machine, arguments, node)),
    "float": _kind(float),
    "bool": Native(
        "bool",
        lambda machine, arguments, node: (
            machine.unknown(node)
            if (found := machine.truth(arguments.value("object", 0, False))) is None
            else machine.soft(found, arguments.value("object", 0, False))
        ),
    ),
    "bytes": Native("bytes", _bytes),
    "range": plain(_range),
    "abs": plain(abs),
    "round": plain(_rounded),
    "divmod": plain(divmod),
    "ord": plain(ord),
    "chr": plain(chr),
    "hex": plain(hex),
    "bin": plain(bin),
    "oct": plain(oct),
    "ascii": plain(ascii),
    "print": known(nothing),
    "open": known(open_file),
    "object": Foreign("builtins.object"),
    "NotImplemented": Foreign("builtins.NotImplemented"),
    "Ellipsis": ...,
    "__debug__": True,
}
for _name in dir(builtins):
    BUILTINS.setdefault(_name, Foreign(f"builtins.{_name}"))
