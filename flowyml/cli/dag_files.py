"""Read DAG files for a command: their content as Airflow would know it, and the result of importing them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flowyml.cli.errors import UsageError
from flowyml.cli.options import Option
from flowyml.core.errors import MissingExtraError

if TYPE_CHECKING:
    from flowyml.migration.airflow.model import FileModel
    from flowyml.migration.airflow.reader.machine import Options
    from flowyml.migration.airflow.writer.notes import FileResult

__all__ = ["Env", "Root", "Stay", "Variables", "options_of", "results_of", "staying_of"]

Root = Annotated[
    Path | None,
    Option(("--root",), "The folder that DAG files may read from; by default their repository or DAGs folder.", "DIR"),
]
Env = Annotated[
    list[str] | None,
    Option(("--env",), "An environment variable that the files see when they are read. Repeatable.", "NAME=VALUE"),
]
Variables = Annotated[
    Path | None, Option(("--variables",), "Airflow's Variables, as `airflow variables export` writes them.", "FILE")
]
Stay = Annotated[
    Path | None,
    Option(("--stay",), "A YAML file that lists, for each DAG, the tasks that stay on Airflow.", "FILE"),
]


def options_of(root: Path | None, env: Iterable[str] | None, variables: Path | None) -> Options:
    """Return the options of a reading. Raises ``UsageError`` for invalid ones."""
    from flowyml.migration.airflow.reader.machine import Options

    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root} is not a folder.")
    return Options(env=_pairs(env or ()), variables=_variables(variables))


def staying_of(path: Path | None, files: Sequence[FileModel]) -> Mapping[str, Sequence[str]]:
    """Return the tasks that stay on Airflow, by DAG. Raises ``UsageError`` for tasks that do not exist."""
    if path is None:
        return {}
    from flowyml.core.near_names import did_you_mean

    known: dict[str, list[str]] = {}
    for dag in (dag for file in files for dag in file.dags):
        known.setdefault(dag.dag_id, []).extend(task.task_id for task in dag.tasks)
    lists = _lists(path)
    for dag_id, names in lists.items():
        if dag_id not in known:
            raise UsageError(f"--stay {path}: the files define no DAG {dag_id!r}.{did_you_mean(dag_id, known)}")
        for name in names:
            if name not in known[dag_id]:
                near = did_you_mean(name, known[dag_id])
                raise UsageError(f"--stay {path}: the DAG {dag_id!r} has no task {name!r}.{near}")
    return lists


def _lists(path: Path) -> Mapping[str, list[str]]:
    """Read lists of names by name from a YAML file."""
    from flowyml.migration.airflow.reader.files import parse_yaml, repeated_key

    try:
        text = path.read_text(encoding="utf-8")
        lists = parse_yaml(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"--stay {path} cannot be read: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "yaml":
            raise
        raise UsageError(f"--stay {path} is not YAML: {' '.join(str(error).split())}") from error
    is_known = isinstance(lists, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in (key, *names)) for key, names in lists.items()
    )
    if not is_known:
        raise UsageError(f"--stay {path}: write a list of task ids for each DAG, such as `sales: [load, clean]`. An id "
                         "that YAML takes for something else, such as yes or 2024, needs quotes.")  # fmt: skip
    if (twice := repeated_key(text)) is not None:
        raise UsageError(f"--stay {path}: {twice!r} appears twice. Write one list of its tasks.")
    return dict(lists)


def results_of(
    command: str, files: Sequence[FileModel], staying: Mapping[str, Sequence[str]] = {}
) -> Sequence[FileResult]:
    """Import each file. Raises ``MissingExtraError`` if the writer's library is not installed.

    ``staying`` are the tasks that stay on Airflow, by DAG.
    """
    try:
        from flowyml.migration.airflow.writer.writing import results_of as made_of
    except ModuleNotFoundError as error:
        if error.name != "libcst":
            raise
        raise MissingExtraError(f"{command} needs libcst: pip install 'flowyml[migrate]'.") from error
    return made_of(files, staying)


def _pairs(texts: Iterable[str]) -> Mapping[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, equals, _ in pairs if not equals or not name]:
        raise UsageError(f"--env {wrong[0]}: write NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _variables(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        variables = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--variables {path} cannot be read: {error}") from error
    if not isinstance(variables, dict):
        raise UsageError(f"--variables {path} does not hold a JSON object.")
    return variables
