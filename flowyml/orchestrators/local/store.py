"""The database of local runs: one SQLite file that many processes read and write at once.

In WAL mode readers continue while one process writes; a writer waits for up to 30 seconds. Except within a session of
the same thread, every call opens the file for itself, so nothing is shared between threads.
"""

from __future__ import annotations

import json
import platform
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Literal, NamedTuple

from flowyml.core.errors import ConfigurationError, RunNotFoundError
from flowyml.core.home import data_folder, open_private, private_file
from flowyml.core.origin import Origin
from flowyml.core.plain_text import storable_text
from flowyml.core.process_identity import ProcessIdentity, is_alive
from flowyml.orchestrators.local.schema import RunRow, SavedRow, StepRow, check_is_record, item_of, prepare, transaction
from flowyml.plan.names import slug

__all__ = [
    "CLEANING_UP", "KEPT", "PRUNED", "UNFINISHED", "Ending", "Line", "RunStore", "clear_folder", "connect", "finish",
    "unread_output", "write",
]  # fmt: skip

KEPT = "kept"
"""The part of a run's folder that stays if the run did not complete."""

PRUNED = "pruned"
"""The raw status of a run that is being removed: it can be read, but not retried."""

CLEANING_UP = "cleaning_up"
"""The raw status of a run with active clean-ups, after its other steps have ended or while they are being stopped."""

UNFINISHED = "status IN ('QUEUED', 'RUNNING')"
_LINES = 10_000
"""The number of log lines that are read at once."""
_SILENCE_SECONDS = 120
"""The seconds for which a process that cannot be checked, such as one in another container, may be silent."""


Job = tuple[dict[str, Any], bytes | None]
"""The data that starts the process of a run, and its orchestrator."""

Table = Literal["kept", "artifacts"]
"""The outputs for a retry, or for people."""


class Line(NamedTuple):
    """A stored log line: ``position`` is the step's index in the plan, None for lines of no step.

    ``item`` is that of the loops around the step.
    """

    position: int | None
    level: str
    time: float
    message: str
    item: str = ""


class Ending(NamedTuple):
    """The end of a run."""

    status: str
    raw_status: str
    error: str | None = None
    outputs: Mapping[str, Any] = {}


