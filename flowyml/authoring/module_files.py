"""The files of the user's modules, and their state in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from flowyml.authoring.source_units import SourceFile
from flowyml.core.modules import is_installed, shipped_name, source_file, travels

__all__ = ["candidates", "folders_of", "found_module", "is_elsewhere", "live_module"]


def found_module(module: str, root: Path | None) -> tuple[str, Path] | None:
    """Return the name and the file of a user's module: the file it is loaded from, else a file below ``root``."""
    if module.partition(".")[0] in _flowymls_packages():
        return None
    live = sys.modules.get(module)
    if live is not None and (file := getattr(live, "__file__", None)):
        return _located(module, str(file), shipped_name(module))
    found = next((path for path in candidates(module, root) if path.is_file()), None)
    return (module, found.resolve()) if found and not is_installed(found) else None


@cache
def _flowymls_packages() -> frozenset[str]:
    """Return FlowyML and its engines, of which the version counts, also where they are installed from a checkout."""
    from flowyml.orchestrators.registry import packages

    return frozenset({"flowyml", *packages()})


@lru_cache(4096)
def _located(module: str, file: str, shipped: str | None) -> tuple[str, Path] | None:
    """Return the same for a module that is loaded from a file; cached, since paths take long to resolve."""
    path = source_file(sys.modules[module]) if travels(module) else None
    return (shipped or module, path) if path else None


def candidates(module: str, root: Path | None) -> Iterator[Path]:
    """Yield the files that a module could have, below ``root`` and the user's folders of ``sys.path``."""
    package, _, name = module.rpartition(".")
    for folder in folders_of(package, root):
        yield folder / name / "__init__.py"
        yield folder / f"{name}.py"
    if not package and name.isidentifier():
        with suppress(ImportError, ValueError, AttributeError):  # ``__main__`` has no specification, for one
            if (spec := find_spec(name)) and spec.origin and spec.origin.endswith(".py"):  # such as an editable one
                yield Path(spec.origin)


def folders_of(package: str, root: Path | None) -> list[Path]:
    """Return the folders that a package's modules are in, or may be; those of no package without one."""
    if not package:
        return [*([root] if root else ()), *_own_folders(tuple(map(os.path.abspath, sys.path)))]
    if live := getattr(sys.modules.get(package), "__path__", None):
        return list(map(Path, live))
    parent, _, name = package.rpartition(".")
    return [folder / name for folder in folders_of(parent, root)]


@lru_cache(16)
def _own_folders(entries: tuple[str, ...]) -> list[Path]:
    return [path for path in map(Path, entries) if not is_installed(path.resolve())]


def is_elsewhere(module: str | None) -> bool:
    """Return whether a module is installed or FlowyML's own: not one of a notebook or made by hand."""
    live = sys.modules.get(module or "")
    if live is None or module == "__main__":
        return False
    spec = getattr(live, "__spec__", None)
    return spec is not None and (spec.origin is not None or spec.submodule_search_locations is not None)


def live_module(file: SourceFile) -> ModuleType | None:
    """Return the module in this process."""
    for name in (file.name, "__main__"):
        live = sys.modules.get(name)
        place = getattr(live, "__file__", None)
        found = _located(name, str(place), shipped_name(name)) if place else None
        if found and found[1] == file.path:
            return live
    return None
