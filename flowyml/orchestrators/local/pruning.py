"""Prune the data of local runs: their records and outputs, bundles, unpacked code."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flowyml.artifacts import default_url, open_store, run_place
from flowyml.artifacts.housekeeping import Stored, discard, is_artifact, stored
from flowyml.artifacts.store import Store
from flowyml.core.errors import ArtifactError, ConfigurationError, PlanError
from flowyml.core.process_identity import ProcessIdentity, is_alive
from flowyml.core.pruning import Bounds, Prunable, bounded, unfinished
from flowyml.core.removal import files_below, names_in, remove, remove_leftovers
from flowyml.orchestrators.local.bundles import records
from flowyml.orchestrators.local.outputs import entries_in
from flowyml.orchestrators.local.schema import transaction
from flowyml.orchestrators.local.store import PRUNED, UNFINISHED, RunStore
from flowyml.plan.bundle import Bundle
from flowyml.plan.names import slug
from flowyml.runtime.unpacking import caches, claim

__all__ = ["prunable"]

_BUNDLE = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{8}\.pyz")
_UNPACKED = re.compile("[0-9a-f]{64}")
_IN_PROGRESS = "it is in progress"
_LINES = 10_000  # that are deleted at once: a writer waits for that long
_PAGES_FREE = 0.5  # of a file that is then shrunk
_WORTH_IT, _TOO_LARGE = 1_000_000, 1_000_000_000  # bytes of it


class _Run(NamedTuple):
    number: int
    run_id: str
    pipeline: str
    status: str
    raw_status: str
    used: float
    process: ProcessIdentity
    detached: bool


def prunable(store: RunStore, home: Path, bounds: Bounds) -> Iterator[Prunable]:
    """Yield the data in a database, and in FlowyML's data and cache folders; runs first, which free the rest."""
    remove_leftovers(home / "bundles")
    remove_leftovers(store.folder_of("-").parent)
    runs = _Runs(store, bounds)
    yield from runs
    yield from _left_folders(store, bounds)
    yield from _left_artifacts(store, bounds)
    yield from _bundles(store, home / "bundles", bounds, runs.going)
    yield from unfinished(home / "bundles", bounds)
    yield from _record(store, runs.going)
    yield from bounded(_unpacked(bounds), bounds)


@dataclass
class _Runs:
    """The runs of a database. Those to be removed are in ``going`` after they were checked."""

    store: RunStore
    bounds: Bounds

    def __post_init__(self) -> None:
        self.going: set[int] = set()

    def __iter__(self) -> Iterator[Prunable]:
        self._settle()
        with self.store.session() as db:
            rows = db.execute(
                "SELECT number, run_id, pipeline, status, raw_status, coalesce(ended, started, created), host, pid,"
                " born, detached FROM runs ORDER BY number"
            )
            runs = [
                _Run(number, run_id, pipeline, status, raw, used, ProcessIdentity(host, pid, born), bool(detached))
                for number, run_id, pipeline, status, raw, used, host, pid, born, detached in rows
            ]
            sizes = dict(
                db.execute(
                    "SELECT number, length(steps) + length(parameters) + length(outputs) + coalesce((SELECT"
                    " sum(length(message) + 40) FROM lines WHERE run = number), 0) FROM runs"
                ).fetchall()
            )
            large = {
                number: sum(int(entry.get("size") or 0) for _, entry in _artifacts_in(outputs))
                for number, outputs in db.execute("SELECT number, outputs FROM runs WHERE outputs LIKE '%$artifact%'")
            }
        for run in runs:
            kept = self._kept(run)
            if not kept:
                self.going.add(run.number)
            files = sum(file.size for file in files_below(*self._folder(run)))
            size = sizes.get(run.number, 0) + large.get(run.number, 0) + files
            yield Prunable(
                kind="run", name=run.run_id, bytes=size, used=run.used, kept=kept, remove=partial(self._remove, run)
            )

    def _settle(self) -> None:
        """Record the end of runs whose process has died."""
        with self.store.session() as db:
            unfinished = db.execute(f"SELECT run_id FROM runs WHERE {UNFINISHED}").fetchall()
            for (run_id,) in unfinished:
                self.store.find(run_id)

    def _kept(self, run: _Run) -> str:
        if run.status in ("QUEUED", "RUNNING"):
            return _IN_PROGRESS
        if kept := self.bounds.keeps(run.used):
            return kept
        return "its process is still running" if run.detached and is_alive(run.process) else ""

    def _folder(self, run: _Run) -> tuple[Path, str]:
        folder = self.store.folder_of(run.run_id)
        return folder.parent, folder.name

    def _remove(self, run: _Run) -> int:
        """Remove a run. Once it is marked, it cannot be retried.

        Its row is removed last, so that a process that is killed here leaves nothing unrecorded.
        """
        with self.store.session() as db:
            marked = db.execute(
                f"UPDATE runs SET raw_status = ? WHERE number = ? AND run_id = ? AND NOT {UNFINISHED}"
                " AND coalesce(ended, started, created) < ?",
                (PRUNED, run.number, run.run_id, self.bounds.before),
            )
            if marked.rowcount != 1:
                return 0
            row = db.execute("SELECT outputs FROM runs WHERE number = ? AND run_id = ?", run[:2]).fetchone()
            files = list(_artifacts_in(row[0])) if row else []
            freed = sum(self._discard(run, url, entry) for url, entry in files)
            freed += remove(*self._folder(run))
            return freed + self._delete(run)

    def _discard(self, run: _Run, url: str, entry: Mapping[str, Any]) -> int:
        """Remove an artifact if this run wrote it: an output may also be another run's artifact."""
        store = open_store(entry["store"])
        key = url.removeprefix(f"{store.url}/")
        is_its_own = is_artifact(key) and key.split("/")[1:3] == run_place("", run.pipeline, run.run_id).split("/")[1:3]
        if not store.holds(url) or not is_its_own:
            return 0
        return discard(store, key, unless_since=self.bounds.before)

    def _delete(self, run: _Run) -> int:
        """Delete rows, few at a time. Numbers are reused, so each statement checks that the rows are this run's."""
        mine = "(SELECT 1 FROM runs WHERE number = ? AND run_id = ? AND raw_status = ?)"
        identity = (run.number, run.run_id, PRUNED)
        with self.store.session() as db:
            freed = db.execute(
                f"SELECT coalesce(sum(length(message)), 0) FROM lines WHERE run = ? AND EXISTS {mine}",
                (run.number, *identity),
            ).fetchone()[0]
            some = f"SELECT id FROM lines WHERE run = ? LIMIT {_LINES}"
            delete_some = f"DELETE FROM lines WHERE id IN ({some}) AND EXISTS {mine}"
            while db.execute(delete_some, (run.number, *identity)).rowcount:
                pass
            with transaction(db):
                for table in ("lines", "steps", "kept", "jobs", "artifacts"):
                    db.execute(f"DELETE FROM {table} WHERE run = ? AND EXISTS {mine}", (run.number, *identity))
                db.execute("DELETE FROM runs WHERE number = ? AND run_id = ? AND raw_status = ?", identity)
        return int(freed)


