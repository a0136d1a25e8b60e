"""Classes of fields: dataclasses, named tuples, attrs, pydantic."""

from __future__ import annotations

import ast
from typing import Any

from flowyml.migration.airflow.reader.library.natives import known
from flowyml.migration.airflow.reader.values import Arguments, Class, Given, Instance, Native, hard

__all__ = ["NAMES", "instance_method"]


def _dataclass(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if arguments.positional and isinstance(arguments.positional[0].value, Class):
        return machine.fields(arguments.positional[0].value)
    return Native(
        "dataclass",
        lambda _, given, __: (
            machine.fields(given.positional[0].value)
            if isinstance(given.positional[0].value, Class)
            else given.positional[0].value
        ),
    )


def _named_tuple(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name, spec = hard(arguments.value("typename", 0)), hard(arguments.value("field_names", 1))
    names = spec.replace(",", " ").split() if isinstance(spec, str) else spec
    if not isinstance(names, (list, tuple)) or not all(isinstance(hard(one), str) for one in names):
        return machine.unknown(node)
    empty = ast.ClassDef(name=str(name), bases=[], keywords=[], body=[], decorator_list=[])
    fields: dict[Any, Any] = dict.fromkeys(map(hard, names), machine.unknown(node))
    defaults = hard(arguments.value("defaults"))
    if isinstance(defaults, (list, tuple)):  # of the last fields
        fields |= dict(zip(reversed(fields), reversed(defaults), strict=False))
    return Class(str(name), empty, machine.module, (), {}, fields)


def _replaced(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``dataclasses.replace`` and ``_replace``: a copy with other values of some fields."""
    old = hard(arguments.value("obj", 0))
    if not isinstance(old, Instance) or old.cls is None or old.cls.fields is None:
        return machine.unknown(node)
    named = {name: Given(old.attributes.get(name)) for name in old.cls.fields} | arguments.named
    return machine.instantiate(old.cls, Arguments([], named), node)


def _as_dict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return _unfolded(machine, arguments.value("obj", 0), node, 0)


def _unfolded(machine: Any, value: Any, node: ast.AST, depth: int) -> Any:
    value = hard(value)
    machine.step()
    if depth > 20:
        return value
    if isinstance(value, Instance) and value.cls is not None and value.cls.fields is not None:
        return {name: _unfolded(machine, value.attributes.get(name), node, depth + 1) for name in value.cls.fields}
    if isinstance(value, (list, tuple)):
        return [_unfolded(machine, one, node, depth + 1) for one in value]
    if isinstance(value, dict):
        return {key: _unfolded(machine, one, node, depth + 1) for key, one in value.items()}
    return value


def instance_method(machine: Any, value: Instance, name: str) -> Any:
    """What instances of named tuples, dataclasses and pydantic models have beside their fields."""
    if value.cls is None or value.cls.fields is None:
        return None
    if name in ("_asdict", "dict", "model_dump"):
        return Native(name, lambda _, __, node: _unfolded(machine, value, node, 0))
    if name in ("_replace", "copy", "model_copy"):
        return Native(name, lambda _, given, node: _replaced(machine, Arguments([Given(value)], given.named), node))
    return None


def _namespace(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return Instance(None, {name: given.value for name, given in arguments.named.items()})


NAMES: dict[str, Any] = {
    "dataclasses.replace": known(_replaced),
    "dataclasses.asdict": known(_as_dict),
    "dataclasses.dataclass": known(_dataclass),
    "pydantic.dataclasses.dataclass": known(_dataclass),
    "attr.s": known(_dataclass),
    "attrs.define": known(_dataclass),
    "collections.namedtuple": known(_named_tuple),
    "types.SimpleNamespace": known(_namespace),
}
