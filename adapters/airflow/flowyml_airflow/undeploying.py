"""Take a pipeline, or its old versions, out of a DAGs folder: DAG files, the code, and what no other DAG file needs.

Airflow keeps the records of its runs, unless they are deleted with it, or later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from flowyml.core.errors import ConfigurationError, DeploymentError, EngineUnreachableError, OwnershipError
from flowyml.plan.marks import mark_of
from flowyml_airflow.beside import bundle_in
from flowyml_airflow.client import AirflowClient, NotThereError
from flowyml_airflow.deployed_dag import Deployed
from flowyml_airflow.folder import Folder
from flowyml_airflow.names import BUNDLES_FOLDER, dag_id, development_id
from flowyml_airflow.zip_files import has_any_runs, has_runs, is_runtime, is_version, named_by_dag_files, remove_unnamed

__all__ = ["files_of", "known_dags", "remove_old_bundles", "take_away"]


def known_dags(client: AirflowClient, dags: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return those of these DAGs of which Airflow has records, also without a file, and that FlowyML wrote."""
    rows = []
    for dag in dags:
        with suppress(NotThereError):
            rows.append(Deployed(client.row(dag), client))
    return [deployed.dag for deployed in rows if deployed.is_ours]


def files_of(
    folder: Folder, pipeline: str, client: Callable[[], AirflowClient] | None, *,
    force: bool = False, may_be_none: bool = False,
) -> list[str]:  # fmt: skip
    """Return the files of a pipeline in a DAGs folder, its DAG files first; all are FlowyML's.

    ``client`` is None if no Airflow runs the folder: no run needs a runtime in it then.

    Raises ``DeploymentError`` without a DAG file, unless there ``may_be_none``; ``ConfigurationError`` for a DAG file
    that is not this pipeline's; and without ``force`` ``OwnershipError`` for files that were changed by hand.
    """
    dag_files: list[str] = []
    code: list[str] = []
    runtimes: set[str] = set()
    for dag in (dag_id(pipeline), development_id(pipeline)):
        data = folder.read(f"{dag}.py")
        if data is None:
            continue
        mark = mark_of(data)
        if mark is None or mark.facts.get("pipeline") != pipeline:
            raise ConfigurationError(
                f"{dag}.py in {folder.name} is not the DAG file of pipeline {pipeline!r}, or its last line was "
                f"changed. Remove it yourself if you do not need it."
            )
        if not force and (not mark.is_untouched or bundle_in(folder.read, {**mark.facts, "bundle_file": ""}) is None):
            raise OwnershipError(
                f"{dag}.py in {folder.name}, or a file of its code, was changed by hand or is missing. To remove the "
                f"pipeline all the same, use --force."
            )
        dag_files.append(f"{dag}.py")
        code += [path for path in _code(mark.facts, dag) if folder.read(path) is not None]
        runtimes.add(str(mark.facts.get("runtime")))
    if not (dag_files or may_be_none):
        raise DeploymentError(
            f"{folder.name} has no DAG file of pipeline {pipeline!r}. If it was removed, --runs deletes the records of "
            f"its runs as soon as Airflow has noticed that."
        )
    zip_files = _zip_files(folder, pipeline, dag_files, runtimes)
    if client and any(map(is_runtime, zip_files)) and _may_be_in_use(client, force=force):
        zip_files = [name for name in zip_files if not is_runtime(name)]
    return [*dag_files, *code, *(f"{BUNDLES_FOLDER}/{name}" for name in zip_files)]


def _may_be_in_use(client: Callable[[], AirflowClient], *, force: bool) -> bool:
    """Return whether a run may need a runtime; with ``force`` also if Airflow does not answer."""
    try:
        return has_any_runs(client())
    except EngineUnreachableError:
        if not force:
            raise
        return True


def _code(facts: Mapping[str, Any], dag: str) -> Iterator[str]:
    """Yield the plain files that a DAG file lists, as far as they are in the folder of this DAG's code."""
    for path in map(str, facts.get("files", ())):
        if path.startswith(f"{BUNDLES_FOLDER}/{dag}/") and not {"", ".", ".."} & {*path.split("/")}:
            yield path


def _zip_files(folder: Folder, pipeline: str, dag_files: Sequence[str], runtimes: set[str]) -> list[str]:
    """Return the replaced versions of a pipeline, and its ``runtimes``, unless another DAG file names them."""
    names = [
        name
        for name in folder.names(BUNDLES_FOLDER)
        if is_version(name, pipeline) or (is_runtime(name) and name in runtimes)
    ]
    needed = named_by_dag_files(folder, names, without=dag_files)
    return [name for name in names if name not in needed]


def take_away(folder: Folder, paths: Sequence[str]) -> None:
    """Remove these files in order, and the folders that are empty then. Raises ``ConfigurationError`` if one stays.

    A file of another user stays, and one that is reached through a link; and a runtime that a deployment needs now.
    """
    remaining: list[str] = []
    for path in paths:
        name = path.removeprefix(f"{BUNDLES_FOLDER}/")
        if is_runtime(name):
            remove_unnamed(folder, name)
        else:
            folder.remove_own(path)
        if folder.read(path) is not None and not (is_runtime(name) and named_by_dag_files(folder, [name])):
            remaining.append(path)
    if remaining:
        raise ConfigurationError(f"These files of {folder.name} could not be removed: {', '.join(remaining)}.")


def remove_old_bundles(folder: Folder, client: AirflowClient, pipeline: str, keep: Collection[str]) -> Sequence[str]:
    """Remove a pipeline's bundles, except those that a DAG file names and those to ``keep``; return the removed ones.

    ``keep`` has the bundle that was just deployed and the one before, which a starting task or a callback of a run that
    has just ended may be loading. While the pipeline has a run that has not ended, nothing is removed: the tasks of
    that run may have started with any version.
    """
    old = [name for name in folder.names(BUNDLES_FOLDER) if is_version(name, pipeline) and name not in keep]
    if not old or has_runs(client, pipeline):
        return ()
    needed = named_by_dag_files(folder, old)
    gone = [name for name in old if name not in needed]
    for name in gone:
        folder.remove(f"{BUNDLES_FOLDER}/{name}")
    return gone
