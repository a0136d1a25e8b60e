"""The files that code comes from: the statements that it can reach, the modules that they import, the data they name.

Left out are steps and pipelines that none of this code names, so that an edit of one step leaves the others cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flowyml.authoring.module_files import candidates, found_module, is_elsewhere
from flowyml.authoring.source_units import SourceFile, Unit, hash_of, identity_of, source_file_at
from flowyml.core.modules import import_root

__all__ = ["FileWalk", "state_of_file"]


class FileWalk:
    """Follows names and imports from one file to the next; visits everything once."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.files: dict[Path, SourceFile] = {}
        self._data: dict[Path, tuple[int, ...]] = {}  # files that texts may name, or would if they were there
        self._known: dict[tuple[str, Path | None], tuple[str, Path] | None] = {}
        self.units: dict[tuple[Path, Unit], int] = {}
        self.roots: set[tuple[Path, Unit]] = set()
        self.reaches_any = False  # whether code can use names that it does not write: then everything counts
        self._names: set[str] = set()
        self._aliases: dict[str, set[str]] = {}
        self._waiting: dict[str, list[tuple[SourceFile, Unit]]] = {}
        self.named: set[str] = set()  # data files, and functions that workers have of their own

    def text(self) -> Iterator[str]:
        """Yield the collected statements of each file, in their order there."""
        for path, file in sorted(self.files.items(), key=lambda item: item[1].name):
            yield f"{file.name} {' '.join(unit.digest for unit in file.units if (path, unit) in self.units)}"

    def identities(self) -> dict[Path, tuple[int, ...]]:
        """Return the files that were read or missed, in their state at that time."""
        return {path: file.identity for path, file in self.files.items()} | self._data

    def file_of(self, module: str | None, beside: SourceFile | None = None) -> SourceFile | None:
        """Return the file of a user's module; ``beside`` is a file that imports it."""
        root = import_root(beside.name, beside.path) if beside else None
        found = self._found(module, root) if module else None
        if found is None:
            return None
        name, path = found
        if path not in self.files:
            try:
                file = source_file_at(name, path)
            except FileNotFoundError:  # it is loaded, and its file was deleted
                return None
            self.files[path] = file
            self.enter(file)
        return self.files[path]

    def _found(self, module: str, root: Path | None) -> tuple[str, Path] | None:
        if (module, root) not in self._known:
            self._known[module, root] = found_module(module, root)
            if self._known[module, root] is None and root and not is_elsewhere(module):  # unless it is there later
                self._data.update((path, ()) for path in candidates(module, root))
        return self._known[module, root]

    def enter(self, file: SourceFile) -> None:
        """Collect a file, without the steps and pipelines that no collected code names."""
        for number in range(1, file.name.count(".") + 1):
            self.file_of(file.name.rsplit(".", number)[0], file)
        for unit in file.units:
            if self.reaches_any or file.is_dynamic or unit not in file.optional or self._names.intersection(unit.binds):
                self._collect_unit(file, unit)
            for name in unit.binds:
                self._waiting.setdefault(name, []).append((file, unit))

    def collect_name(self, file: SourceFile, name: str) -> None:
        """Collect the statements that bind a name of a module; the whole module if they are not found."""
        for unit in file.by_name.get(name) or file.units:
            self.roots.add((file.path, unit))
            self._collect_unit(file, unit)

    def _collect_unit(self, file: SourceFile, unit: Unit) -> None:
        """Collect one statement, the modules that it imports, and what is bound to the names in it."""
        if (file.path, unit) in self.units:
            return
        self.units[file.path, unit] = file.units.index(unit)
        if unit.reaches_any and not self.reaches_any:
            self.reaches_any = True
            for each in list(self.files.values()):
                for other in each.units:
                    self._collect_unit(each, other)
        for module in unit.modules:
            self._import(module, file)
        for text in unit.texts:
            self._collect_data(file.path.parent / text, text)
            if file.is_dynamic:  # a relative name may be of any package that the statement names
                packages = (".".join(file.package), *unit.texts) if text.startswith(".") else ("",)
                for package in packages:
                    self.file_of(f"{package}{text}", file)
        for alias, targets in unit.imports.items():
            self._aliases.setdefault(alias, set()).update(name for _, name in targets if name)
        for name in [*unit.names, *self._names.intersection(unit.imports)]:
            self._add_name(name)

    def _add_name(self, name: str) -> None:
        """Collect the steps and pipelines of this name, and of the names that are imported as it."""
        if name not in self._names:
            self._names.add(name)
            for file, unit in self._waiting.get(name, ()):
                self._collect_unit(file, unit)
        for original in self._aliases.get(name, set()) - self._names:
            self._add_name(original)

    def _import(self, module: str, file: SourceFile) -> None:
        """Collect a module, or note the installed package that it is of."""
        if self.file_of(module, file) is None:
            top = module.partition(".")[0]
            if top and self.file_of(top, file) is None:
                self.imports.add(top)

    def _collect_data(self, path: Path, name: str) -> None:
        """Collect a file beside the module, if there is one of the name that a text in the code has."""
        self._data[path] = state_of_file(path)
        if self._data[path] and path.is_file():
            self.named.add(f"file {name} {hash_of(path)}")

    def named_from_roots(self) -> tuple[set[tuple[Path, Unit]], set[str]]:
        """Return the statements that the functions lead to, and the names: by the names alone, whatever they mean."""
        if self.reaches_any:
            return set(self.units), {name for _, unit in self.units for name in unit.names}
        bound: dict[str, list[tuple[Path, Unit]]] = {}
        for path, unit in self.units:
            for name in unit.binds:
                bound.setdefault(name, []).append((path, unit))
        reached, names = set(self.roots), set[str]()
        left = [name for _, unit in self.roots for name in unit.names]
        while left:
            if (name := left.pop()) in names:
                continue
            names.add(name)
            left += self._aliases.get(name, ())
            for key in bound.get(name, ()):
                if key not in reached:
                    reached.add(key)
                    left += key[1].names
        return reached, names


def state_of_file(path: Path) -> tuple[int, ...]:
    """Return a value that changes when a file does; empty if there is none."""
    try:
        return identity_of(path)
    except (OSError, ValueError):
        return ()