class RunStore:
    """Runs, their steps and lines, in the file at ``path``, created on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = threading.local()

    @cached_property
    def instance(self) -> str:
        """The name of this record in artifact stores, which records of other machines may share.

        Machines may have one name, and keep their records under one path; a copy of a record has another path.
        """
        with self.session() as db:
            return f"local {platform.node()} {self.path} {db.execute('SELECT id FROM record').fetchone()[0]}"

    def folder_of(self, run_id: str) -> Path:
        """Return the run's own folder, which exists while the run needs it."""
        record = self.path.stem if self.path.suffix == ".db" else self.path.name  # "runs.db" and "runs.sqlite" are two
        return self.path.parent / "jobs" / slug(record) / slug(run_id, max_length=100)

    def _check_no_link(self, folder: Path) -> None:
        """Raise ``ConfigurationError`` if a link leads to the folder of a run: the record may have been cloned."""
        if folder.resolve() != self.path.parent.resolve() / folder.relative_to(self.path.parent):
            raise ConfigurationError(
                f"{folder} is reached by a link, which FlowyML does not follow. Remove the link, or keep the record of "
                f"runs elsewhere: FLOWYML_HOME, or LocalOrchestrator(store=…)."
            )

    @contextmanager
    def session(self) -> Iterator[sqlite3.Connection]:
        """Open a connection that commits each statement by itself; or, within a session of this thread, use that one.

        The last connection to close tidies the file, which takes a while: a session around several calls does so once.
        """
        connection: sqlite3.Connection | None = getattr(self._held, "db", None)
        with _errors_named(self.path):
            if connection is not None:
                yield connection
                return
            with closing(connect(self.path)) as db:
                self._held.db = db
                try:
                    yield db
                finally:
                    self._held.db = None

    # Runs begin and end.

    def add(
        self, run_id: str, pipeline: str, steps: Sequence[str], parameters: Mapping[str, Any], owner: ProcessIdentity,
        *, detached: bool, origin: Origin | None = None, code_digest: str | None = None,
        revision: str | None = None,
    ) -> bool:  # fmt: skip
        """Record a new run: a detached one as queued, else as running. Return False if the id exists already."""
        now = time.time()
        status, started = ("QUEUED", None) if detached else ("RUNNING", now)
        with self.session() as db:
            added = db.execute(
                "INSERT INTO runs (run_id, pipeline, steps, parameters, status, raw_status, created, started, host,"
                " pid, born, heartbeat, detached, origin, code_digest, revision)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (run_id) DO NOTHING",
                (run_id, pipeline, _json(steps), _json(parameters), status, status.lower(), now, started,
                 *_owner(owner), now, detached, origin and _json(origin.to_dict()), code_digest,
                 revision),
            )  # fmt: skip
            return added.rowcount == 1

    def forget(self, run_id: str) -> None:
        """Remove a run that never began, so that its id is free again."""
        with self.session() as db:
            db.execute("DELETE FROM runs WHERE run_id = ? AND status = 'QUEUED'", (run_id,))

    def hand_over(self, run_id: str, owner: ProcessIdentity) -> None:
        """Note the process that will begin a queued run."""
        with self.session() as db:
            db.execute(
                "UPDATE runs SET raw_status = 'starting', host = ?, pid = ?, born = ?"
                " WHERE run_id = ? AND status = 'QUEUED'",
                (*_owner(owner), run_id),
            )

    def begin(self, run_id: str, owner: ProcessIdentity) -> bool:
        """Let ``owner`` begin a queued run.

        Return False if another process has begun it, or if it was cancelled before.
        """
        now = time.time()
        with self.session() as db:
            begun = db.execute(
                "UPDATE runs SET status = 'RUNNING', raw_status = 'running', started = ?, heartbeat = ?, host = ?,"
                " pid = ?, born = ? WHERE run_id = ? AND status = 'QUEUED' AND cancel = 0",
                (now, now, *_owner(owner), run_id),
            )
            return begun.rowcount == 1

    def note_packages(self, run_id: str, packages: Mapping[str, str]) -> None:
        """Record the versions of the packages that the code of a run imports."""
        with self.session() as db:
            db.execute("UPDATE runs SET packages = ? WHERE run_id = ?", (_json(packages), run_id))

    def finish(self, run_id: str, ending: Ending) -> bool:
        """Record the end of a run. Return False if it had already ended; the first end counts."""
        with self.session() as db:
            return finish(db, run_id, ending)

    def request_cancel(self, run_id: str) -> bool:
        """Ask the process that runs it to stop. Return False if the run had ended."""
        with self.session() as db:
            update = db.execute(f"UPDATE runs SET cancel = 1 WHERE run_id = ? AND {UNFINISHED}", (run_id,))
            return update.rowcount == 1

    # Data for running it again.

    def keep_job(
        self, run_id: str, job: Mapping[str, Any], orchestrator: bytes | None, code_digest: str | None = None
    ) -> None:
        """Save the data to start the run's process again, until the run has completed.

        ``code_digest`` is that of the job's bundle, if the run had none when it began.
        """
        with self.session() as db, transaction(db):
            db.execute("UPDATE runs SET code_digest = coalesce(code_digest, ?) WHERE run_id = ?", (code_digest, run_id))
            db.execute(
                "INSERT OR REPLACE INTO jobs (run, job, orchestrator) SELECT number, ?, ? FROM runs WHERE run_id = ?",
                (_json(job), orchestrator, run_id),
            )

    def job(self, number: int) -> Job | None:
        """Return the data that ``keep_job`` saved, if there is any."""
        with self.session() as db:
            return _job(db, number)

    def keep(self, number: int, values: Iterable[SavedRow], table: Table = "kept") -> None:
        with self.session() as db, transaction(db):
            db.executemany(
                f"INSERT OR REPLACE INTO {table} (run, position, item, output, entry) VALUES (?,?,?,?,?)",
                ((number, *row) for row in values),
            )

    def kept(self, number: int, table: Table = "kept") -> list[SavedRow]:
        with self.session() as db:
            rows = db.execute(f"SELECT position, item, output, entry FROM {table} WHERE run = ?", (number,))
            return [SavedRow(*row) for row in rows]

    def queue_again(
        self, number: int, owner: ProcessIdentity, steps: Iterable[tuple[int, str]], gone: Iterable[tuple[int, str]]
    ) -> bool:
        """Queue an ended run again, with ``steps``, by position and item; forget those that are ``gone``.

        Returns False if it is queued already, runs, or has completed.
        """
        with self.session() as db, transaction(db):
            queued = db.execute(
                "UPDATE runs SET status = 'QUEUED', raw_status = 'queued', ended = NULL, error = NULL, outputs = '{}',"
                " cancel = 0, detached = 1, host = ?, pid = ?, born = ?, heartbeat = ?"
                f" WHERE number = ? AND NOT {UNFINISHED} AND status != 'COMPLETED' AND raw_status != ?",
                (*_owner(owner), time.time(), number, PRUNED),
            )
            if queued.rowcount != 1:
                return False
            steps, gone = list(steps), list(gone)
            db.executemany(
                "UPDATE steps SET status = 'QUEUED', raw_status = 'queued', started = NULL, ended = NULL, error = NULL"
                " WHERE run = ? AND position = ? AND item = ?",
                ((number, *step) for step in steps),
            )
            for table in ("kept", "steps"):
                db.executemany(
                    f"DELETE FROM {table} WHERE run = ? AND position = ? AND item = ?",
                    ((number, *step) for step in ((*steps, *gone) if table == "kept" else gone)),
                )
            return True

    # Reading runs.

    def find(self, run_id: str) -> RunRow | None:
        with self.session() as db:
            row = db.execute(
                f"SELECT {RunRow.columns()} FROM runs WHERE run_id = ?", (storable_text(run_id),)
            ).fetchone()
            return self._settle(db, RunRow(*row)) if row else None

    def get(self, run_id: str) -> RunRow:
        """Return a run. Raises ``RunNotFoundError``."""
        if row := self.find(run_id):
            return row
        raise RunNotFoundError(f"No local run has the id {run_id!r}. `flowyml runs` lists those in {self.path}.")

    def runs(self, pipeline: str | None, limit: int, ids: str = "*") -> list[RunRow]:
        """Return the newest runs, or those whose ids match a SQLite GLOB pattern."""
        with self.session() as db:
            rows = db.execute(
                f"SELECT {RunRow.columns()} FROM runs WHERE (:pipeline IS NULL OR pipeline = :pipeline)"
                " AND run_id GLOB :ids ORDER BY number DESC LIMIT :limit",
                {"pipeline": pipeline and storable_text(pipeline), "limit": limit, "ids": ids},
            )
            return [self._settle(db, RunRow(*row)) for row in rows.fetchall()]

    def steps(self, number: int) -> list[StepRow]:
        """Return the steps that have begun or were decided, with each item of a loop."""
        with self.session() as db:
            rows = db.execute(f"SELECT {StepRow.columns()} FROM steps WHERE run = ?", (number,))
            return [StepRow(*row) for row in rows]

    def lines(
        self, number: int, after: int = 0, of: tuple[int, tuple[int, ...]] | None = None
    ) -> Iterator[tuple[int, Line]]:
        """Yield the log lines after the one of that id, oldest first, each with its id.

        ``of`` limits them to a step, by its position in the plan, and an item of it or the items within that one.
        """
        query, values = "", list[object]()
        if of is not None:
            position, index = of
            query, values = "AND position = ?", [position]
            if index:
                query, values = (
                    f"{query} AND (item = ? OR item LIKE ?)",
                    [*values, item_of(index), f"{item_of(index)}/%"],
                )
        rows: list[Any] | None = None
        while rows is None or len(rows) == _LINES:
            with self.session() as db:  # closed while the caller works on the lines
                rows = db.execute(
                    f"SELECT id, position, level, time, message, item FROM lines WHERE run = ? AND id > ? {query}"
                    " ORDER BY id LIMIT ?",
                    (number, after, *values, _LINES),
                ).fetchall()
            for row in rows:
                after = row[0]
                yield after, Line(*row[1:])

    def _settle(self, db: sqlite3.Connection, row: RunRow) -> RunRow:
        """Return the same row or, if the process that ran it has died, that of a crashed run."""
        if row.status not in ("QUEUED", "RUNNING") or not _is_lost(row):
            return row
        folder = self.folder_of(row.run_id)
        self._check_no_link(folder)
        last_words = unread_output(folder, mark=False).decode(errors="replace").splitlines()
        ending = Ending("CANCELLED", "cancelled") if row.cancel else _crash(row, last_words, _job(db, row.number))
        if finish(db, row.run_id, ending):
            now = time.time()
            write(db, row.number, (), [Line(None, "INFO", now, storable_text(line)) for line in last_words])
            clear_folder(folder)
        fresh = db.execute(f"SELECT {RunRow.columns()} FROM runs WHERE number = ?", (row.number,)).fetchone()
        return RunRow(*fresh) if fresh else row


