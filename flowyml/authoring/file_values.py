"""Compare the state of this process with a file: values, defaults of functions, whole modules."""

from __future__ import annotations

import ast
import inspect
import os
import time
from collections.abc import Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from flowyml.authoring.imported_files import imported_digest
from flowyml.authoring.source_units import SourceFile, hash_of
from flowyml.authoring.steps import Step

__all__ = ["is_as_imported", "is_literal", "says_defaults", "unwrapped"]


def is_literal(file: SourceFile, node: ast.stmt, value: Any) -> bool:
    """Return whether a statement assigns a name the value that it has in this process."""
    said = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if said is None or (isinstance(node, ast.Assign) and not all(isinstance(t, ast.Name) for t in node.targets)):
        return False
    return _evaluates_to(file, said, value)


def _evaluates_to(file: SourceFile, node: ast.expr, value: Any) -> bool:
    """Return whether an expression has that value: a literal, or a name for a literal in the file."""
    if isinstance(node, ast.Name):
        units = file.by_name.get(node.id, ())
        said = units[0].node if len(units) == 1 else None
        if not isinstance(said, ast.Assign | ast.AnnAssign) or said.value is None or isinstance(said.value, ast.Name):
            return False
        return is_literal(file, said, value)
    try:
        return repr(ast.literal_eval(node)) == repr(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def says_defaults(
    file: SourceFile, function: FunctionType, defaults: tuple[tuple[Any, ...], Mapping[str, Any]]
) -> bool:
    """Return whether the defaults of a function are the literals in its file."""
    for unit in file.by_name.get(function.__name__, ()):
        node = unit.node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and function.__qualname__ == node.name:
            said = [*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)]
            held = [*defaults[0], *defaults[1].values()]
            return len(said) == len(held) and all(map(partial(_evaluates_to, file), said, held))
    return False


def is_as_imported(live: ModuleType | None, file: SourceFile) -> bool:
    """Return whether a module in this process equals its file now; True if it is not loaded yet.

    An editor may have saved the file since, also between the import and ``note_modules``.
    """
    if live is None:
        _before_import[file.path] = file.identity
        return True
    *_, modified, changed = file.identity
    if file.identity == _before_import.get(file.path) or max(modified, changed) < (_started() - 0.05) * 1e9:
        return True
    is_noted = imported_digest(live) == hash_of(file.path)
    return is_noted and _matches(vars(live), _compiled(file.source, str(file.path)), live.__name__)


_before_import: dict[Path, tuple[int, ...]] = {}


@lru_cache(256)
def _compiled(source: bytes, path: str) -> CodeType:
    return compile(source, path, "exec", dont_inherit=True)


def _matches(names: Mapping[str, Any], code: CodeType, module: str) -> bool:
    said: dict[str, list[CodeType]] = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            said.setdefault(constant.co_name, []).append(constant)
    for value in list(names.values()):
        function = inspect.unwrap(value.function) if isinstance(value, Step) else unwrapped(value)
        if isinstance(function, FunctionType) and function.__module__ == module:
            is_here = "<locals>" not in function.__qualname__ and not function.__code__.co_filename.startswith("<")
            if is_here and function.__code__ not in said.get(function.__code__.co_name, ()):
                return False
        is_class = isinstance(value, type) and value.__module__ == module and value.__name__ in said
        if is_class and not any(_matches(vars(value), each, module) for each in said[value.__name__]):
            return False
    return True


def unwrapped(value: Any) -> Any:
    """Return the function behind a method, a property and the decorators that say what they wrap."""
    if isinstance(value, staticmethod | classmethod | MethodType):
        value = value.__func__
    elif isinstance(value, property):  # others are not asked for attributes: a module may import what it is asked for
        value = value.fget
    return inspect.unwrap(value) if isinstance(value, FunctionType) else value


@cache
def _started() -> float:
    """Return the start of this process, in seconds since 1970; 0 if unknown."""
    try:
        ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return 0.0
