"""Schedules of local runs: stored in the database, active while ``flowyml schedule serve`` runs."""

from __future__ import annotations

import json
import sqlite3
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import ScheduleNotFoundError
from flowyml.core.origin import Origin
from flowyml.core.plain_text import storable_text
from flowyml.core.process_identity import ProcessIdentity, is_alive, this_process
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.local.schema import transaction
from flowyml.orchestrators.local.store import RunStore
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.plan.names import slug
from flowyml.plan.parameters import check_values

if TYPE_CHECKING:
    from flowyml.plan.model import Plan

__all__ = ["MOMENT", "Kept", "ScheduleStore", "warn_unless_served"]

_COLUMNS = "schedule_id, pipeline, bundle, orchestrator, schedule, paused, version, seen"
_SHOWN = 5
MOMENT = timedelta(microseconds=1)
_SILENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Kept:
    """A schedule as it is stored; ``version`` counts changes.

    ``seen`` is the last time that was run; before that, the time of creation, or the start with catch-up.
    """

    schedule_id: str
    pipeline: str
    bundle: str
    orchestrator: bytes
    schedule: Schedule
    paused: bool
    version: int
    seen: datetime

    @property
    def info(self) -> ScheduleInfo:
        now = datetime.now(UTC)
        times = () if self.paused else tuple(self.schedule.next_times(_SHOWN, now))
        is_behind = self.schedule.catch_up and not self.paused
        return ScheduleInfo(
            schedule_id=self.schedule_id, pipeline=self.pipeline, schedule=self.schedule,
            paused=self.paused, next_runs=times,
            missed=self.schedule.count_between(self.seen + MOMENT, now) if is_behind else 0,
        )  # fmt: skip


class ScheduleStore:
    """The schedules in a store: one for each pipeline."""

    def __init__(self, store: RunStore) -> None:
        self.runs = store

    def put(
        self, pipeline: str, bundle: str, orchestrator: bytes, schedule: Schedule,
        *, origin: Origin | None = None, force: bool = False,
    ) -> Kept:  # fmt: skip
        """Create the pipeline's schedule or change it; it keeps its id and stays paused if it is.

        Raises ``OwnershipError`` for one that belongs to a pipeline from elsewhere, unless ``force`` is given.
        """
        schedule_id = slug(pipeline)
        with self.runs.session() as db, transaction(db):
            self._check_owner(db, schedule_id, origin, force)
            row = db.execute("SELECT schedule, seen FROM schedules WHERE schedule_id = ?", (schedule_id,)).fetchone()
            db.execute(
                "INSERT INTO schedules (schedule_id, pipeline, bundle, orchestrator, schedule, seen, origin, paused)"
                " VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (schedule_id) DO UPDATE SET bundle = excluded.bundle,"
                " orchestrator = excluded.orchestrator, schedule = excluded.schedule, version = version + 1,"
                " seen = excluded.seen, origin = excluded.origin",
                (schedule_id, pipeline, bundle, orchestrator, json.dumps(schedule.to_dict()),
                 _seen(schedule, *row or ()), origin and json.dumps(origin.to_dict()), schedule.paused),
            )  # fmt: skip
        return self.get(schedule_id)

    def move(self, plan: Plan, bundle: str, origin: Origin | None, *, force: bool) -> list[str]:
        """Record what is deployed, and have the pipeline's schedule, if any, run it; return its id if it changed.

        Raises ``OwnershipError`` as ``put`` does, and ``ParameterError`` when the bundle does not take its parameters.
        """
        schedule_id = slug(plan.name)
        with self.runs.session() as db, transaction(db):
            self._check_move(db, plan, origin, force)
            db.execute("INSERT OR REPLACE INTO deployed (pipeline, bundle) VALUES (?,?)", (plan.name, bundle))
            moved = db.execute(
                "UPDATE schedules SET bundle = :bundle, origin = :origin, version = version + 1"
                " WHERE schedule_id = :id AND bundle != :bundle",
                {"bundle": bundle, "origin": origin and json.dumps(origin.to_dict()), "id": schedule_id},
            )
            return [schedule_id] if moved.rowcount else []

    def check_move(self, plan: Plan, origin: Origin | None, *, force: bool) -> None:
        """Raise what ``move`` would raise, without changing anything."""
        with self.runs.session() as db:
            self._check_move(db, plan, origin, force)

    def _check_move(self, db: sqlite3.Connection, plan: Plan, origin: Origin | None, force: bool) -> None:
        schedule_id = slug(plan.name)
        self._check_owner(db, schedule_id, origin, force)
        row = db.execute("SELECT schedule FROM schedules WHERE schedule_id = ?", (schedule_id,)).fetchone()
        if row:
            check_values(plan.name, plan.parameters, json.loads(row[0]).get("parameters"))

    def _check_owner(self, db: sqlite3.Connection, schedule_id: str, origin: Origin | None, force: bool) -> None:
        row = db.execute("SELECT origin FROM schedules WHERE schedule_id = ?", (schedule_id,)).fetchone()
        if row:
            what = f"the schedule {schedule_id!r} in {self.runs.path}"
            check_replaceable(Origin.from_dict(json.loads(row[0] or "null")), origin, what, force=force)

    def get(self, schedule_id: str) -> Kept:
        """Return a schedule. Raises ``ScheduleNotFoundError``."""
        with self.runs.session() as db:
            query = f"SELECT {_COLUMNS} FROM schedules WHERE schedule_id = ?"
            row = db.execute(query, (storable_text(schedule_id),)).fetchone()
        if row is None:
            raise _not_found(schedule_id)
        return _kept(row)

    def origin_of(self, schedule_id: str) -> Origin | None:
        """Return the origin of its pipeline; None if that is unknown, or there is no such schedule."""
        with self.runs.session() as db:
            query = "SELECT origin FROM schedules WHERE schedule_id = ?"
            row = db.execute(query, (storable_text(schedule_id),)).fetchone()
        return Origin.from_dict(json.loads(row[0] or "null")) if row else None

    def all(self, pipeline: str | None = None) -> list[Kept]:
        """Return every schedule, or that of one pipeline. Leaves out, with a warning, one that cannot be read."""
        with self.runs.session() as db:
            query = f"SELECT {_COLUMNS} FROM schedules WHERE :name IS NULL OR pipeline = :name ORDER BY schedule_id"
            return [
                kept
                for row in db.execute(query, {"name": pipeline and storable_text(pipeline)})
                if (kept := _readable(row))
            ]

    def pause(self, schedule_id: str, paused: bool) -> Kept:
        """Pause or resume a schedule; times that came in between are not run."""
        with self.runs.session() as db:
            db.execute(
                "UPDATE schedules SET paused = :paused, version = version + 1, seen = :now WHERE schedule_id = :id"
                " AND paused != :paused",
                {"paused": paused, "now": time.time(), "id": storable_text(schedule_id)},
            )
        return self.get(schedule_id)

    def delete(self, schedule_id: str) -> None:
        """Remove it. Raises ``ScheduleNotFoundError``."""
        with self.runs.session() as db:
            if not db.execute("DELETE FROM schedules WHERE schedule_id = ?", (storable_text(schedule_id),)).rowcount:
                raise _not_found(schedule_id)

    def mark_fired(self, schedule_id: str, due: datetime) -> None:
        """Record that a run was started for this time; never moves backwards."""
        with self.runs.session() as db:
            db.execute("UPDATE schedules SET seen = max(seen, ?) WHERE schedule_id = ?", (due.timestamp(), schedule_id))

    # Processes that serve schedules.

    def record_heartbeat(self, server: str) -> None:
        """Record that this process serves the schedules of this store."""
        owner = this_process()
        with self.runs.session() as db:
            db.execute(
                "INSERT INTO servers (id, host, pid, born, heartbeat) VALUES (?,?,?,?,?)"
                " ON CONFLICT (id) DO UPDATE SET heartbeat = excluded.heartbeat",
                (server, owner.host, owner.pid, owner.born, time.time()),
            )

    def remove_server(self, server: str) -> None:
        """Remove this process from those that serve."""
        with self.runs.session() as db:
            db.execute("DELETE FROM servers WHERE id = ?", (server,))

    def is_served(self) -> bool:
        """Return True if a process serves the schedules now."""
        with self.runs.session() as db:
            rows = db.execute(
                "SELECT host, pid, born FROM servers WHERE heartbeat > ?", (time.time() - _SILENCE_SECONDS,)
            )
            return any(is_alive(ProcessIdentity(*row)) is not False for row in rows)


