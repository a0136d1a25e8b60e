"""Compare whole modules of this process with their files now."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from flowyml.authoring.imported_files import imported_digest
from flowyml.authoring.source_units import SourceFile, hash_of
from flowyml.authoring.steps import Step

__all__ = ["is_as_imported"]


def is_as_imported(live: ModuleType | None, file: SourceFile) -> bool:
    """Return whether a module in this process equals its file now; True if it is not loaded yet.

    An editor may have saved the file since, also between the import and ``note_modules``.
    """
    if live is None:
        _before_import[file.path] = file.state
        return True
    *_, modified, changed = file.state
    if file.state == _before_import.get(file.path) or max(modified, changed) < (_started() - 0.05) * 1e9:
        return True
    return imported_digest(live) == hash_of(file.path) and _matches(vars(live), file, live.__name__)


_before_import: dict[Path, tuple[int, ...]] = {}


def _matches(names: Mapping[str, Any], file: SourceFile, module: str) -> bool:
    """Return whether the file has the functions and the methods among values; others count where code names them."""
    for value in list(names.values()):
        function = inspect.unwrap(value.function) if isinstance(value, Step) else _unwrapped(value)
        if isinstance(function, FunctionType) and function.__module__ == module:
            code = function.__code__
            is_here = "<locals>" not in function.__qualname__ and not code.co_filename.startswith("<")
            if is_here and code not in file.codes.get(code.co_qualname, ()):
                return False
        is_class = isinstance(value, type) and value.__module__ == module and value.__qualname__ in file.codes
        if is_class and not _matches(vars(value), file, module):
            return False
    return True


def _unwrapped(value: Any) -> Any:
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
