"""The files that code comes from: the statements that it can reach, the modules that they import, the data they name.

Left out are steps and pipelines that none of this code names, so that an edit of one step leaves the others cached.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from flowyml.authoring.code_data import data_files
from flowyml.authoring.module_files import folders_of, found_module, is_elsewhere, modules_below, names_in, places_of
from flowyml.authoring.source_units import SourceFile, Unit, hash_of, source_file_at, state_of_file
from flowyml.core.modules import import_root, is_installed, is_module_name

__all__ = ["FileWalk"]


class FileWalk:
    """Follows names and imports from one file to the next; visits everything once."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.files: dict[Path, SourceFile] = {}
        self._states: dict[Path, tuple[int, ...]] = {}  # of folders and data files that were looked at, or missed
        self._texts: set[str] = set()
        self._levels_up = Counter[Path]()  # how far the code of a file may go up from its folder
        self._packages: set[str] = set()
        self._imports_any = False  # whether code makes the names of modules: then all beside its own count
        self._known: dict[tuple[str, Path | None], tuple[str, Path] | None] = {}
        self._units: set[Unit] = set()
        self._roots: list[Unit] = []
        self.reaches_any = False  # whether code can use names that it does not write: then everything counts
        self._names: set[str] = set()
        self._aliases: dict[str, set[str]] = {}
        self._bound: dict[str, list[tuple[SourceFile, Unit]]] = {}
        self.named: set[str] = set()  # functions that workers have of their own

    def text(self) -> Iterator[str]:
        """Yield the collected statements of each file, in their order there."""
        for file in sorted(self.files.values(), key=lambda file: file.name):
            yield f"{file.name} {' '.join(unit.digest for unit in file.units if unit in self._units)}"
        if self._imports_any:
            roots = {import_root(file.name, path) for path, file in self.files.items()}
            yield from sorted(line for root in roots for line in self._beside(root))

    def identities(self) -> dict[Path, tuple[int, ...]]:
        """Return the files that were read or missed, in their state at that time."""
        return {path: file.state for path, file in self.files.items()} | self._states

    def file_of(self, module: str | None, beside: SourceFile | None = None) -> SourceFile | None:
        """Return the file of a user's module; ``beside`` is a file that imports it."""
        root = import_root(beside.name, beside.path) if beside else None
        found = self._found(module, root) if module else None
        if found is None:
            return None
        name, path = found
        if path not in self.files:
            try:
                if path.suffix != ".py":  # it is compiled
                    self._states[path] = state_of_file(path)
                    self.named.add(f"file {name} {hash_of(path)}")
                    return None
                file = source_file_at(name, path)
            except FileNotFoundError:  # it is loaded, and its file was deleted
                return None
            self.files[path] = file
            self.enter(file)
        return self.files[path]

    def _found(self, module: str, root: Path | None) -> tuple[str, Path] | None:
        if (module, root) not in self._known:
            self._known[module, root] = found_module(module, root)
            if self._known[module, root] is None and not is_elsewhere(module):  # unless it is there later
                self._states.update((path, state_of_file(path)) for path in places_of(module, root))
        return self._known[module, root]

    def enter(self, file: SourceFile) -> None:
        """Collect a file, without the steps and pipelines that no collected code names."""
        for number in range(1, file.name.count(".") + 1):
            self.file_of(file.name.rsplit(".", number)[0], file)
        self._imports_any = self._imports_any or file.imports_by_name or file.loads
        if file.imports_by_name and file.package:
            self._collect_modules(".".join(file.package), file)
        for unit in file.units:
            for name in unit.binds:
                self._bound.setdefault(name, []).append((file, unit))
            for alias, targets in unit.imports.items():
                self._aliases.setdefault(alias, set()).update(name for _, name in targets if name)
        counts_whole = self.reaches_any or file.is_dynamic
        self._collect(file, [unit for unit in file.units if counts_whole or unit not in file.optional])
        self._collect(file, [unit for unit in file.units if not self._names.isdisjoint(unit.binds)])
        self._collect_led_to({name for alias in self._names & self._aliases.keys() for name in self._aliases[alias]})

    def collect_name(self, file: SourceFile, name: str) -> None:
        """Collect the statements that bind a name of a module; the whole module if they are not found."""
        units = file.by_name.get(name) or file.units
        self._roots += units
        self._collect(file, units)

    def _collect(self, file: SourceFile, units: Iterable[Unit]) -> None:
        """Collect statements, the modules that they import, and the steps and pipelines to which they lead."""
        for unit in units:
            if unit in self._units:
                continue
            self._units.add(unit)
            if unit.reaches_any and not self.reaches_any:
                self.reaches_any = True
                for known in list(self.files.values()):
                    self._collect(known, known.units)
            for module in unit.modules:
                self._import(module, file)
            self._texts |= unit.texts
            self._levels_up[file.path] += unit.levels_up
            for text in unit.texts if file.is_dynamic else ():
                packages = (".".join(file.package), *unit.texts) if text.startswith(".") else ("",)
                for package in packages:  # a relative name may be of any package that the statement names
                    name = f"{package}{text}".strip(".")
                    self._import(name, file)
                    if file.imports_by_name and is_module_name(name.replace(".", "")):
                        self._collect_modules(name, file)
            self._collect_led_to(unit.names)

    def _collect_led_to(self, names: set[str]) -> None:
        for file, unit in self._led_to(names, self._names):
            self._collect(file, [unit])

    def _led_to(self, more: set[str], names: set[str]) -> list[tuple[SourceFile, Unit]]:
        """Add more names, and those that are imported as these, to ``names``; return the statements that bind them."""
        statements: list[tuple[SourceFile, Unit]] = []
        while more := more - names:
            names |= more
            statements += [statement for name in more for statement in self._bound.get(name, ())]
            more = {name for alias in more for name in self._aliases.get(alias, ())}
        return statements

    def names_from_roots(self) -> set[str]:
        """Return the names to which the functions lead: by the names alone, whatever they mean."""
        if self.reaches_any:
            return self._names
        units, names, pending = set[Unit](), set[str](), self._roots.copy()
        while pending:
            if (unit := pending.pop()) not in units:
                units.add(unit)
                pending += [reached for _, reached in self._led_to(unit.names, names)]
        return names

    def _import(self, module: str, file: SourceFile) -> None:
        """Collect a module, or note the installed package that it is of."""
        if self.file_of(module, file) is None:
            top = module.partition(".")[0]
            if top and self.file_of(top, file) is None:
                self.imports.add(top)

    def _beside(self, root: Path) -> Iterator[str]:
        """Yield the modules in a folder that code may import by names that it makes, by their bytes.

        They are not read as Python: in a home folder these are many, and some are broken. Left out are those that were
        collected, which count by their statements.
        """
        folders, files = modules_below(root)
        self._states.update((folder, state_of_file(folder)) for folder in folders)
        for path in files:
            if path not in self.files:
                self._states[path] = state_of_file(path)
                with suppress(OSError):  # what cannot be read here, the code cannot read either
                    yield f"beside {path.relative_to(root).as_posix()} {hash_of(path)}"

    def _collect_modules(self, package: str, file: SourceFile) -> None:
        """Collect all modules of a package: code in the file may import them by names that it makes at run time."""
        if package in self._packages:
            return
        self._packages.add(package)
        for folder in folders_of(package, import_root(file.name, file.path)):
            is_package = package in sys.modules or "__init__.py" in names_in(folder)
            if not is_package or is_installed(folder):
                continue
            for path in sorted([folder, *folder.rglob("*")]):
                if path.suffix == ".py":
                    parts = path.relative_to(folder).with_suffix("").parts
                    try:
                        self.file_of(".".join([package, *parts]).removesuffix(".__init__"), file)
                    except (SyntaxError, ValueError):  # a template, say
                        self.named.add(f"file {package} {parts} {hash_of(path)}")
                if path.suffix == ".py" or path.is_dir():
                    self._states.setdefault(path, state_of_file(path))

    def data(self) -> Iterator[tuple[str, str]]:
        """Yield the labels of the data files that the code may read, with their content.

        They are looked for beside the modules, up to the project's folder, in the working folder, and as far above
        these as the code goes up.
        """
        own, above = dict[Path, str](), dict[Path, str]()
        for path, file in sorted(self.files.items(), key=lambda item: item[1].name):
            root = import_root(file.name, path)
            depth = _depth_in_project(path, root)
            for number, folder in enumerate([*path.parents][: max(depth, self._levels_up[path])]):
                (own if number < depth else above).setdefault(folder, os.path.relpath(folder, root))
        goes_up = ".." in self._texts or not {"cwd", "getcwd", "pardir"}.isdisjoint(self._names)
        with suppress(FileNotFoundError):  # it is gone
            here = Path.cwd()
            own.setdefault(here, ".")
            for folder in [*here.parents][: max(self._levels_up.values(), default=0)] if goes_up else ():
                above.setdefault(folder, os.path.relpath(folder, here))
        found, states = data_files(self._texts, self._names, own, above)
        self._states |= states
        yield from found


_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
"""Files of a project's own folder."""


def _depth_in_project(path: Path, root: Path) -> int:
    """Return how many folders a module is in, up to the project's, or to the one that it is imported from."""
    folders = list(path.parents)
    marked = next((number for number, each in enumerate(folders) if _is_marked(each)), 0)
    return max(marked, folders.index(root)) + 1


@lru_cache(1024)
def _is_marked(folder: Path) -> bool:
    return any((folder / name).exists() for name in _MARKS)