def _artifacts_in(outputs: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the recorded outputs in a store, and their pictures, by their URLs."""
    for entry in (packed for output in json.loads(outputs).values() for packed in entries_in(output)):
        reference = (entry.get("artifact") or {}).get("$artifact")
        for file in (reference, reference.get("picture")) if isinstance(reference, dict) else ():
            if isinstance(file, dict) and isinstance(file.get("url"), str):
                yield file["url"], {**file, "store": entry.get("store")}


def _left_folders(store: RunStore, bounds: Bounds) -> Iterator[Prunable]:
    """Yield folders of runs that are not in the database, such as one that a killed process was removing."""
    parent = store.folder_of("-").parent

    def known() -> set[str]:
        with store.session() as db:
            return {store.folder_of(run_id).name for (run_id,) in db.execute("SELECT run_id FROM runs")}

    def remove_unknown(name: str) -> int:
        return 0 if name in known() else remove(parent, name, unless_since=bounds.before)

    for name in sorted({*names_in(parent)} - known()):
        files = list(files_below(parent, name))
        used = max([file.modified for file in files], default=_modified(parent / name))
        yield Prunable(
            kind="folder", name=name, bytes=sum(file.size for file in files), used=used, kept=bounds.keeps(used),
            remove=partial(remove_unknown, name),
        )  # fmt: skip


def _left_artifacts(store: RunStore, bounds: Bounds) -> Iterator[Prunable]:
    """Yield the files in the artifact store of runs that are no longer in this database."""
    place = run_place(store.instance, "-", "-").partition("/")[0]
    known = _places(store)
    try:
        shelf = open_store(default_url())
        artifacts = list(stored(shelf, place))
    except ArtifactError as error:
        yield _unreadable("artifact", place, error)
        return
    for item in artifacts:
        if _place(item.key) not in known and is_artifact(item.key):
            yield _artifact(store, shelf, item, bounds)


def _places(store: RunStore) -> set[str]:
    with store.session() as db:
        rows = db.execute("SELECT pipeline, run_id FROM runs").fetchall()
    return {run_place(store.instance, *row) for row in rows}


def _place(key: str) -> str:
    return "/".join(key.split("/")[:3])


def _artifact(store: RunStore, shelf: Store, item: Stored, bounds: Bounds) -> Prunable:
    used = item.modified if item.modified is not None else bounds.now

    def remove_unused() -> int:  # unless a new run has the name: its cached artifacts may be as old
        return 0 if _place(item.key) in _places(store) else discard(shelf, item.key, unless_since=bounds.before)

    return Prunable(
        kind="artifact", name=item.key, bytes=item.size, used=used,
        kept=bounds.keeps(used) if item.modified is not None else "its age is unknown", remove=remove_unused,
    )  # fmt: skip


def _unreadable(kind: str, name: str, error: Exception) -> Prunable:
    return Prunable(kind=kind, name=name, bytes=0, used=0.0, kept=f"it cannot be read: {error}", remove=int)


def _bundles(store: RunStore, folder: Path, bounds: Bounds, going: set[int]) -> Iterator[Prunable]:
    """Yield the bundles that local runs are started from."""
    needs = _needs(store, folder, going)
    for name in filter(_BUNDLE.fullmatch, names_in(folder)):
        file = next(files_below(folder, name), None)
        if file is not None:
            kept = needs(name) or bounds.keeps(file.modified) or _is_other(folder / name)
            yield Prunable(
                kind="bundle", name=name, bytes=file.size, used=file.modified, kept=kept,
                remove=partial(_remove_bundle, store, folder, name, bounds),
            )  # fmt: skip


def _remove_bundle(store: RunStore, folder: Path, name: str, bounds: Bounds) -> int:
    return 0 if _needs(store, folder, set())(name) else remove(folder, name, unless_since=bounds.before)


def _needs(store: RunStore, folder: Path, going: set[int]) -> Callable[[str], str]:
    """Return a function that says what needs a bundle, by all databases; runs that are ``going`` need none."""
    needed: dict[str, str] = {}
    beginnings: set[str] = set()
    unread = ""
    for path in sorted({store.path, *records(folder), folder.parent / "runs.db"}):
        if not path.exists():
            continue
        try:
            with RunStore(path).session() as db:
                _read_needs(db, going if path == store.path else set(), needed, beginnings)
        except (sqlite3.Error, ConfigurationError) as error:
            unread = f"another record that may need it cannot be read: {error}"

    def need(name: str) -> str:
        return "a run of its pipeline is in progress" if name[:-13] in beginnings else needed.get(name, unread)

    return need


def _read_needs(db: sqlite3.Connection, going: set[int], needed: dict[str, str], beginnings: set[str]) -> None:
    for number, run_id, job in db.execute("SELECT run, run_id, job FROM jobs JOIN runs ON run = number"):
        if number not in going and (bundle := json.loads(job).get("bundle")):
            needed[Path(bundle).name] = f"run {run_id!r} can be retried"
    for pipeline, bundle in db.execute("SELECT pipeline, bundle FROM deployed"):
        needed[Path(bundle).name] = f"it is the deployed version of {pipeline!r}"
    for schedule, bundle in db.execute("SELECT schedule_id, bundle FROM schedules"):
        needed[Path(bundle).name] = f"schedule {schedule!r} runs it"
    beginnings.update(
        slug(pipeline) for (pipeline,) in db.execute(f"SELECT DISTINCT pipeline FROM runs WHERE {UNFINISHED}")
    )


def _is_other(path: Path) -> str:
    """Say why a file is not a FlowyML bundle."""
    with suppress(OSError, PlanError):
        if Bundle.read(path).filename == path.name:
            return ""
    return "it is not a FlowyML bundle"


def _record(store: RunStore, going: set[int]) -> Iterator[Prunable]:
    """Yield the unused space in the database file, which later runs would reuse."""
    free = _free_bytes(store)
    if going or free >= _WORTH_IT:
        yield Prunable(
            kind="record", name=store.path.name, bytes=free if free >= _WORTH_IT else 0, used=0.0,
            remove=lambda: min(_shrink(store), free),
        )  # fmt: skip


def _free_bytes(store: RunStore) -> int:
    with store.session() as db:
        pages = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
        return int(next(pages)) * int(next(pages))


def _shrink(store: RunStore) -> int:
    """Rewrite the database file if half of it is free, and return the bytes freed.

    Other processes cannot write meanwhile, so not while a run is in progress, nor if it takes long.
    """
    free, before = _free_bytes(store), store.path.stat().st_size
    if free < max(_WORTH_IT, before * _PAGES_FREE) or before > _TOO_LARGE:
        return 0
    with store.session() as db:
        if db.execute(f"SELECT 1 FROM runs WHERE {UNFINISHED} LIMIT 1").fetchone():
            return 0
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return max(before - store.path.stat().st_size, 0)


def _unpacked(bounds: Bounds) -> Iterator[Prunable]:
    """Yield code that was unpacked for this user's processes, whatever engine started them."""
    for cache in caches():
        remove_leftovers(cache)
        yield from unfinished(cache, bounds)
        for name in filter(_UNPACKED.fullmatch, names_in(cache)):
            with claim(cache / name) as is_free:
                used = _modified(cache / name)
                kept = bounds.keeps(used) if is_free else "a process is using it"
            size = sum(file.size for file in files_below(cache, name))
            yield Prunable(
                kind="code", name=f"{_pipeline_in(cache / name)} {name[:8]}", bytes=size, used=used, kept=kept,
                remove=partial(_remove_unpacked, cache, name, used),
            )  # fmt: skip


def _remove_unpacked(cache: Path, name: str, used: float) -> int:
    with claim(cache / name) as is_free:
        # Python may have written bytecode there since its last use: the folder's own time shows when that was.
        return remove(cache, name) if is_free and _modified(cache / name) <= used else 0


def _pipeline_in(folder: Path) -> str:
    try:
        return str(json.loads((folder / "plan.json").read_bytes())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


def _modified(path: Path) -> float:
    try:
        status = path.lstat()
    except OSError:
        return 0.0
    return status.st_mtime if not stat.S_ISLNK(status.st_mode) else 0.0
