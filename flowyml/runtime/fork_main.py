"""Start the warm process of a bundle: a script, which imports nothing of FlowyML by itself.

The bundle's own start would do, but for 15 ms in which it reads a zip file and is compiled. And this one may be started
while the bundle is still being made: the folder in which it is unpacked is the first that it is sent.
"""

from __future__ import annotations

import sys

MINIMUM = (3, 11)

if __name__ == "__main__":
    if sys.version_info < MINIMUM:
        sys.exit(f"This bundle needs Python {MINIMUM[0]}.{MINIMUM[1]} or newer; this is {sys.version.split()[0]}.")
    if not sys.flags.safe_path:
        del sys.path[0]  # this file's folder, where modules have names that are not theirs alone

import gc
import os
from importlib.machinery import FileFinder, SourceFileLoader
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder


class KeepingLoader(SourceFileLoader):
    """Keeps compiled modules beside the bundle's, even where ``PYTHONDONTWRITEBYTECODE`` keeps other folders clean.

    That folder is a cache of FlowyML's. Images for containers often set the variable; then every process would compile
    the same modules anew, which takes a third of its start.
    """

    def get_code(self, fullname: str) -> CodeType | None:
        """The compiled module."""
        if sys.dont_write_bytecode and not Path(cache_from_source(self.path)).exists():
            _compile(self.path)
        return super().get_code(fullname)


def _compile(path: str) -> None:
    import py_compile
    from contextlib import suppress

    with suppress(OSError, py_compile.PyCompileError):  # what is wrong with it, its import will tell
        py_compile.compile(path, doraise=True)


def main() -> None:
    """Let FlowyML be imported from the bundle, and serve."""
    gc.disable()  # until the code is loaded: what imports make is there to stay
    folder = os.fsdecode(os.read(int(sys.argv[1]), 1 << 16))  # one datagram
    if not folder:
        return  # whoever started this has ended
    sys.path.insert(0, folder)
    if sys.dont_write_bytecode:
        _keep_compiled(folder)
    from flowyml.runtime.fork_server import main as serve

    serve()


def _keep_compiled(folder: str) -> None:
    found = FileFinder.path_hook((KeepingLoader, [".py"]))

    def ours(path: str) -> PathEntryFinder:
        if path.startswith(folder):
            return found(path)
        raise ImportError(path)

    sys.path_hooks.insert(0, ours)
    sys.path_importer_cache.pop(str(Path(__file__).absolute().parent), None)


if __name__ == "__main__":
    main()
