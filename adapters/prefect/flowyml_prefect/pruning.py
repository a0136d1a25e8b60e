"""Remove the traces of Prefect's runs on this machine, and on the server that FlowyML started itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.artifacts import open_store
from flowyml.artifacts.housekeeping import discard, stored
from flowyml.core.errors import PlanError
from flowyml.core.files import write_whole
from flowyml.core.locks import lock
from flowyml.core.pruning import Bounds, Prunable, is_unfinished
from flowyml.core.removal import files_below, names_in, remove, remove_leftovers
from flowyml.orchestrators.http import NotFoundError
from flowyml.plan.names import slug
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.names import flow_name, is_of_one_version
from flowyml_prefect.reader import PrefectReader
from flowyml_prefect.records import FlowRun, as_id
from flowyml_prefect.status import status_of

__all__ = ["PRUNED", "Leftovers", "flow_places", "note_server", "version_folder"]

PRUNED = "flowyml.pruned"
"""The label of a run that is being removed, and cannot be run again."""

_SERVER = ".server-"
_WRITTEN = ("flow.py", "again.py", "__pycache__")  # and a bundle, and which servers were given it
_IN_PROGRESS = "it is in progress"


def version_folder(pipeline: str, version: str) -> str:
    """Return the name of the folder for a version of a pipeline's flow."""
    return f"{slug(pipeline)}-{version}"


def flow_places(deployment: Mapping[str, Any]) -> list[Path]:
    """Return the folders in which the workers of a deployment find its flow.

    The last part is the ``version_folder``.
    """
    pulls = [settings for pull in deployment.get("pull_steps") or () for settings in pull.values()]
    return [Path(settings.get("directory") or settings.get("url") or "") for settings in pulls]


def note_server(folder: Path, server: str) -> None:
    """Record that a server uses the flow in a folder."""
    mark = folder / _mark(server)
    if not mark.exists():
        write_whole(mark, server.encode(), 0o600)
    os.utime(folder)


