"""The zip files beside DAG files: replaced versions of pipelines, and runtimes.

A DAG file needs those that it names. So does a run in progress, although its DAG file was replaced: a task that begins
meanwhile has read the one before. A version is one pipeline's, a runtime any pipeline's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from flowyml.plan.names import slug
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.deployed_dag import bundles_needed
from flowyml_airflow.folder import Folder
from flowyml_airflow.names import BUNDLES_FOLDER, TAG, dag_id, development_id

__all__ = ["has_any_runs", "has_runs", "is_runtime", "is_version", "named_by_dag_files", "remove_unnamed"]

_RUNTIME = re.compile(r"flowyml-[0-9][^-/]*-[0-9a-f]{32}\.pyz")
_VERSION = re.compile(r"([a-z0-9][a-z0-9-]*)-[0-9a-f]{8}\.pyz")


def is_runtime(name: str) -> bool:
    """Return whether a file is a runtime of FlowyML."""
    return _RUNTIME.fullmatch(name) is not None


def is_version(name: str, pipeline: str | None = None) -> bool:
    """Return whether a file is a version of this pipeline, or of any."""
    match = _VERSION.fullmatch(name)
    return match is not None and (pipeline is None or match[1] == slug(pipeline))


def named_by_dag_files(folder: Folder, names: Iterable[str], *, without: Collection[str] = ()) -> set[str]:
    """Return those of these zip files that DAG files need, ``without`` some DAG files."""
    dag_files = [name for name in folder.names() if name.endswith(".py") and name not in without]
    return bundles_needed(names, folder.read_all(dag_files))


def has_runs(client: AirflowClient, pipeline: str) -> bool:
    """Return whether a run of this pipeline is in progress, which may need any version of it."""
    return bool(client.unfinished((dag_id(pipeline), development_id(pipeline))))


def has_any_runs(client: AirflowClient) -> bool:
    """Return whether a run of any pipeline of FlowyML's is in progress, which may need any runtime."""
    dags = [dag["dag_id"] for dag in client.dags(TAG)]
    return bool(dags and client.unfinished(dags))


def remove_unnamed(folder: Folder, name: str) -> int:
    """Remove a zip file that no DAG file names, and return its bytes; 0 if it stays.

    It is put back if a deployment that needs it has written its DAG file meanwhile.
    """
    path = f"{BUNDLES_FOLDER}/{name}"
    data = None if named_by_dag_files(folder, [name]) else folder.read(path)
    if data is None:
        return 0
    folder.remove_own(path)
    if folder.read(path) is not None:
        return 0
    if named_by_dag_files(folder, [name]):
        folder.write(path, data)
        return 0
    return len(data)
