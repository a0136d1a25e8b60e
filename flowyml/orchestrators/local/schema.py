"""The tables of the local store, and their rows."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from flowyml.core.errors import ConfigurationError

__all__ = ["SavedRow", "RunRow", "StepRow", "check_is_record", "index_of", "item_of", "prepare", "transaction"]

FIRST, VERSION = 8, 10  # that of 1.0.0rc1, the first release, and the present one

_TABLES = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL, steps TEXT NOT NULL,
    parameters TEXT NOT NULL, status TEXT NOT NULL, raw_status TEXT NOT NULL, created REAL NOT NULL, started REAL,
    ended REAL, error TEXT, outputs TEXT NOT NULL DEFAULT '{}', host TEXT NOT NULL, pid INTEGER NOT NULL,
    born TEXT NOT NULL, heartbeat REAL NOT NULL, detached INTEGER NOT NULL, cancel INTEGER NOT NULL DEFAULT 0,
    origin TEXT, code_digest TEXT, revision TEXT
);
CREATE INDEX runs_of_pipeline ON runs (pipeline, number);
CREATE TABLE steps (
    run INTEGER NOT NULL, position INTEGER NOT NULL, item TEXT NOT NULL DEFAULT '', status TEXT NOT NULL,
    raw_status TEXT NOT NULL, attempt INTEGER NOT NULL, started REAL, ended REAL, error TEXT, cached_from TEXT,
    PRIMARY KEY (run, position, item)
) WITHOUT ROWID;
CREATE TABLE lines (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, position INTEGER, level TEXT NOT NULL, time REAL NOT NULL,
    message TEXT NOT NULL, item TEXT NOT NULL DEFAULT ''
);
CREATE INDEX lines_of_run ON lines (run, id);
CREATE TABLE jobs (run INTEGER PRIMARY KEY, job TEXT NOT NULL, orchestrator BLOB);
CREATE TABLE kept (
    run INTEGER NOT NULL, position INTEGER NOT NULL, item TEXT NOT NULL, output TEXT NOT NULL, entry TEXT NOT NULL,
    PRIMARY KEY (run, position, item, output)
) WITHOUT ROWID;
CREATE TABLE artifacts (
    run INTEGER NOT NULL, position INTEGER NOT NULL, item TEXT NOT NULL, output TEXT NOT NULL, entry TEXT NOT NULL,
    PRIMARY KEY (run, position, item, output)
) WITHOUT ROWID;
CREATE TABLE schedules (
    schedule_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL UNIQUE, bundle TEXT NOT NULL, orchestrator BLOB NOT NULL,
    schedule TEXT NOT NULL, paused INTEGER NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 1,
    seen REAL NOT NULL, origin TEXT
);
CREATE TABLE servers (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, born TEXT NOT NULL, heartbeat REAL NOT NULL
);
CREATE TABLE deployed (pipeline TEXT PRIMARY KEY, bundle TEXT NOT NULL)
"""

# The additions of each version to the tables of the previous one.
_CHANGES = {
    9: "ALTER TABLE runs ADD COLUMN packages TEXT",
    10: "CREATE TABLE record (id TEXT NOT NULL); INSERT INTO record VALUES (lower(hex(randomblob(8))))",
}


class RunRow(NamedTuple):
    """A stored run; times are seconds since 1970, ``steps``, ``parameters``, ``outputs``, ``origin`` and
    ``packages`` are JSON."""

    number: int
    run_id: str
    pipeline: str
    steps: str
    parameters: str
    status: str
    raw_status: str
    created: float
    started: float | None
    ended: float | None
    error: str | None
    outputs: str
    host: str
    pid: int
    born: str
    heartbeat: float
    detached: int
    cancel: int
    origin: str | None
    code_digest: str | None
    revision: str | None
    packages: str | None

    @classmethod
    def columns(cls) -> str:
        """Return the columns of the table in the order of the fields."""
        return ", ".join(cls._fields)


class StepRow(NamedTuple):
    """A stored step.

    ``position`` is its index in the plan, ``item`` the item in the loops around it, and ``cached_from`` the run that
    its results come from if it did not run.
    """

    position: int
    status: str
    raw_status: str
    attempt: int = 0
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    item: str = ""
    cached_from: str | None = None

    @classmethod
    def columns(cls) -> str:
        """Return the columns of the table in the order of the fields."""
        return ", ".join(cls._fields)


class SavedRow(NamedTuple):
    """An output of a step, as JSON: for a retry in the form of a run's recorded outputs; for artifacts, packed."""

    position: int
    item: str
    output: str
    entry: str


def item_of(index: Sequence[int]) -> str:
    """Return the stored form of an item: ``3/7`` for item 7 of the inner loop within item 3 of the outer one."""
    return "/".join(map(str, index))


def index_of(item: str) -> tuple[int, ...]:
    """Parse the output of ``item_of``."""
    return tuple(map(int, item.split("/"))) if item else ()


_SUFFIXES = (".db", ".sqlite", ".sqlite3")
"""Of an empty file that becomes a record; any other, such as ``__init__.py``, is meant to be empty."""


def check_is_record(db: sqlite3.Connection, path: Path) -> None:
    """Raise ``ConfigurationError`` for the file of another program, or of a newer FlowyML. It changes nothing.

    The settings of a folder that was cloned could name any file. SQLite itself looks into it: closing a file that is
    opened beside it would end the locks that SQLite has on it in this process (source: howtocorrupt.html, 2.2).
    """
    size = path.stat().st_size  # SQLite takes a file of less than a page for an empty database
    version, pages, everything, own = db.execute(
        "SELECT user_version, page_count, (SELECT count(*) FROM sqlite_master), (SELECT count(*) FROM sqlite_master"
        " WHERE type = 'table' AND name IN ('runs', 'steps', 'lines', 'schedules', 'servers'))"
        " FROM pragma_user_version, pragma_page_count"
    ).fetchone()
    is_empty = not everything and (pages > 0 or (size == 0 and path.suffix in _SUFFIXES))
    is_record = own == 5 if version else is_empty
    if not is_record:
        raise ConfigurationError(
            f"{path} is a file of another program, not a record of local runs; it stays as it is. Set FLOWYML_HOME to "
            f"another folder, or use LocalOrchestrator(store=…)."
        )
    if 0 < version < FIRST:
        raise ConfigurationError(
            f"{path} was written by a FlowyML before its first release, 1.0.0rc1. Move it away: a new one is begun."
        )
    if version > VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer FlowyML (schema {version}; this one knows {VERSION}). Upgrade FlowyML, or "
            f"set FLOWYML_HOME to another folder."
        )


def prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA synchronous = NORMAL")
    if db.execute("PRAGMA user_version").fetchone()[0] < VERSION:
        _make(db)


def _make(db: sqlite3.Connection) -> None:
    _use_wal(db)
    with transaction(db):
        present = db.execute("PRAGMA user_version").fetchone()[0]
        for version in range(max(FIRST, present + 1), VERSION + 1):
            for statement in (_TABLES if version == FIRST else _CHANGES[version]).split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Change all or nothing, as the only writer."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already (source: "Response To Errors", lang_transaction.html)
            db.execute("ROLLBACK")
        raise


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to WAL, with retries: SQLite answers "locked" at once if another process creates the store."""
    for _ in range(200):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            time.sleep(0.05)