def warn_unless_served(store: ScheduleStore) -> None:
    """Warn if no process serves schedules: otherwise that may go unnoticed for weeks."""
    if not store.is_served():
        warnings.warn(
            "The schedule is saved, but nothing will fire until `flowyml schedule serve` runs on this machine.",
            UserWarning,
            stacklevel=8,  # the caller of `schedule`, beyond the decorators that check its options
        )


def _seen(schedule: Schedule, before: str = "{}", seen: float = 0) -> float:
    """Return the time after which a new or replaced schedule has its first run.

    Catching up begins at the start, as on Airflow and Kubeflow, or at the last time of the previous schedule if it
    caught up too. An existing run is not repeated.
    """
    if before == json.dumps(schedule.to_dict()) or (schedule.catch_up and json.loads(before).get("catch_up")):
        return seen
    now = time.time()
    return max(0.0, min(now, schedule.start.timestamp() - 1)) if schedule.catch_up and schedule.start else now


def _not_found(schedule_id: str) -> ScheduleNotFoundError:
    return ScheduleNotFoundError(f"No local schedule has the id {schedule_id!r}. `flowyml schedule list` lists them.")


def _readable(row: tuple[Any, ...]) -> Kept | None:
    """Read a schedule; None for one that another release or a person wrote, which must not break the others."""
    try:
        return _kept(row)
    except (ValueError, TypeError) as error:
        warnings.warn(
            f"Schedule {row[0]!r} is left out, since it cannot be read: {error} Create it again, or delete it: "
            f"flowyml schedule delete {row[0]}",
            UserWarning,
            stacklevel=4,
        )
        return None


def _kept(row: tuple[Any, ...]) -> Kept:
    schedule_id, pipeline, bundle, orchestrator, schedule, paused, version, seen = row
    return Kept(
        schedule_id, pipeline, bundle, orchestrator, Schedule.from_dict(json.loads(schedule)),
        bool(paused), version, datetime.fromtimestamp(seen, UTC),
    )  # fmt: skip
