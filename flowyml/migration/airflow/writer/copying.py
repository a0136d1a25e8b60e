"""Copy, unchanged, the modules of the repository that written modules import, to paths where they are found."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from flowyml.migration.airflow.model import FileModel, Place
from flowyml.migration.airflow.reader.files import Refused
from flowyml.migration.airflow.writer.notes import Beside, FileResult, Kind, Note
from flowyml.migration.airflow.writer.repository import (
    OF_AIRFLOW,
    OURS,
    Import,
    Module,
    Repository,
    imports_of,
    named_for_airflow,
)
from flowyml.migration.airflow.writer.syntax import defined_by

_BY_NAME = "Airflow imports it by its name, and not from the bundle"
_STAYS = "Keep it where Airflow finds it."


def repository_of(file: FileModel, known: dict[Module, Sequence[Import]]) -> Repository:
    """Return the repository as a DAG file imports it. ``known`` caches the imports of modules, for all files."""
    return Repository(Path(file.root), Path(file.path), file.added, known)


def copied(
    files: Sequence[FileModel], results: Sequence[FileResult], folder: Path
) -> tuple[list[FileResult], Mapping[str, bytes]]:
    """Return the results with the modules beside each, and the files to copy, by their paths below the output folder.

    A module finds others beside itself, or beside its package. A copy may turn the folder of another copy into a
    package: then the imports of that one go to another place.
    """
    known: dict[Module, Sequence[Import]] = {}
    repositories = {file.path: repository_of(file, known) for file in files if file.dags}
    parents = {parent for file in results if file.module for parent in PurePosixPath(file.module).parents}
    packages = {str(parent) for parent in parents if (folder / parent / "__init__.py").is_file()}
    while True:
        copies = _Copies({file.module: file.written for file in results if file.module})
        made = [copies.beside(file, repositories[file.path], packages) if file.module else file for file in results]
        new = {str(PurePosixPath(path).parent) for path in copies.data if path.endswith("/__init__.py")}
        if new <= packages:
            return [_without_dags(file, copies.sources) for file in made], copies.data
        packages |= new


def _without_dags(file: FileResult, sources: Mapping[Path, str]) -> FileResult:
    copy = sources.get(Path(file.path).resolve())
    return replace(file, reason=f"{file.reason}; it is copied, since pipelines import it") if copy else file


@dataclass
class _Copies:
    """The copies for all modules: ``written`` are their texts by path."""

    written: Mapping[str, str]
    data: dict[str, bytes] = field(default_factory=dict)
    sources: dict[Path, str] = field(default_factory=dict)

    def beside(self, file: FileResult, repository: Repository, packages: set[str]) -> FileResult:
        """Add to a result the modules that its module imports, directly or through others."""
        found: dict[str, Beside] = {}
        tree = ast.parse(file.written)
        original = ast.parse(file.original)
        lines = {name: each.line for each in imports_of(original) for name in _names(each)}
        home = PurePosixPath(file.module).parent
        while str(home) in packages and home.parts:
            home = home.parent
        for imports, reason in ((imports_of(tree), ""), (named_for_airflow(tree), _BY_NAME)):
            waiting = [
                (each, Place(repository.start, next((lines[name] for name in _names(each) if name in lines), 1)))
                for each in imports
            ]
            while waiting:
                wanted, place = waiting.pop(0)
                top = wanted.module.partition(".")[0]
                if OF_AIRFLOW.match(wanted.module) or top in {*OURS, *sys.stdlib_module_names}:
                    continue
                modules, missing = repository.modules(wanted)
                if missing and not wanted.optional and missing not in found:
                    found[missing] = _missing(missing, place, reason)
                for module in modules:
                    if module.name not in found:
                        found[module.name] = self._copy(module, place, repository, home, wanted, reason)
                        path = repository.shown(module)
                        waiting += [(each, Place(path, each.line)) for each in repository.imports(module)]
        lacking = [
            Note(Kind.REFUSED, f"module {each.name}", each.place, each.reason, each.to_do)
            for each in found.values()
            if not each.copy and not each.is_elsewhere
        ]
        dags = [replace(dag, notes=[*dag.notes, *lacking]) for dag in file.dags]
        return replace(file, dags=dags, beside=list(found.values()))

    def _copy(
        self, module: Module, place: Place, repository: Repository, home: PurePosixPath, wanted: Import, reason: str
    ) -> Beside:
        source, target = repository.shown(module), str(home / module.place)
        made = Beside(module.name, place, source, target, reason, _STAYS if reason else "")
        if target in self.written:
            names = {*defined_by(self.written[target])}
            if wanted.module != module.name or names.issuperset(wanted.names):
                return replace(made, reason="pipelines are written from it, and take its place", to_do="")
            lost = ", ".join(sorted({*wanted.names} - names))
            return replace(
                made, copy="", reason=f"pipelines are written from it to {target}, without {lost}",
                to_do=f"Move {lost} into a separate module, without DAGs.",
            )  # fmt: skip
        try:
            data = repository.data(module)
        except (Refused, OSError) as error:
            return replace(made, copy="", reason=f"it cannot be read: {error}", to_do=f"Copy it to {target}.")
        if self.data.setdefault(target, data) != data:
            return replace(
                made, copy="", reason=f"another module has its place, {target}", to_do="Give one of them another name."
            )
        self.sources[module.path.resolve()] = target
        return made


def _names(wanted: Import) -> Iterator[str]:
    yield wanted.module
    yield from (f"{wanted.module}.{name}" for name in wanted.names)


def _missing(name: str, place: Place, reason: str) -> Beside:
    if "." in name:
        return Beside(name, place, reason="it is not in the repository", to_do="Add it, or remove its import.")
    to_do = "Install it where Airflow reads DAGs." if reason else "Install it where the steps run."
    return Beside(
        name, place, reason="it is not below the root that was read",
        to_do=f"{to_do} If it is your module, name its folder with --root, or copy it beside the pipelines.",
    )  # fmt: skip