def _mark(server: str) -> str:
    return f"{_SERVER}{hashlib.sha256(server.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Leftovers:
    """The files in ``home``; with ``is_own`` the server is one that FlowyML started, whose old runs are removed too.

    ``server`` is the name of this server in the folders of flows; ``store`` is the store of large outputs.
    """

    reader: PrefectReader
    home: Path
    server: str
    store: str
    bounds: Bounds
    is_own: bool

    @property
    def client(self) -> PrefectClient:
        return self.reader.client

    def __iter__(self) -> Iterator[Prunable]:
        runs = self.client.begun_runs()
        going: set[str] = set()
        for run in runs if self.is_own else ():
            kept = _IN_PROGRESS if not _has_ended(run) else self.bounds.keeps(_used(run))
            if not kept:
                going.add(run.id)
            size = sum(found.size for found in stored(open_store(self.store), self.reader.place_of(run)))
            yield Prunable(
                kind="run", name=run.name, bytes=size, used=_used(run), kept=kept, remove=partial(self._remove_run, run)
            )
        needed = self._needed([run for run in runs if run.id not in going], self.client.deployments())
        remove_leftovers(self.home / "flows")
        for name in names_in(self.home, "flows"):
            yield self._flow(name, needed)
        yield from self._logs()

    # Runs.

    def _remove_run(self, run: FlowRun) -> int:
        """Remove a run. Its label forbids to run it again meanwhile, unless the run stays after all.

        The run itself is removed last, so that an interruption here leaves nothing unknown.
        """
        goes = False
        try:
            self.client.label_run(run.id, {PRUNED: True})
            try:
                fresh = self.client.run(run.id)
                goes = _has_ended(fresh) and not self.bounds.keeps(_used(fresh))
            finally:
                if not goes:
                    self.client.label_run(run.id, {PRUNED: False})
        except NotFoundError:
            return 0
        if not goes:
            return 0
        store = open_store(self.store)
        artifacts = list(stored(store, self.reader.place_of(fresh)))
        freed = sum(discard(store, artifact.key, unless_since=self.bounds.before) for artifact in artifacts)
        freed += remove(self.home, "runs", f"{run.id}.log")
        self.client.delete_run(run.id)
        return freed

    # Compiled flows.

    def _flow(self, name: str, needed: Mapping[str, str]) -> Prunable:
        files = list(files_below(self.home, "flows", name))
        used = max((file.modified for file in files), default=0.0)
        return Prunable(
            kind="flow", name=name, bytes=sum(file.size for file in files), used=used,
            kept=needed.get(name, "") or self.bounds.keeps(used) or self._others(name),
            remove=partial(self._remove_flow, name),
        )  # fmt: skip

    def _needed(self, runs: list[FlowRun], deployments: list[dict[str, Any]]) -> dict[str, str]:
        """Return the folders that the server needs, and the reason for each."""
        needed: dict[str, str] = {}
        for run in runs:
            ended, went_well = _has_ended(run), run.state_type == "COMPLETED"
            if run.version and not went_well:
                folder = version_folder(self.reader.record(run).pipeline, run.version)
                needed[folder] = f"run {run.name!r} can be retried" if ended else f"run {run.name!r} is in progress"
        for deployment in deployments:
            for place in flow_places(deployment):
                if place != self.home / "flows" / place.name or not self._is_done_with(deployment):
                    needed[place.name] = f"deployment {deployment['name']!r} runs it"
        return needed

    def _is_done_with(self, deployment: Mapping[str, Any]) -> bool:
        """Return whether a deployment was only for the runs of one version, on a work pool, and all of them have ended.

        Such a deployment is removed with its flow. Others are started by people and schedules too.
        """
        is_for_runs = is_of_one_version(deployment["name"], deployment.get("version") or "")
        return is_for_runs and not self.client.has_unfinished_runs(deployment["id"])

    def _others(self, name: str) -> str:
        """Say why a folder that nothing on this server needs may belong to another server or another program."""
        inside = names_in(self.home, "flows", name)
        servers = {entry for entry in inside if entry.startswith(_SERVER)}
        bundles = {entry for entry in inside if entry.endswith(".pyz")}
        if self._bundle(name, bundles) is None:
            return "it does not contain a FlowyML flow"
        if any(not is_unfinished(entry) for entry in {*inside} - servers - bundles - {*_WRITTEN}):
            return "it contains files that FlowyML did not write"
        if servers != {_mark(self.server)}:
            return "another server may run it" if servers else "the server that runs it was not recorded"
        return ""

    def _bundle(self, name: str, bundles: set[str]) -> str | None:
        """Return the pipeline of the one bundle in a folder, if the folder's name matches the bundle."""
        from flowyml.plan.bundle import Bundle

        with suppress(OSError, PlanError, ValueError):
            (only,) = bundles
            bundle = Bundle.read(self.home / "flows" / name / only)
            if name == version_folder(bundle.plan.name, bundle.digest[:16]):
                return bundle.plan.name
        return None

    def _remove_flow(self, name: str) -> int:
        pipeline = self._bundle(name, {file for file in names_in(self.home, "flows", name) if file.endswith(".pyz")})
        if pipeline is None or self._others(name):
            return 0
        flow = flow_name(pipeline)
        deployments = self.client.deployments(flow)
        if name in self._needed(self.client.begun_runs(flow), deployments):
            return 0
        folder = self.home / "flows" / name
        if self.bounds.keeps(folder.stat().st_mtime):  # published again, for a run that the server has not got yet
            return 0
        for deployment in deployments:
            if folder in flow_places(deployment):
                self.client.delete_deployment(deployment["id"])
        return remove(self.home, "flows", name, unless_since=self.bounds.before)

    # The output of processes of runs that failed.

    def _logs(self) -> Iterator[Prunable]:
        for name in names_in(self.home, "runs"):
            file = next(files_below(self.home, "runs", name), None)
            if file is not None and as_id(name.removesuffix(".log")):
                with _locked(self.home / "runs" / name) as is_free:
                    kept = self.bounds.keeps(file.modified) if is_free else "a process is writing to it"
                yield Prunable(
                    kind="log", name=name, bytes=file.size, used=file.modified, kept=kept,
                    remove=partial(self._remove_log, name),
                )  # fmt: skip

    def _remove_log(self, name: str) -> int:
        with _locked(self.home / "runs" / name) as is_free:
            return remove(self.home, "runs", name, unless_since=self.bounds.before) if is_free else 0


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Yield whether no process has a log open: a process that writes to one shares a lock on it (``runner.launch``)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        yield lock(descriptor) is True  # without locks on the file system, a log stays
    finally:
        os.close(descriptor)


def _has_ended(run: FlowRun) -> bool:
    return status_of(run.state_type, run.state_name).is_terminal


def _used(run: FlowRun) -> float:
    return (run.end_time or run.start_time or run.created or datetime.now(UTC)).timestamp()