_ANOTHER_PLACE = "Set FLOWYML_HOME to a folder that you can write to, or use LocalOrchestrator(store=…)."
_WAYS_OUT = (
    "Its disk may be read-only, or full, which SQLite can report as an I/O error: `flowyml cache clear --all` frees "
    "space even then, `flowyml prune` frees more, and FLOWYML_HOME can name a folder on another disk. "
    "Or a step closed file descriptors that it did not open, as os.closerange does."
)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error.__cause__, sqlite3.DatabaseError):  # raised by a session within
            raise
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_READONLY"):
            raise ConfigurationError(
                f"The record of local runs, {path}, or its folder, cannot be written by this user: {error}. "
                f"{_ANOTHER_PLACE}"
            ) from error
        if not name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            message = f"The record of local runs, {path}, cannot be read or written: {error}. {_WAYS_OUT}"
            raise type(error)(message) from error
        raise ConfigurationError(
            f"The record of local runs, {path}, is damaged or not a SQLite file: {error}. Move it away: FlowyML "
            f"then starts a new one; `sqlite3 {path} .recover` saves what can still be read."
        ) from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the store, creating it if necessary. Raises ``ConfigurationError`` if that fails."""
    try:
        data_folder(path.parent)
        if not path.exists():
            private_file(path)
        db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.OperationalError) as error:
        raise ConfigurationError(
            f"The record of local runs cannot be opened at {path}: {error}. {_ANOTHER_PLACE}"
        ) from error
    try:
        check_is_record(db, path)
        private_file(path)
        prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def finish(db: sqlite3.Connection, run_id: str, ending: Ending) -> bool:
    """Record the end of a run; its unfinished steps end with it."""
    now, error = time.time(), ending.error and storable_text(ending.error)
    step_status = ending.status if ending.raw_status == "crashed" else "CANCELLED"
    with transaction(db):
        ended = db.execute(
            "UPDATE runs SET status = ?, raw_status = ?, error = ?, outputs = ?, ended = ?,"
            f" started = coalesce(started, created) WHERE run_id = ? AND {UNFINISHED} RETURNING number",
            (ending.status, ending.raw_status, error, _json(ending.outputs), now, run_id),
        ).fetchone()
        if ended:
            db.execute(
                "UPDATE steps SET status = CASE attempt WHEN 0 THEN 'CANCELLED' ELSE ? END, raw_status = ?, ended = ?"
                f" WHERE run = ? AND {UNFINISHED}",
                (step_status, ending.raw_status, now, ended[0]),
            )
        if ended and ending.status == "COMPLETED":
            db.execute("DELETE FROM jobs WHERE run = ?", ended)
            db.execute("DELETE FROM kept WHERE run = ?", ended)
    return ended is not None


def write(
    db: sqlite3.Connection, number: int, steps: Iterable[StepRow], lines: Iterable[Line], kept: Sequence[SavedRow] = ()
) -> None:
    """Record steps, lines and outputs. One statement for many rows, which runs without the interpreter's lock."""
    with transaction(db):
        for first in range(0, len(kept), _KEPT_AT_ONCE):
            db.execute(_WRITE_KEPT, {"run": number, "rows": _json(kept[first : first + _KEPT_AT_ONCE])})
        if rows := [row._replace(error=storable_text(row.error)) if row.error else row for row in steps]:
            db.execute(_WRITE_STEPS, {"run": number, "rows": _json(rows)})
        if texts := list(lines):
            db.execute(_WRITE_LINES, {"run": number, "rows": _json(texts)})


