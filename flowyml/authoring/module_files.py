"""The files of the user's modules, and their state in this process."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from flowyml.authoring.source_units import SourceFile
from flowyml.core.modules import is_installed, shipped_name, source_file, travels

__all__ = ["candidates", "found_module", "is_elsewhere", "live_module"]


def found_module(module: str, root: Path | None) -> tuple[str, Path] | None:
    """Return the name and the file of a user's module: the file it is loaded from, else a file below ``root``."""
    if module.partition(".")[0] == "flowyml":
        return None
    live = sys.modules.get(module)
    if live is not None and (file := getattr(live, "__file__", None)):
        return _located(module, str(file), shipped_name(module))
    for path in candidates(module, root) if root else ():
        if path.is_file() and not is_installed(path):
            return module, path.resolve()
    return None


@lru_cache(4096)
def _located(module: str, file: str, shipped: str | None) -> tuple[str, Path] | None:
    """Return the same for a module that is loaded from a file; cached, since paths take long to resolve."""
    path = source_file(sys.modules[module]) if travels(module) else None
    return (shipped or module, path) if path else None


def candidates(module: str, root: Path) -> tuple[Path, Path]:
    """Return the files below ``root`` that a module could have."""
    inner = module.replace(".", "/")
    return root / f"{inner}.py", root / inner / "__init__.py"


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
