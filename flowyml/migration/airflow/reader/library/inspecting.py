"""Introspection of the file's own objects: ``dir``, ``inspect``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from flowyml.migration.airflow.reader.library.natives import natives
from flowyml.migration.airflow.reader.values import (
    Arguments,
    Bound,
    Class,
    Function,
    Given,
    Instance,
    Module,
    NotKnown,
    Unknown,
    hard,
)

__all__ = ["NAMES"]

_WITHOUT_NAMES = frozenset({"ABC", "object", "Generic", "Protocol"})
"""Bases from other libraries whose subclasses inherit only names with underscores."""


def _names_of(value: Any) -> list[str]:
    """Return the names that a file gives to a module, class or instance. Raises ``NotKnown`` if a library adds some."""
    if isinstance(value, Module) and not value.stars:
        return sorted(map(str, value.scope.names))
    cls = value.cls if type(value) is Instance else value
    if not isinstance(cls, Class) or any(one.name not in _WITHOUT_NAMES for one in cls.foreign()):
        raise NotKnown
    found = {name for one in cls.mro() if isinstance(one, Class) for name in one.names}
    return sorted({*found, *(value.attributes if isinstance(value, Instance) else ())})


def _dir(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if not arguments.positional:
        return sorted(map(str, machine.scope.names))
    return _names_of(hard(arguments.positional[0].value))


def _members(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``inspect.getmembers(value, predicate)``."""
    value, wanted = hard(arguments.value("object", 0)), arguments.value("predicate", 1)
    found: list[Any] = []
    for name in _names_of(value):
        member = machine.attribute(value, name, node)
        answer = True if wanted is None else machine.truth(machine.call(wanted, Arguments([Given(member)]), node))
        if answer is None:
            raise NotKnown
        if answer:
            found.append((name, member))
    return found


def _is_a(kind: type) -> Callable[..., Any]:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        value = hard(arguments.value("object", 0))
        return machine.unknown(node) if isinstance(value, Unknown) else isinstance(value, kind)

    return call


def _signature(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``inspect.signature`` of a function or method of the root: its ``parameters``."""
    value = hard(arguments.value("obj", 0))
    function = value.function if isinstance(value, Bound) else value
    if not isinstance(function, Function) or function.wraps:
        raise NotKnown
    spec = function.node.args
    args = [*spec.posonlyargs, *spec.args][isinstance(value, Bound) :]
    args += [*([spec.vararg] if spec.vararg else []), *spec.kwonlyargs, *([spec.kwarg] if spec.kwarg else [])]
    parameters = {
        one.arg: Instance(None, {"name": one.arg, "default": function.defaults.get(one.arg, machine.unknown(node))})
        for one in args
    }
    return Instance(None, {"parameters": parameters})


NAMES = natives({
    "builtins.dir": _dir,
    "inspect.getmembers": _members,
    "inspect.isclass": _is_a(Class),
    "inspect.isfunction": _is_a(Function),
    "inspect.ismethod": _is_a(Bound),
    "inspect.signature": _signature,
})  # fmt: skip