_WRITE_STEPS = """
INSERT INTO steps (run, position, status, raw_status, attempt, started, ended, error, item, cached_from)
SELECT :run, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
       json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]')
FROM json_each(:rows) WHERE true
ON CONFLICT (run, position, item) DO UPDATE SET status = excluded.status, raw_status = excluded.raw_status,
       attempt = excluded.attempt, started = excluded.started, ended = excluded.ended, error = excluded.error,
       cached_from = excluded.cached_from
"""

_KEPT_AT_ONCE = 1000  # of up to 64 KiB each: a text may have 1 GB

_WRITE_KEPT = """
INSERT OR REPLACE INTO kept (run, position, item, output, entry)
SELECT :run, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]')
FROM json_each(:rows)
"""

_WRITE_LINES = """
INSERT INTO lines (run, position, level, time, message, item)
SELECT :run, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]')
FROM json_each(:rows)
"""


def _json(value: object) -> str:
    return json.dumps(value, default=repr)


def _owner(owner: ProcessIdentity) -> tuple[str, int, str]:
    return owner.host, owner.pid, owner.born


def _is_lost(row: RunRow) -> bool:
    alive = is_alive(ProcessIdentity(row.host, row.pid, row.born))
    return not alive if alive is not None else time.time() - row.heartbeat > _SILENCE_SECONDS


