"""The bundles and runtimes in the DAGs folder that are not needed any more, of any pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from flowyml.core.errors import ConfigurationError, PlanError
from flowyml.core.pruning import Bounds, Prunable, is_unfinished
from flowyml.plan.bundle import Bundle
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.folder import Folder
from flowyml_airflow.names import BUNDLES_FOLDER
from flowyml_airflow.zip_files import has_any_runs, has_runs, is_runtime, is_version, named_by_dag_files, remove_unnamed

__all__ = ["prunable"]


def prunable(folder: Folder | None, client: Callable[[], AirflowClient], bounds: Bounds) -> Iterator[Prunable]:
    """Yield all bundles, and why those in use stay. Raises ``ConfigurationError`` without a folder."""
    if folder is None:
        raise ConfigurationError(
            "FlowyML's old bundles for Airflow are in the DAGs folder: give AirflowOrchestrator(dags_folder=…), or "
            "dags_folder in flowyml.toml."
        )
    yield from _unfinished(folder, bounds)
    names = [name for name in folder.names(BUNDLES_FOLDER) if is_version(name) or is_runtime(name)]
    needed = named_by_dag_files(folder, names)
    for name in names:
        path = f"{BUNDLES_FOLDER}/{name}"
        size, modified = folder.about(path)
        used = bounds.now if modified is None else modified
        kept = "its age is unknown" if modified is None else bounds.keeps(used)
        kept = "a DAG file names it" if name in needed else kept or _needed(folder, client, name)
        yield Prunable(
            kind="runtime" if is_runtime(name) else "bundle", name=name, bytes=size, used=used, kept=kept,
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
    if is_runtime(name):
        return "a run of a pipeline is in progress" if has_any_runs(client()) else ""
    pipeline = _pipeline(folder.read(f"{BUNDLES_FOLDER}/{name}") or b"", name)
    if pipeline is None:
        return "it is not a FlowyML bundle"
    return "a run of its pipeline is in progress" if has_runs(client(), pipeline) else ""


def _pipeline(data: bytes, name: str) -> str | None:
    """Return the pipeline of a bundle whose name matches its content."""
    try:
        bundle = Bundle.of(data, name)
    except PlanError:
        return None
    return bundle.plan.name if bundle.filename == name else None


def _remove(folder: Folder, client: Callable[[], AirflowClient], name: str, bounds: Bounds) -> int:
    _, modified = folder.about(f"{BUNDLES_FOLDER}/{name}")
    if modified is None or bounds.keeps(modified) or _needed(folder, client, name):
        return 0
    return remove_unnamed(folder, name)
