"""Wrap functions of Python as natives."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from flowyml.migration.airflow.reader.operations import checked
from flowyml.migration.airflow.reader.values import Arguments, Native


def plain(function: Callable[..., Any]) -> Native:
    """Return a native of plain data: an unknown argument makes an unknown result."""

    def bounded(*args: Any, **kwargs: Any) -> Any:
        return checked(function(*args, **kwargs))

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        args = [machine.listed(given.value, node) for given in arguments.positional]
        kwargs = {name: given.value for name, given in arguments.named.items()}
        args, kwargs, soft, known = machine.settle(args, kwargs)
        if not known or arguments.open:
            return machine.unknown(node)
        found = machine.attempt(node, bounded, *args, **kwargs)
        return machine.soft(found, *soft)

    return Native(getattr(function, "__name__", "native"), call)


def natives(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table by import path whose functions are natives: they check their arguments themselves."""
    return {
        path: Native(path.rpartition(".")[2], value) if isinstance(value, FunctionType) else value
        for path, value in table.items()
    }


def native(name: str, function: Callable[[Arguments, ast.AST], Any]) -> Native:
    """Return a native that needs nothing of the evaluator but its arguments, and the node of the call."""
    return Native(name, lambda _, arguments, where: function(arguments, where))


def nothing(machine: Any, arguments: Arguments, node: ast.AST) -> None:
    return None
