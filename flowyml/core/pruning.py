"""Data of past runs: finding what is no longer needed, and removing it."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flowyml.core.durations import span_text
from flowyml.core.removal import files_below, names_in, remove

__all__ = [
    "Bounds",
    "Prunable",
    "Pruned",
    "bounded",
    "is_unfinished",
    "prune",
    "unfinished",
]

_FILE = re.compile(r"\.new-[0-9a-f]{16}")
_FOLDER = re.compile(r"\.new-[a-z0-9_]{8}")  # of ``tempfile.mkdtemp``
_WRITING_SECONDS = 3600  # without a change, after which no process is assumed to be writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of pruning: data used within ``older_than`` seconds before ``now`` (seconds since 1970) stays.

    Of data that can be recreated, such as unpacked code and cached results, the last used ``max_bytes`` stay.
    """

    older_than: float = 30 * 86_400
    max_bytes: int = 10_000_000_000
    now: float = field(default_factory=time.time)

    @property
    def before(self) -> float:
        """Data that was used at this time or later stays."""
        return self.now - self.older_than

    def keeps(self, used: float) -> str:
        """Say why data that was last used at that time stays; empty if its age is not a reason."""
        if used < self.before:
            return ""
        return f"used within {span_text(self.older_than)}" if self.older_than >= 1 else "just used"

    def keeps_unfinished(self, changed: float) -> str:
        """Say the same for unfinished data, with a minimum age: a process may still be writing it."""
        young = "a process may be writing it" if changed >= self.now - _WRITING_SECONDS else ""
        return self.keeps(changed) or young


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunable:
    """An item of data: ``bytes`` in size, last used at ``used`` (seconds since 1970).

    ``kept`` is the reason why it stays, and empty if it is to be removed. ``remove`` checks again before it removes
    anything, and returns the removed bytes: 0 if the item is needed by now.
    """

    kind: str
    name: str
    bytes: int
    used: float
    kept: str = ""
    remove: Callable[[], int] = field(repr=False, compare=False)

    @property
    def used_at(self) -> datetime:
        """The time of its last use."""
        return datetime.fromtimestamp(self.used, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The outcome for one item: ``freed`` bytes, or the reason why it still exists."""

    item: Prunable
    freed: int = 0
    problem: str = ""


def is_unfinished(name: str) -> bool:
    """Return whether a file has FlowyML's name for unfinished files (``flowyml.core.files``)."""
    return _FILE.fullmatch(name) is not None


def unfinished(folder: Path, bounds: Bounds) -> Iterator[Prunable]:
    """Yield unfinished files in a folder, left by processes that died."""
    for name in names_in(folder):
        try:
            own = (folder / name).lstat()
        except FileNotFoundError:  # it is whole by now
            continue
        if not is_unfinished(name) and not (_FOLDER.fullmatch(name) and stat.S_ISDIR(own.st_mode)):
            continue
        files = list(files_below(folder, name))
        changed = max([own.st_mtime, *(file.modified for file in files)])
        yield Prunable(
            kind="unfinished", name=name, bytes=sum(file.size for file in files), used=changed,
            kept=bounds.keeps_unfinished(changed),
            remove=partial(remove, folder, name, unless_since=min(bounds.before, bounds.now - _WRITING_SECONDS)),
        )  # fmt: skip


def bounded(items: Iterable[Prunable], bounds: Bounds) -> Iterator[Prunable]:
    """Yield data that can be recreated; beyond ``bounds.max_bytes``, the oldest that stay only for their age may go."""
    remaining = bounds.max_bytes
    for item in sorted(items, key=lambda item: -item.used):
        fits = item.bytes <= remaining
        remaining -= item.bytes if fits or item.kept else 0
        is_young = item.kept == bounds.keeps(item.used) != ""
        yield replace(item, kept="") if is_young and not fits else item


def prune(items: Iterable[Prunable], during: AbstractContextManager[object] | None = None) -> Iterator[Pruned]:
    """Remove all items without a reason to stay. If an item cannot be removed, that is reported, and the others follow.

    ``during`` is ``Orchestrator.pruning()``.
    """
    with during or nullcontext():
        for item in items:
            if not item.kept:
                try:
                    yield Pruned(item=item, freed=item.remove())
                except Exception as error:  # of a disk, a filesystem's library or a server
                    yield Pruned(item=item, problem=f"{type(error).__name__}: {error}")
