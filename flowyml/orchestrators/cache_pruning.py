"""Prune cached results that were not used for a long time, in a store that several engines may share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from flowyml.artifacts import open_store
from flowyml.artifacts.housekeeping import stored
from flowyml.artifacts.store import LocalStore, Store
from flowyml.core.errors import ArtifactError
from flowyml.core.locks import lock
from flowyml.core.pruning import Bounds, Prunable, bounded
from flowyml.core.removal import files_below, has_others, remove
from flowyml.runtime.caching import LOCK_FILE, ROOT, Entry, entries_in, read_entry

__all__ = ["bytes_in", "cached_results", "results_of", "store_of"]

_FOLDER = re.compile(rf"{ROOT}/[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*/[0-9a-f]{{64}}")


def store_of(place: str | None, *, has_default: bool) -> Store | None:
    """Return the store of an engine's results, at an address or by default on this machine.

    None if steps may run on other machines and no store is configured.
    """
    return open_store(place) if place is not None or has_default else None


def results_of(store: Store | None, engine: str, bounds: Bounds) -> Iterator[Prunable]:
    """Yield the cached results in an engine's store; if the store is unknown, one item that stays, for all of them."""
    if store is not None:
        yield from bounded(cached_results(store, bounds), bounds)
    else:
        kept = "steps may run on other machines, and their store is not configured: set the target's `artifacts`"
        yield Prunable(kind="cache", name=engine, bytes=0, used=0.0, kept=kept, remove=int)


def bytes_in(store: Store, folder: str) -> int:
    """Return the size of the files of an entry; 0 for a step that is running, or has failed."""
    return _about(store, folder, None)[0]


def cached_results(store: Store, bounds: Bounds) -> Iterator[Prunable]:
    """Yield each result in a store, with its age: since its last use in a local folder, else since it was computed.

    Removing one is safe: a run that uses it has its own copy, and a run that looks for it meanwhile computes it again.
    """
    try:
        entries = list(entries_in(store))
    except ArtifactError as error:
        yield Prunable(kind="cache", name=store.url, bytes=0, used=0.0, kept=f"it cannot be read: {error}", remove=int)
        return
    for folder, entry in entries:
        if _FOLDER.fullmatch(folder):
            yield _result(store, folder, entry, bounds)


def _result(store: Store, folder: str, entry: Entry | None, bounds: Bounds) -> Prunable:
    size, used = _about(store, folder, entry)
    kept = bounds.keeps(used)
    if not kept and isinstance(store, LocalStore):
        if has_others(store.root, *folder.split("/")):
            kept = "it contains files of another user"
        else:
            with _turn(store, folder) as is_free:
                kept = "" if is_free else "a run is computing it"
    name = f"{entry.pipeline}, {entry.step}" if entry else "?"
    return Prunable(
        kind="cache", name=f"{name}, {folder.rpartition('/')[2][:12]}", bytes=size, used=used, kept=kept,
        remove=partial(_remove, store, folder, used),
    )  # fmt: skip


def _about(store: Store, folder: str, entry: Entry | None) -> tuple[int, float]:
    if isinstance(store, LocalStore):
        found = list(files_below(store.root, *folder.split("/")))
        return sum(each.size for each in found if each.parts[-1] != LOCK_FILE), max(
            (each.modified for each in found), default=0.0
        )
    if entry:
        return entry.size, entry.created
    there = list(stored(store, folder))
    return sum(each.size for each in there), max((each.modified or float("inf") for each in there), default=0.0)


def _remove(store: Store, folder: str, used: float) -> int:
    if not isinstance(store, LocalStore):
        size, now = _about(store, folder, _entry(store, folder))
        if now > used:
            return 0
        store.remove(folder)
        return size
    with _turn(store, folder) as is_free:
        if not is_free or _about(store, folder, None)[1] > used:
            return 0
        return remove(store.root, *folder.split("/"))


def _entry(store: Store, folder: str) -> Entry | None:
    with suppress(ArtifactError):
        return read_entry(store, folder)
    return None


@contextmanager
def _turn(store: LocalStore, folder: str) -> Iterator[bool]:
    """Yield whether no run is computing a result; during the block, no run that waits for the lock begins."""
    try:
        with store.opened(folder) as opened:
            file = os.fdopen(os.open(LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=opened), "rb")
    except OSError:  # no run has waited for it
        yield True
        return
    with file:
        yield lock(file.fileno()) is not False
