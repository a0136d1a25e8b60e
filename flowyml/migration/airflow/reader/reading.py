"""Read files: one, or all below some folders, in parallel."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flowyml.migration.airflow.model import DagWarning, FileModel, Place
from flowyml.migration.airflow.reader.evaluator import Evaluator
from flowyml.migration.airflow.reader.files import Files, Refused, find_root
from flowyml.migration.airflow.reader.imports import parse
from flowyml.migration.airflow.reader.machine import Options
from flowyml.migration.airflow.reader.modelling import dag_model

__all__ = ["Found", "find_files", "read_file", "read_files"]

_SKIPPED = frozenset({".git", "__pycache__", "node_modules", ".venv", "venv", ".tox", ".mypy_cache", "site-packages"})


@dataclass(frozen=True, slots=True)
class Found:
    """A file to read: ``shown`` is its path as the user wrote it, ``folder`` the user's folder with it, if any."""

    path: Path
    shown: str
    folder: Path | None = None


def find_files(paths: Iterable[str], root: Path | None = None) -> list[Found]:
    """Return the Python files in a list of files and folders, in order, without duplicates."""
    found: dict[Path, Found] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            for one in _below(path, (root or find_root(path / "_.py", path)).resolve()):
                found.setdefault(one.resolve(), Found(one, one.as_posix(), path))
        else:
            found.setdefault(path.resolve(), Found(path, path.as_posix()))
    return list(found.values())


def _below(folder: Path, root: Path) -> Iterator[Path]:
    """Find files as Airflow does, including links to folders if these are in the root. Each folder is read once."""
    seen: set[Path] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(one for one in folders if one not in _SKIPPED and _is_entered(Path(here, one), root))
        for name in sorted(files):
            if name.endswith(".py"):
                yield Path(here) / name


def _is_entered(folder: Path, root: Path) -> bool:
    return not folder.is_symlink() or folder.resolve().is_relative_to(root)


def read_file(path: Path, *, root: Path | None = None, options: Options | None = None, shown: str = "") -> FileModel:
    """Read one file. Never raises for the file's content: a file without a DAG has a ``reason``."""
    base = (root or find_root(path)).resolve()
    files = Files(base, path)
    name = shown or files.relative(path.resolve())
    try:
        text = files.source(path)
        if not _may_hold_dags(text):
            reason = "Airflow does not look at it: it mentions no DAG"
            return FileModel(path=name, root=str(base), reason=reason, is_other=True)
        tree = parse(text, name)
    except (Refused, OSError) as error:
        return FileModel(path=name, root=str(base), reason=str(error))
    except SyntaxError as error:
        return FileModel(path=name, root=str(base), reason=f"it is not valid Python: {error.msg} (line {error.lineno})")
    return _evaluated(Evaluator(files, options or Options()), tree, text, name)


def _may_hold_dags(text: str) -> bool:
    """Airflow's safe mode (``might_contain_dag_via_default_heuristic``): the file must contain both words."""
    lower = text.lower()
    return ("dag" in lower and "airflow" in lower) or ("asset" in lower and "airflow" in lower)


def _evaluated(evaluator: Evaluator, tree: ast.Module, text: str, name: str) -> FileModel:
    with evaluator.trial:
        evaluator.execute(tree, text)
    root = str(evaluator.files.root)
    reads = tuple(sorted(evaluator.files.read - {evaluator.files.relative(evaluator.files.start)}))
    made = evaluator.dags
    shared = tuple(evaluator.warnings)
    if evaluator.reason is not None:
        return FileModel(
            path=name, root=root, reason=evaluator.reason, warnings=shared, reads=reads, steps=evaluator.steps
        )
    dags = [dag_model(dag, name, (*dag.warnings, *shared)) for dag in made]
    reason = None if dags else "no DAG is left in it when it has been imported"
    return FileModel(
        path=name, root=root, dags=tuple(dags), reason=reason, is_other=not dags, warnings=shared, reads=reads,
        steps=evaluator.steps,
    )  # fmt: skip


def _read(found: Found, root: Path | None, options: Options) -> FileModel:
    base = root or find_root(found.path, found.folder)
    try:
        return read_file(found.path, root=base, options=options, shown=found.shown)
    except Exception as error:  # a fault of the reader's: the other files are still read
        where = Place(found.shown, 1, 1)
        warning = DagWarning("unread", f"the reader failed: {type(error).__name__}: {error}", where)
        return FileModel(path=found.shown, root=str(base), reason=warning.text, warnings=(warning,))


def read_files(
    found: Sequence[Found], *, root: Path | None = None, options: Options | None = None, processes: int | None = None
) -> Iterator[FileModel]:
    """Read files in parallel processes, and yield them in order as they become ready."""
    options = options or Options()
    count = min(processes or os.cpu_count() or 1, len(found))
    if count <= 1 or len(found) < 8:
        yield from (_read(one, root, options) for one in found)
        return
    with ProcessPoolExecutor(count) as pool:
        yield from pool.map(
            _read,
            found,
            [root] * len(found),
            [options] * len(found),
            chunksize=max(1, min(16, len(found) // count // 4)),
        )
