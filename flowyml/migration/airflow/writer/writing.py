"""Write the modules for the files that were read into a folder. No name in a DAG file determines a path."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import decode_source
from pathlib import Path, PurePosixPath

from flowyml.core.errors import ConfigurationError
from flowyml.core.files import whole_file
from flowyml.migration.airflow.model import FileModel, Place
from flowyml.migration.airflow.writer.copying import repository_of
from flowyml.migration.airflow.writer.deciding.staying import Staying
from flowyml.migration.airflow.writer.notes import MARK, DagResult, FileResult, Kind, Note
from flowyml.migration.airflow.writer.repository import Import, Module
from flowyml.migration.airflow.writer.text.modules import write_module

_RESERVED = frozenset({"airflow", "flowyml", "flowyml_airflow", "flowyml_kubeflow", "flowyml_prefect", "__init__"})


def results_of(files: Iterable[FileModel], staying: Staying = {}) -> Sequence[FileResult]:
    """Return the result for each file: its module's text and path, or the reason why it has none.

    ``staying`` are the tasks of each DAG that stay on Airflow.
    """
    results = list(_results_of(files, staying))
    found = namesakes(results)
    return [replace(file, dags=[_with_namesakes(dag, found) for dag in file.dags]) for file in results]


def namesakes(results: Iterable[FileResult]) -> Mapping[str, Sequence[Place]]:
    """Return the ids that DAGs of several files share, and their source locations."""
    found: dict[str, dict[Place, None]] = {}
    for dag in (dag for file in results for dag in file.dags if "{" not in dag.dag_id):  # one that is known
        found.setdefault(dag.dag_id, {})[dag.place] = None
    return {dag_id: [*places] for dag_id, places in found.items() if len({each.path for each in places}) > 1}


def _with_namesakes(dag: DagResult, found: Mapping[str, Sequence[Place]]) -> DagResult:
    """Add to a DAG a warning about DAGs of other files with its id."""
    others = [str(place) for place in found.get(dag.dag_id, ()) if place.path != dag.place.path]
    if not others:
        return dag
    note = Note(
        Kind.CHANGED, "dag_id", dag.place, f"other files have it too, and Airflow keeps one DAG: {', '.join(others)}",
        "Give each its own id.",
    )  # fmt: skip
    return replace(dag, notes=[*dag.notes, note])


def _results_of(files: Iterable[FileModel], staying: Staying) -> Iterator[FileResult]:
    taken: set[str] = set()
    known: dict[Module, Sequence[Import]] = {}
    for file in files:
        if not file.dags:
            yield FileResult(file.path, reason=file.reason or "")
            continue
        try:
            original = decode_source(Path(file.path).read_bytes())
            repository = repository_of(file, known)
            made = write_module(file, original, repository, staying)
            _check(made.text)
        except Exception as error:  # of the writer's: the other files are still written
            reason = f"it could not be written: {type(error).__name__}: {error}"
            yield FileResult(file.path, reason=reason, is_failed=True)
            continue
        module = _module_path(repository.start, taken) if made.text else ""
        yield FileResult(file.path, original, made.text, module, made.dags)


def _check(text: str) -> None:
    """Raise Python's error for a module that it cannot compile: no text of a DAG file may cause one."""
    with warnings.catch_warnings(action="ignore"):
        compile(text, "<module>", "exec", dont_inherit=True)


def check_free(folder: Path, names: Iterable[str], *, copies: Mapping[str, bytes] = {}, force: bool = False) -> None:
    """Raise ``ConfigurationError`` for a file that would be overwritten, and for a folder that leads elsewhere.

    Copies have no mark: an existing file with other content may not be overwritten by one.
    """
    root = folder.resolve()
    for name in (*names, *copies):
        path = root / name
        if not path.parent.resolve().is_relative_to(root) or path.is_symlink():
            raise ConfigurationError(f"{path} leads out of {folder}: a link is in the way. Remove it.")
        if force or not path.exists():
            continue
        if name in copies and path.read_bytes() != copies[name]:
            raise ConfigurationError(f"{path} is there, and differs from the module whose copy goes there. "
                                     "--force replaces it.")  # fmt: skip
        if name not in copies and MARK not in path.read_text(encoding="utf-8", errors="replace"):
            raise ConfigurationError(f"{path} is there, and FlowyML did not write it. --force replaces it.")


def write_into(
    folder: Path, texts: Mapping[str, str], *, copies: Mapping[str, bytes] = {}, force: bool = False
) -> None:
    """Write files below a folder, all or nothing. Files that FlowyML did not write stay, unless ``force``.

    A text is computed when it is written. Raises ``ConfigurationError`` as ``check_free`` does, before the first one.
    """
    check_free(folder, texts, copies=copies, force=force)
    root = folder.resolve()
    for name in (*texts, *copies):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(copies[name] if name in copies else texts[name].encode("utf-8", "backslashreplace"))


def _module_path(path: str, taken: set[str]) -> str:
    """Return the path of a module below the output folder: Python can import it, and it hides no other module.

    >>> _module_path("team a/../etl-daily.py", set()), _module_path("json.py", {"json_pipeline.py"})
    ('team_a/etl_daily.py', 'json_pipeline_2.py')
    """
    *folders, last = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    parts = [_name(part) for part in folders]
    stem = _name(last.removesuffix(".py"))
    first = "/".join([*parts, stem])
    found, number = f"{first}.py", 1
    while found.lower() in taken:
        number += 1
        found = f"{first}_{number}.py"
    taken.add(found.lower())
    return found


def _name(text: str) -> str:
    plain = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower() or "pipelines"
    plain = f"_{plain}" if plain[0].isdigit() else plain
    return f"{plain}_pipeline" if plain in _RESERVED or plain in sys.stdlib_module_names else plain[:100]
