"""Start the warm process of a bundle: a script, which imports nothing of FlowyML by itself.

The bundle's own start would work, but takes 15 ms longer to read a zip file and compile. And this script can start
while the bundle is still being written: its first message is the folder of the unpacked bundle.
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
from importlib.machinery import SourceFileLoader
from types import ModuleType


def main() -> None:
    """Make FlowyML importable from the bundle, and serve."""
    gc.disable()  # until the code is loaded: objects from imports are never garbage
    folder = os.fsdecode(os.read(int(sys.argv[1]), 1 << 16))  # one datagram
    if not folder:
        return  # the process that started this has ended
    sys.path.insert(0, folder)
    if sys.dont_write_bytecode:
        _keep_compiled(folder)
    from flowyml.runtime.fork_server import main as serve

    serve()


def _keep_compiled(folder: str) -> None:
    """Call ``keep_compiled`` of the bundle, without importing its packages, which are to be compiled and stored too."""
    cache = ModuleType("bytecode_cache")
    SourceFileLoader("bytecode_cache", f"{folder}/flowyml/runtime/bytecode_cache.py").exec_module(cache)
    cache.keep_compiled(folder)


if __name__ == "__main__":
    main()
