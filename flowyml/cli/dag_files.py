"""DAG files that a command reads: what Airflow would know in them, and what an import makes of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flowyml.cli.failures import UsageError
from flowyml.cli.options import Option
from flowyml.core.errors import MissingExtraError

if TYPE_CHECKING:
    from flowyml.migration.airflow.model import FileModel
    from flowyml.migration.airflow.reader.machine import Options
    from flowyml.migration.airflow.writer.notes import FileResult

__all__ = ["Env", "Root", "Variables", "options_of", "results_of"]

Root = Annotated[
    Path | None,
    Option(("--root",), "The folder that they may read from; else their repository or dags folder.", "DIR"),
]
Env = Annotated[
    list[str] | None,
    Option(("--env",), "A variable of the environment that Airflow would parse them in. Repeatable.", "NAME=VALUE"),
]
Variables = Annotated[
    Path | None, Option(("--variables",), "Airflow's Variables, as `airflow variables export` writes them.", "FILE")
]


def options_of(root: Path | None, env: Iterable[str] | None, variables: Path | None) -> Options:
    """What a reading goes by. Raises ``UsageError`` for options that make no sense."""
    from flowyml.migration.airflow.reader.machine import Options

    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root} is not a folder.")
    return Options(env=_pairs(env or ()), variables=_variables(variables))


def results_of(command: str, files: Sequence[FileModel]) -> Sequence[FileResult]:
    """What an import writes of each file. Raises ``MissingExtraError`` where what writes it is not installed."""
    try:
        from flowyml.migration.airflow.writer.writing import results_of as made_of
    except ModuleNotFoundError as error:
        if error.name != "libcst":
            raise
        raise MissingExtraError(f"{command} needs libcst: pip install 'flowyml[migrate]'.") from error
    return made_of(files)


def _pairs(texts: Iterable[str]) -> Mapping[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, equals, _ in pairs if not equals or not name]:
        raise UsageError(f"--env {wrong[0]}: write NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _variables(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--variables {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--variables {path} does not hold a JSON object.")
    return found
