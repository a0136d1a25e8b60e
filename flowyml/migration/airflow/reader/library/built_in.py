"""The builtins, by name."""

from __future__ import annotations

import ast
import builtins
from typing import Any

from flowyml.migration.airflow.reader.library import items, objects
from flowyml.migration.airflow.reader.library.natives import natives, nothing, plain
from flowyml.migration.airflow.reader.library.paths import open_file
from flowyml.migration.airflow.reader.values import Arguments, Foreign, Instance, NotKnown, hard


def _text(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if len(arguments.positional) + len(arguments.named) > 1:
        return plain(str).call(machine, arguments, node)
    value = arguments.value("object", 0, "")
    return machine.text_of(node, value, "s" if isinstance(hard(value), Instance) else "")


def _bytes(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = arguments.expect(str | bytes, "source", 0, b"")
    return plain(str.encode).call(machine, arguments, node) if isinstance(value, str) else value


def _bool(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = arguments.value("object", 0, False)
    found = machine.truth(value)
    return machine.unknown(node) if found is None else machine.soft(found, value)


def _int(value: Any = 0, base: int | None = None) -> int:
    if isinstance(value, str) and len(value) > 1000:
        raise NotKnown
    return int(value) if base is None else int(value, base)


def _rounded(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 50:
        raise NotKnown
    return round(value, digits)


_PLAIN: tuple[Any, ...] = (float, range, abs, divmod, ord, chr, hex, bin, oct, ascii)
BUILTINS = natives({
    **items.NAMES,
    **objects.NAMES,
    **{one.__name__: plain(one) for one in _PLAIN},
    "format": lambda machine, arguments, node: machine.text_of(
        node, arguments.value("value", 0), "", arguments.value("format_spec", 1, "")
    ),
    "str": _text,
    "repr": lambda machine, arguments, node: machine.text_of(node, arguments.value("object", 0), "r"),
    "int": lambda machine, arguments, node: plain(_int).call(machine, arguments, node),
    "bool": _bool,
    "bytes": _bytes,
    "round": plain(_rounded),
    "print": nothing,
    "open": open_file,
    "object": Foreign("builtins.object"),
    "NotImplemented": Foreign("builtins.NotImplemented"),
    "Ellipsis": ...,
    "__debug__": True,
})  # fmt: skip
for _name in dir(builtins):
    BUILTINS.setdefault(_name, Foreign(f"builtins.{_name}"))
