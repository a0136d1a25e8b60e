"""The files of the user's modules, and their state in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.machinery import all_suffixes
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from flowyml.authoring.source_units import SourceFile, state_of_file
from flowyml.core.modules import import_root, is_installed, shipped_name
from flowyml.core.syntax import imported

__all__ = [
    "Entries", "entries_in", "folders_of", "found_module", "imported_files", "is_elsewhere", "live_module",
    "modules_below", "names_in", "places_of",
]  # fmt: skip

_SUFFIXES = tuple(all_suffixes())


def found_module(module: str, root: Path | None) -> tuple[str, Path] | None:
    """Return the name and the file of a user's module: the file it is loaded from, else a file below ``root``.

    The file may be compiled: ``.pyc``, ``.so``.
    """
    if module.partition(".")[0] in _flowymls_packages():
        return None
    live = sys.modules.get(module)
    if live is not None and (file := getattr(live, "__file__", None)):
        return _located(str(file), shipped_name(module))
    found = next((path for path in _candidates(module, root) if path.is_file()), None)
    return (module, found.resolve()) if found and not is_installed(found) else None


def imported_files(modules: Iterable[str]) -> tuple[dict[str, bytes], set[str]]:
    """Return the files of the user's modules and of all that they import, and the packages that these import.

    Files have their paths below the folder that they are imported from, packages the first part of their names. Only
    files from the folders that the given modules are imported from are returned: a part of another package, such as one
    that is installed in editable form, would hide the whole one that a worker has.
    """
    pending: list[tuple[str, Path | None]] = [(module, None) for module in modules]
    roots = {import_root(*found) for module, _ in pending if (found := found_module(module, None))}
    files, packages, own, seen = dict[str, bytes](), set[str](), set[str](), set[tuple[str, Path | None]]()
    while pending:
        module, beside = pending.pop()
        if (module, beside) in seen:
            continue
        seen.add((module, beside))
        found = found_module(module, beside)
        if found is None:
            packages.add(module.partition(".")[0])
            continue
        name, path = found
        own.add(name.partition(".")[0])
        if path.suffix == ".py":
            root, source = import_root(name, path), path.read_bytes()
            place = path.relative_to(root)
            if root in roots:
                files[place.as_posix()] = source
            around = (".".join(folder.parts) for folder in place.parents if folder.parts)
            pending += ((each, root) for each in (*around, *imported(source, place)))
    return files, packages - own - sys.stdlib_module_names - {"flowyml", ""}


@cache
def _flowymls_packages() -> frozenset[str]:
    """Return FlowyML and its engines, of which the version counts, also where they are installed from a checkout."""
    from flowyml.orchestrators.registry import packages

    return frozenset({"flowyml", *packages()})


@lru_cache(4096)
def _located(file: str, shipped: str | None) -> tuple[str, Path] | None:
    """Return the same for a module that is loaded from a file; cached, since paths take long to resolve."""
    path = Path(file).resolve()
    is_own = path.is_file() and path.suffix and not is_installed(path)
    return (shipped, path) if shipped and is_own else None


def places_of(module: str, root: Path | None) -> list[Path]:
    """Return the folders that change when a file for the module appears."""
    package, _, name = module.rpartition(".")
    return [place for folder in folders_of(package, root) for place in (folder, folder / name)]


def _candidates(module: str, root: Path | None) -> Iterator[Path]:
    """Yield the files that a module could have, below ``root`` and the user's folders of ``sys.path``."""
    package, _, name = module.rpartition(".")
    for folder in folders_of(package, root):
        there = names_in(folder)
        if name in there:
            yield from (folder / name / f"__init__{suffix}" for suffix in _SUFFIXES)
        yield from (folder / f"{name}{suffix}" for suffix in _SUFFIXES if f"{name}{suffix}" in there)
    if not package and name.isidentifier():
        with suppress(ImportError, ValueError, AttributeError):  # ``__main__`` has no specification, for one
            if (spec := find_spec(name)) and spec.origin and spec.origin.endswith(_SUFFIXES):  # such as an editable one
                yield Path(spec.origin)


def folders_of(package: str, root: Path | None) -> list[Path]:
    """Return the folders that a package's modules are in, or may be; those of no package without one."""
    if not package:
        return [*([root] if root else ()), *_own_folders(tuple(_search_path()))]
    if live := getattr(sys.modules.get(package), "__path__", None):
        return list(map(Path, live))
    parent, _, name = package.rpartition(".")
    return [folder / name for folder in folders_of(parent, root)]


def _search_path() -> Iterator[str]:
    """Yield the folders of ``sys.path``, without a working folder that is gone."""
    for entry in sys.path:
        with suppress(FileNotFoundError):
            yield os.path.abspath(entry)  # noqa: PTH100  # links stay, and this is asked for each import


@lru_cache(16)
def _own_folders(entries: tuple[str, ...]) -> list[Path]:
    return [path for path in map(Path, entries) if not is_installed(path.resolve())]


def modules_below(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files of all modules and packages of the user that can be imported from a folder.

    A package is a folder with an ``__init__`` file: those below it count, whether they have one or not.
    """
    folders, files = [root], list[Path]()
    if is_installed(root):
        return [], []
    for folder in folders:  # which grows
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                name, path = entry.name.partition(".")[0], folder / entry.name
                if folder == root and (name in _flowymls_packages() or not name):
                    continue
                if entry.name.endswith(_SUFFIXES):
                    files.append(path)
                elif entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir(follow_symlinks=False):
                    inner = names_in(path) if folder == root else frozenset[str]()
                    if folder != root or any(f"__init__{suffix}" in inner for suffix in _SUFFIXES):
                        folders.append(path)
    return folders, files


def names_in(folder: Path) -> frozenset[str]:
    """Return the names in a folder; none if it cannot be read."""
    return entries_in(folder, state_of_file(folder)).names


class Entries(NamedTuple):
    """The names in a folder; which of them are folders, or links to folders; and which are links."""

    names: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()


@lru_cache(16384)  # more than the folders of one search for data files
def entries_in(folder: Path, _state: tuple[int, ...]) -> Entries:
    """Return what is in a folder with this state; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as scanned:
            found = list(scanned)
    except OSError:
        return Entries()
    names, folders = {each.name for each in found}, {each.name for each in found if each.is_dir()}
    return Entries(frozenset(names), frozenset(folders), frozenset(each.name for each in found if each.is_symlink()))


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
        found = _located(str(place), shipped_name(name)) if place else None
        if found and found[1] == file.path:
            return live
    return None