def unread_output(folder: Path, *, mark: bool = True) -> bytes:
    """Read the output of a detached run's process that bypassed Python's streams since the last call with ``mark``."""
    output, place = folder / "output.log", folder / "output.read"
    try:
        with open_private(output, "rb") as file:
            file.seek(int(place.read_text()) if place.exists() else 0)
            data: bytes = file.read()
            if data and mark:
                with open_private(place, "w") as marking:
                    marking.write(str(file.tell()))
            return data
    except (OSError, ValueError):
        return b""


def clear_folder(folder: Path, *, all_of_it: bool = False) -> None:
    """Remove the folder of a run that has ended, except for the values that a retry needs."""
    if all_of_it or not (folder / KEPT).exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name != KEPT:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _job(db: sqlite3.Connection, number: int) -> Job | None:
    row = db.execute("SELECT job, orchestrator FROM jobs WHERE run = ?", (number,)).fetchone()
    return (json.loads(row[0]), row[1]) if row else None


def _crash(row: RunRow, last_words: Sequence[str], job: Job | None) -> Ending:
    when = "in the middle of the run" if row.status == "RUNNING" else "before the run began"
    can_go_on = job is not None and "lacks" not in job[0]  # a run by `pipeline.run()` has a job only at its end
    instead = f"`flowyml retry {quote(row.run_id)}` continues it." if can_go_on else "Run it under a new run id."
    error = (
        f"The process that ran it (id {row.pid} on {row.host}) died {when}: it was killed, ran out of memory or "
        f"crashed. {instead}"
    )
    if words := [line for line in last_words if line.strip()]:
        error += f" Its last output: {words[-1]}"
    return Ending("FAILED", "crashed", error)
