"""Start a bundle: this file is the ``__main__.py`` of every bundle, and imports nothing of FlowyML by itself.

FlowyML is imported from the folder of the unpacked bundle, where its modules are compiled once.
"""

from __future__ import annotations

import faulthandler
import sys
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType
from zipimport import zipimporter

MINIMUM = (3, 11)


def main() -> int:
    """Run the bundle that this file is in; returns the exit code."""
    if sys.version_info < MINIMUM:
        sys.exit(f"This bundle needs Python {MINIMUM[0]}.{MINIMUM[1]} or newer; this is {sys.version.split()[0]}.")
    bundle = Path(__file__).absolute().parent
    folder = unpack(bundle)
    sys.path[0] = str(folder)
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)  # no print makes a step fail
    if sys.argv[1:] == ["answer"]:  # of a process that waits for the answer; people do not see it
        from flowyml.runtime.spawn_child import main as answer

        return answer(folder)
    from flowyml.runtime.cli import main as command

    return command(folder, bundle, sys.argv[1:])


def unpack(bundle: Path) -> Path:
    """Unpack a bundle if necessary; returns the folder with its files."""
    if bundle.is_dir():
        return bundle
    folder: Path = _module(bundle, "unpacking").unpack_bundle(bundle)
    return folder


def make_importable(bundle: Path) -> None:
    """Put a bundle's content first on the import path. DAG files of Airflow call this, found by ``run_path``."""
    folder = str(unpack(bundle))
    sys.path.insert(0, folder)
    _module(bundle, "bytecode_cache").keep_compiled(folder)


def _module(bundle: Path, name: str) -> ModuleType:
    """Return a module of the runtime, straight from the bundle, without its packages.

    If the bundle lacks it, the module of the installed FlowyML.
    """
    importer = zipimporter(f"{bundle}/flowyml/runtime")
    if importer.find_spec(name) is None:
        return import_module(f"flowyml.runtime.{name}")
    module = ModuleType(name)
    importer.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
