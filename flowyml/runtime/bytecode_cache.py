"""Keep the modules of an unpacked bundle compiled. This module imports nothing of FlowyML: it is needed before that."""

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
    """Keeps compiled modules beside the bundle's, even where ``PYTHONDONTWRITEBYTECODE`` keeps other folders clean.

    That folder is FlowyML's cache. Container images often set the variable; then every process would compile the same
    modules again, which takes a third of its start.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        """The compiled module."""
        if sys.dont_write_bytecode and not Path(cache_from_source(self.path)).exists():
            _compile(self.path)
        return super().get_code(fullname)


def _compile(path: str) -> None:
    import py_compile
    from contextlib import suppress

    with suppress(OSError, py_compile.PyCompileError):  # its import will say what is wrong with it
        py_compile.compile(path, doraise=True)


def keep_compiled(folder: str) -> None:
    """Load everything that is imported from a folder by ``KeepingLoader``."""
    found = FileFinder.path_hook((KeepingLoader, [".py"]))

    def ours(path: str) -> PathEntryFinder:
        if path.startswith(folder):
            return found(path)
        raise ImportError(path)

    sys.path_hooks.insert(0, ours)
    for path in [path for path in sys.path_importer_cache if path.startswith(folder)]:
        del sys.path_importer_cache[path]  # found before, without the loader
