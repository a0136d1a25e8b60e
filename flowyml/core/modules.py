"""A module on workers: its name, its file, and whether it travels in the bundle or is installed there anyway.

A script is ``__main__`` where it runs, and a module where it is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "first_version", "found_by_name", "import_root", "installed_version", "installed_versions", "is_installed",
    "is_module_name", "shipped_name", "source_file", "travels",
]  # fmt: skip


def shipped_name(module: str | None) -> str | None:
    """Return the name under which workers import a module; for a script, its file's stem. None if they cannot."""
    return _main_name(sys.modules["__main__"]) if module == "__main__" else module


@cache
def _main_name(main: ModuleType) -> str | None:
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)  # python -m package.module
    if not getattr(main, "__file__", None):
        return None
    path = Path(str(main.__file__)).resolve()  # the name of the file, not that of a link to it
    return path.stem if path.suffix == ".py" and path.is_file() and is_module_name(path.stem) else None


def is_module_name(stem: str) -> bool:
    """Return whether ``import_module`` takes the name, as it does ``01_train`` and ``my-train``."""
    return all(character.isalnum() or character in "_-" for character in stem)


def found_by_name(item: Any) -> Any:
    """Return what a module has under the name of its function, class or step; None if it has nothing there."""
    value: Any = sys.modules.get(getattr(item, "__module__", ""))
    for part in getattr(item, "__qualname__", "").split("."):
        value = getattr(value, part, None)
    return value


def travels(module: str) -> bool:
    """Return whether a loaded module is the user's own, with a file that travels, and not installed on workers."""
    shipped = shipped_name(module)
    path = source_file(sys.modules[module]) if module in sys.modules else None
    if path is None or shipped is None or shipped.partition(".")[0] == "flowyml":
        return False
    return not is_installed(path)


def source_file(module: ModuleType) -> Path | None:
    """Return the Python file of a loaded module; None if there is none."""
    path = Path(getattr(module, "__file__", None) or "")
    return path.resolve() if path.suffix == ".py" and path.is_file() else None


def is_installed(path: Path) -> bool:
    """Return whether a file belongs to the standard library or to an installed package."""
    return f"{path}{os.sep}".startswith(_installed_roots())


@cache
def _installed_roots() -> tuple[str, ...]:
    """Return the folders of packages and of the standard library, also as a link names them: a worker has its own."""
    import site
    import sysconfig

    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    places = [*map(sysconfig.get_path, keys), *site.getsitepackages(), site.getusersitepackages()]
    named = {Path(place) for place in places}
    return tuple(f"{place}{os.sep}" for place in named | {place.resolve() for place in named})


def import_root(module: str, path: Path) -> Path:
    """Return the folder on the import path that contains a module's file."""
    parts = module.split(".")
    return path.parents[len(parts) if path.stem == "__init__" else len(parts) - 1]


def installed_version(distribution: str) -> str:
    """Return the version of a distribution that is installed now; empty if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


@cache
def first_version(distribution: str) -> str:
    """Return the version that was installed when this process first asked: if another is now, it may run either."""
    return installed_version(distribution)


def installed_versions(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages among these that have one.

    A loaded package's ``__version__`` is read faster than its metadata.
    """
    versions = {}
    for name in sorted(modules):
        version = getattr(sys.modules.get(name), "__dict__", {}).get("__version__")
        if not isinstance(version, str):
            from importlib import metadata

            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        versions[name] = version
    return versions
