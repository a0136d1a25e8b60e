"""Store compiled modules of an unpacked bundle. This module imports nothing of FlowyML, which it must precede."""

from __future__ import annotations

import sys
from importlib.machinery import FileFinder, SourceFileLoader
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder

__all__ = ["KeepingLoader", "keep_compiled"]


class KeepingLoader(SourceFileLoader):
    """Stores compiled modules beside the bundle's, even if ``PYTHONDONTWRITEBYTECODE`` forbids that elsewhere.

    That folder is FlowyML's cache. Container images often set the variable; then every process would compile the same
    modules again, which takes a third of its start.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        if sys.dont_write_bytecode and not Path(cache_from_source(self.path)).exists():
            _compile(self.path)
        return super().get_code(fullname)


def _compile(path: str) -> None:
    import py_compile
    from contextlib import suppress

    with suppress(OSError, py_compile.PyCompileError):  # its import will report the error
        py_compile.compile(path, doraise=True)


def keep_compiled(folder: str) -> None:
    """Have ``KeepingLoader`` load all modules from a folder."""
    hook = FileFinder.path_hook((KeepingLoader, [".py"]))

    def ours(path: str) -> PathEntryFinder:
        if path.startswith(folder):
            return hook(path)
        raise ImportError(path)

    sys.path_hooks.insert(0, ours)
    for path in [path for path in sys.path_importer_cache if path.startswith(folder)]:
        del sys.path_importer_cache[path]  # found before, without the loader
