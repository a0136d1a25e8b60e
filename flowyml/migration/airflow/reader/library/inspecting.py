"""Introspection of the file's own objects: ``dir``, ``inspect``."""

from __future__ import annotations

import ast
from typing import Any

from flowyml.migration.airflow.reader.library.natives import known
from flowyml.migration.airflow.reader.values import (
    Arguments,
    Bound,
    Class,
    Function,
    Given,
    Instance,
    Module,
    Native,
    Unknown,
    hard,
)

__all__ = ["NAMES"]

_WITHOUT_NAMES = frozenset({"ABC", "object", "Generic", "Protocol"})
"""Bases from other libraries whose subclasses inherit only names with underscores."""


def _names_of(value: Any) -> list[str] | None:
    """Return the names that a file gives to a module, class or instance; None if a library adds others."""
    if isinstance(value, Module):
        return None if value.stars else sorted(map(str, value.scope.names))
    cls = value.cls if type(value) is Instance else value
    if not isinstance(cls, Class) or any(one.name not in _WITHOUT_NAMES for one in cls.foreign()):
        return None
    found = {name for one in cls.mro() if isinstance(one, Class) for name in one.names}
    return sorted({*found, *(value.attributes if isinstance(value, Instance) else ())})


def _dir(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if not arguments.positional:
        return sorted(map(str, machine.scope.names))
    names = _names_of(hard(arguments.positional[0].value))
    return machine.unknown(node) if names is None else names


def _members(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``inspect.getmembers(value, predicate)``."""
    value, wanted = hard(arguments.value("object", 0)), arguments.value("predicate", 1)
    names = _names_of(value)
    if names is None:
        return machine.unknown(node)
    found: list[Any] = []
    for name in names:
        member = machine.attribute(value, name, node)
        answer = True if wanted is None else machine.truth(machine.call(wanted, Arguments([Given(member)]), node))
        if answer is None:
            return machine.unknown(node)
        if answer:
            found.append((name, member))
    return found


def _is_a(*kinds: type) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        value = hard(arguments.value("object", 0))
        return machine.unknown(node) if isinstance(value, Unknown) else isinstance(value, kinds)

    return Native("is_a", call)


def _signature(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``inspect.signature`` of a function or method of the root: its ``parameters``."""
    value = hard(arguments.value("obj", 0))
    function = value.function if isinstance(value, Bound) else value
    if not isinstance(function, Function) or function.wraps:
        return machine.unknown(node)
    spec = function.node.args
    args = [*spec.posonlyargs, *spec.args][isinstance(value, Bound) :]
    args += [*([spec.vararg] if spec.vararg else []), *spec.kwonlyargs, *([spec.kwarg] if spec.kwarg else [])]
    parameters = {
        one.arg: Instance(None, {"name": one.arg, "default": function.defaults.get(one.arg, machine.unknown(node))})
        for one in args
    }
    return Instance(None, {"parameters": parameters})


NAMES: dict[str, Any] = {
    "builtins.dir": known(_dir),
    "inspect.getmembers": known(_members),
    "inspect.isclass": _is_a(Class),
    "inspect.isfunction": _is_a(Function),
    "inspect.ismethod": _is_a(Bound),
    "inspect.signature": known(_signature),
}
