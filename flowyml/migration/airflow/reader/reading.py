"""Read files: one, or all below some folders, in parallel; and their DAGs as JSON."""

from __future__ import annotations

import ast
import os
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_start_method, parent_process
from pathlib import Path
from typing import Any

from flowyml.core.errors import MissingExtraError
from flowyml.migration.airflow.model import DagModel, DagWarning, FileModel, Place, Symbolic, TaskModel
from flowyml.migration.airflow.reader.evaluator import Evaluator, parse
from flowyml.migration.airflow.reader.files import Files, Refused, find_root
from flowyml.migration.airflow.reader.machine import Options
from flowyml.migration.airflow.reader.modelling import dag_model

__all__ = ["Found", "documents", "find_files", "read_file", "read_files"]

_SKIPPED = frozenset({".git", "__pycache__", "node_modules", ".venv", "venv", ".tox", ".mypy_cache", "site-packages"})

_SECONDS = 300  # of processor time for a file, in a process of its own: the other bounds end almost all much earlier
_MEGABYTES = 8000  # of such a process


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
        links = {one for one in folders if Path(here, one).is_symlink()}
        out = {one for one in links if not Path(here, one).resolve().is_relative_to(root)}
        folders[:] = sorted({*folders} - _SKIPPED - out)
        for name in sorted(files):
            if name.endswith(".py"):
                yield Path(here) / name


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
    """Return whether Airflow reads a file in its safe mode (``might_contain_dag_via_default_heuristic``)."""
    lower = text.lower()
    return ("dag" in lower and "airflow" in lower) or ("asset" in lower and "airflow" in lower)


def _evaluated(evaluator: Evaluator, tree: ast.Module, text: str, name: str) -> FileModel:
    with evaluator.trial:
        evaluator.execute(tree, text)
    root = str(evaluator.files.root)
    added = tuple(map(evaluator.files.relative, evaluator.files.added))
    made = evaluator.dags
    shared = tuple(evaluator.warnings)
    if evaluator.reason is not None:
        return FileModel(path=name, root=root, reason=evaluator.reason, warnings=shared, steps=evaluator.steps)
    dags = [dag_model(dag, name, (*dag.warnings, *shared)) for dag in made]
    reason = None if dags else "no DAG is left in it when it has been imported"
    return FileModel(
        path=name, root=root, dags=tuple(dags), reason=reason, is_other=not dags, warnings=shared,
        added=added, steps=evaluator.steps,
    )  # fmt: skip


def _read(found: Found, root: Path | None, options: Options) -> FileModel:
    base = root or find_root(found.path, found.folder)
    try:
        if parent_process() is not None:
            _limit("RLIMIT_CPU", int(time.process_time()) + _SECONDS)
        return read_file(found.path, root=base, options=options, shown=found.shown)
    except MissingExtraError:
        raise
    except Exception as error:  # a fault of the reader's: the other files are still read
        return _unread(found, base, f"the reader failed: {type(error).__name__}: {error}")


def _unread(found: Found, root: Path, why: str) -> FileModel:
    warning = DagWarning("unread", why, Place(found.shown, 1))
    return FileModel(path=found.shown, root=str(root), reason=why, warnings=(warning,))


def read_files(
    found: Sequence[Found], *, root: Path | None = None, options: Options | None = None, processes: int | None = None
) -> Iterator[FileModel]:
    """Read files in parallel processes, and yield them in order as they become ready.

    The kernel ends a process whose file takes it beyond its limits of memory and processor time; the file is then named
    as not read, and the others are read. Where Python does not fork, the limits hold for eight files or more.
    """
    options, left = options or Options(), [*found]
    if len(left) < 8 and get_start_method() != "fork":  # another start takes longer than reading them
        yield from (_read(one, root, options) for one in left)
        return
    while left:
        count = min(processes or os.cpu_count() or 1, len(left))
        chunk = max(1, min(16, len(left) // count // 4))
        try:
            with ProcessPoolExecutor(count, initializer=_limit_all) as pool:
                for file in pool.map(_read, left, [root] * len(left), [options] * len(left), chunksize=chunk):
                    yield file
                    del left[0]
        except BrokenProcessPool:  # by one of the files that were being read
            for one in left[: count * chunk]:
                yield _read_alone(one, root, options)
                del left[0]


def _read_alone(one: Found, root: Path | None, options: Options) -> FileModel:
    try:
        with ProcessPoolExecutor(1, initializer=_limit_all) as pool:
            return pool.submit(_read, one, root, options).result()
    except BrokenProcessPool:
        why = f"reading it took more than {_SECONDS} s of processor time, or ended the process"
        return _unread(one, root or find_root(one.path, one.folder), why)


def _limit_all() -> None:
    """Limit this process, which reads files and does nothing else."""
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_AS", _MEGABYTES * 1_000_000)


def _limit(name: str, soft: int) -> None:
    """Set a limit of this process."""
    with suppress(ValueError, OSError):  # not on every system
        kind = getattr(resource, name)
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def documents(file: FileModel) -> Iterator[dict[str, Any]]:
    """Yield what ``flowyml import airflow --json`` prints: each DAG of a file, or the reason why it has none."""
    if not file.dags:
        yield {
            "path": file.path,
            "dag_id": None,
            "reason": file.reason,
            "warnings": [str(one) for one in file.warnings],
        }
    yield from (_dag(dag) for dag in file.dags)


def _dag(dag: DagModel) -> dict[str, Any]:
    return {
        "path": dag.path,
        "dag_id": dag.dag_id,
        "dag_id_known": dag.id_known,
        "line": dag.place.line,
        "schedule": dag.schedule if dag.schedule_known else "?",
        "schedule_omitted": dag.schedule_omitted,
        "timezone": dag.timezone,
        "catchup": dag.catchup,
        "tags": list(dag.tags),
        "tasks": [_task(task) for task in dag.tasks],
        "warnings": [str(one) for one in dag.warnings],
    }


def _task(task: TaskModel) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "task_id_known": task.id_known,
        "operator": task.operator,
        "module": task.import_path.rpartition(".")[0],
        "line": task.place.line,
        "upstream": list(task.upstream),
        "trigger_rule": _plain(task.trigger_rule),
        "retries": _plain(task.retries),
        "retry_delay": _plain(task.retry_delay),
        "execution_timeout": _plain(task.execution_timeout),
        "mapped": task.mapped,
        "in_mapped_group": task.in_mapped_group,
        "group": task.group,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Symbolic):
        return "{" + value.source + "}"
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
