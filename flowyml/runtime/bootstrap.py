"""Start a bundle: this file is the ``__main__.py`` of every bundle, and imports nothing of FlowyML by itself.

FlowyML is imported from where the bundle is unpacked, where its modules are compiled once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from zipimport import zipimporter

MINIMUM = (3, 11)


def main() -> int:
    """Run the bundle that this file stands in; gives the exit code."""
    if sys.version_info < MINIMUM:
        sys.exit(f"This bundle needs Python {MINIMUM[0]}.{MINIMUM[1]} or newer; this is {sys.version.split()[0]}.")
    bundle = Path(__file__).absolute().parent
    folder = unpacked(bundle)
    sys.path[0] = str(folder)
    from flowyml.runtime.cli import main as command

    return command(folder, bundle, sys.argv[1:])


def unpacked(bundle: Path) -> Path:
    """The folder that holds the files of a bundle. Airflow's DAG files, which stay deployed, call it by this name."""
    unpacking = ModuleType("unpacking")  # without the packages that it is in
    zipimporter(f"{bundle}/flowyml/runtime").exec_module(unpacking)
    folder: Path = unpacking.unpack_bundle(bundle)
    return folder


if __name__ == "__main__":
    sys.exit(main())
