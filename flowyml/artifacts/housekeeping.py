"""List and remove the content of an artifact store: only by keys that FlowyML writes, and never above the root."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flowyml.artifacts.remote import RemoteStore
from flowyml.artifacts.store import LocalStore, Store
from flowyml.core.errors import ArtifactError
from flowyml.core.removal import files_below, remove, remove_empty

__all__ = ["Stored", "discard", "is_artifact", "modified", "stored"]

# The names of the time of the last change in fsspec's filesystems.
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_PART = "[a-z0-9][a-z0-9-]*"
_NAME = (
    rf"(?:{_PART}-[0-9a-f]{{16}}[a-z0-9._-]{{0,40}}|\.(?:new|gone)-[0-9a-f]{{16}})"  # not whole yet, or half removed
)
_KEY = re.compile(rf"(?:{_PART}/){{4}}(?:outputs\.json|[0-9]{{1,6}}/{_NAME})")


class Stored(NamedTuple):
    """A file of a store: its key, its bytes, and when it was written, in seconds since 1970, if known."""

    key: str
    size: int
    modified: float | None


def is_artifact(key: str) -> bool:
    """Return whether ``artifact_key`` writes such a key, for a run's prefix or for the cached outputs of a step.

    The name of an unfinished or half-removed artifact counts too: a killed process may have left it.

    >>> is_artifact("local-1f3a9c2e/train/run-1/load/1/rows-0123456789abcdef.npy"), is_artifact("train/data.csv")
    (True, False)
    """
    return _KEY.fullmatch(key) is not None


def stored(store: Store, place: str) -> Iterator[Stored]:
    """Yield the files below a prefix in a store. In a local folder, only files of this user, and no links.

    Raises ``ArtifactError``.
    """
    if isinstance(store, LocalStore):
        for file in files_below(store.root, *place.split("/")):
            yield Stored("/".join(file.parts), file.size, file.modified)
    elif isinstance(store, RemoteStore):
        yield from _stored_remotely(store, place)


def discard(store: Store, key: str, *, unless_since: float) -> int:
    """Remove an artifact, if it exists, and return its bytes. An artifact that was written at or after that time stays.

    Raises ``ArtifactError``.
    """
    if not is_artifact(key):
        return 0
    if isinstance(store, LocalStore):
        return _discard_here(store, key.split("/"), unless_since)
    return _discard_remotely(store, key, unless_since) if isinstance(store, RemoteStore) else 0


def _discard_here(store: LocalStore, parts: list[str], unless_since: float) -> int:
    try:
        freed = remove(store.root, *parts, unless_since=unless_since)
        for depth in range(len(parts) - 1, 0, -1):
            if not remove_empty(store.root, *parts[:depth]):
                break
    except OSError as error:
        raise ArtifactError(f"Artifact {store.url}/{'/'.join(parts)} could not be removed: {error}") from error
    return freed


def _stored_remotely(store: RemoteStore, place: str) -> Iterator[Stored]:
    folder = f"{store.root}/{place}"
    with store.errors(f"Artifacts at {store.url} cannot be listed"):
        store.filesystem.invalidate_cache()
        try:
            entries = store.filesystem.find(folder, detail=True)
        except FileNotFoundError:
            return
    for path, about in entries.items():
        if path.startswith(f"{folder}/"):  # whatever a server lists
            yield Stored(path.removeprefix(f"{store.root}/"), int(about.get("size") or 0), modified(about))


def _discard_remotely(store: RemoteStore, key: str, unless_since: float) -> int:
    path, files = f"{store.root}/{key}", store.filesystem
    with store.errors(f"Artifact {store.url}/{key} could not be removed"), suppress(FileNotFoundError):
        files.invalidate_cache()
        about = files.info(path)
        written = modified(about)
        if about.get("type") == "file" and written is not None and written < unless_since:
            files.rm_file(path)
            return int(about.get("size") or 0)
    return 0


def modified(about: Mapping[str, Any]) -> float | None:
    """Return the time when a file was written, from fsspec's record of it; None if the record lacks it."""
    time = next((about[name] for name in _TIMES if about.get(name) is not None), None)
    if isinstance(time, str):
        with suppress(ValueError):
            time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return float(time) if isinstance(time, int | float) else None
