"""The bundles and runtimes in the DAGs folder that are not needed any more, of any pipeline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from flowyml.core.errors import ConfigurationError, PlanError
from flowyml.core.pruning import Bounds, Prunable, is_unfinished
from flowyml.plan.bundle import Bundle
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.deployed_dag import bundles_needed
from flowyml_airflow.folder import Folder
from flowyml_airflow.names import BUNDLES_FOLDER, TAG, dag_id, development_id

__all__ = ["prunable"]

_BUNDLE = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{8}\.pyz")
_RUNTIME = re.compile(r"flowyml-[0-9][^-]*-[0-9a-f]{32}\.pyz")


def prunable(folder: Folder | None, client: Callable[[], AirflowClient], bounds: Bounds) -> Iterator[Prunable]:
    """Yield all bundles, and why those in use stay. Raises ``ConfigurationError`` without a folder."""
    if folder is None:
        raise ConfigurationError(
            "FlowyML's old bundles for Airflow are in the DAGs folder: give AirflowOrchestrator(dags_folder=…), or "
            "dags_folder in flowyml.toml."
        )
    yield from _unfinished(folder, bounds)
    names = folder.names(BUNDLES_FOLDER)
    bundles = [name for name in names if _BUNDLE.fullmatch(name) or _RUNTIME.fullmatch(name)]
    named = _named(bundles, folder)
    for name in bundles:
        path = f"{BUNDLES_FOLDER}/{name}"
        size, modified = folder.about(path)
        used = bounds.now if modified is None else modified
        kept = "its age is unknown" if modified is None else bounds.keeps(used)
        kept = "a DAG file names it" if name in named else kept or _needed(folder, client, name)
        yield Prunable(
            kind="runtime" if _RUNTIME.fullmatch(name) else "bundle", name=name, bytes=size, used=used, kept=kept,
            remove=partial(_remove, folder, client, name, bounds),
        )  # fmt: skip


def _unfinished(folder: Folder, bounds: Bounds) -> Iterator[Prunable]:
    """Yield DAG files and bundles that were not written to their end, since the process died."""
    for place in ("", f"{BUNDLES_FOLDER}/"):
        for name in filter(is_unfinished, folder.names(place.rstrip("/"))):
            path = f"{place}{name}"
            size, changed = folder.about(path)
            kept = "its age is unknown" if changed is None else bounds.keeps_unfinished(changed)
            yield Prunable(
                kind="unfinished", name=path, bytes=size, used=changed or bounds.now, kept=kept,
                remove=partial(_remove_unfinished, folder, path, bounds),
            )  # fmt: skip


def _remove_unfinished(folder: Folder, path: str, bounds: Bounds) -> int:
    size, changed = folder.about(path)
    if changed is None or bounds.keeps_unfinished(changed):
        return 0
    folder.remove_own(path)
    return 0 if folder.about(path)[1] is not None else size


def _needed(folder: Folder, client: Callable[[], AirflowClient], name: str) -> str:
    if _RUNTIME.fullmatch(name):  # a task that has begun names it, although its DAG file was replaced meanwhile
        ours = [dag["dag_id"] for dag in client().dags(TAG)]
        return "a run of a pipeline is in progress" if ours and client().unfinished(ours) else ""
    pipeline = _pipeline(folder.read(f"{BUNDLES_FOLDER}/{name}") or b"", name)
    if pipeline is None:
        return "it is not a FlowyML bundle"
    return (
        "a run of its pipeline is in progress"
        if client().unfinished([dag_id(pipeline), development_id(pipeline)])
        else ""
    )


def _pipeline(data: bytes, name: str) -> str | None:
    """Return the pipeline of a bundle whose name matches its content."""
    try:
        bundle = Bundle.of(data, name)
    except PlanError:
        return None
    return bundle.plan.name if bundle.filename == name else None


def _remove(folder: Folder, client: Callable[[], AirflowClient], name: str, bounds: Bounds) -> int:
    """Remove a bundle. Put it back if a deployment that uses it has written its DAG file meanwhile."""
    path = f"{BUNDLES_FOLDER}/{name}"
    _, modified = folder.about(path)
    if modified is None or bounds.keeps(modified) or _named([name], folder) or _needed(folder, client, name):
        return 0
    data = folder.read(path)
    if data is None:
        return 0
    folder.remove_own(path)
    if folder.read(path) is not None:
        return 0
    if _named([name], folder):
        folder.write(path, data)
        return 0
    return len(data)


def _named(bundles: Sequence[str], folder: Folder) -> set[str]:
    """Return the bundles that DAG files need."""
    return bundles_needed(bundles, folder.read_all([name for name in folder.names() if name.endswith(".py")]))
