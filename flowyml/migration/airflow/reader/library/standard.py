"""The standard library and similar modules, by import path."""

from __future__ import annotations

import ast
import graphlib
import math
from typing import Any

from flowyml.migration.airflow.reader.library import collecting, data, dates, functions, objects, paths, records, text
from flowyml.migration.airflow.reader.library.items import from_keys
from flowyml.migration.airflow.reader.library.natives import natives, plain
from flowyml.migration.airflow.reader.operations import PythonVersion
from flowyml.migration.airflow.reader.values import Arguments, Auto, Native

LIBRARY = natives({
    "typing.TYPE_CHECKING": False,
    "typing_extensions.TYPE_CHECKING": False,
    "sys.version_info": PythonVersion(3, 11, 0),
    "os.name": "posix",
    "sys.platform": "linux",
    "sys.maxsize": 2**63 - 1,
    "math.inf": math.inf,
    "math.pi": math.pi,
    "enum.auto": lambda machine, arguments, node: Auto(),
    "graphlib.TopologicalSorter": plain(graphlib.TopologicalSorter),
    **{f"math.{name}": plain(getattr(math, name)) for name in ("ceil", "floor", "gcd", "log", "log10", "log2", "sqrt")},
    **collecting.NAMES,
    **data.NAMES,
    **dates.NAMES,
    **functions.NAMES,
    **objects.INSPECT,
    **paths.NAMES,
    **records.NAMES,
    **text.NAMES,
})  # fmt: skip


_PATHS = {id(value): path for path, value in LIBRARY.items() if isinstance(value, Native)}


def native_attribute(machine: Any, value: Native, name: str) -> Any:
    """Return a method of a builtin class, taken from the class: ``str.lower``, ``dict.fromkeys``."""
    path = _PATHS.get(id(value))
    if name in ("__name__", "__qualname__"):
        return value.name
    if path is not None and f"{path}.{name}" in LIBRARY:
        return LIBRARY[f"{path}.{name}"]
    if value.name == "type" and machine.making:
        return machine.of_type(name, machine.making[-1])
    if value.name == "dict" and name == "fromkeys":
        return Native(name, from_keys)
    if value.name == "str" and name == "maketrans":
        return plain(str.maketrans)
    if value.name in ("str", "list", "dict", "set", "tuple"):

        def call(_: Any, given: Arguments, node: ast.AST) -> Any:
            if not given.positional:
                return machine.unknown(node)
            first, *rest = given.positional
            return machine.call(machine.attribute(first.value, name, node), Arguments(rest, given.named), node)

        return Native(name, call)
    return None
