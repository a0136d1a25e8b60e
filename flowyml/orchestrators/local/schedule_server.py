"""Start the runs of schedules when they are due; APScheduler is the timer.

The schedule itself computes its times, by the same rules as everywhere in FlowyML: APScheduler's own cron trigger
counts weekdays from Monday, and requires that the day of the month and the weekday both match, while cron takes either.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from flowyml.core.errors import ConfigurationError, ScheduleNotFoundError
from flowyml.core.home import home
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.local.scheduled_runs import run_id_of, start
from flowyml.orchestrators.local.schedules import MOMENT, Kept, ScheduleStore
from flowyml.orchestrators.local.store import RunStore

__all__ = ["Server", "serve_schedules"]

logger = logging.getLogger("flowyml.schedules")

_LATE = timedelta(seconds=60)
"""Without catch-up, a run later than this is skipped. Until then, a run that could not be started is started again."""
_AGAIN_SECONDS = 5


def serve_schedules(
    store: str | os.PathLike[str] | None = None,
    stop_event: threading.Event | None = None,
    *,
    poll_seconds: float = 1,
) -> None:
    """Start the runs that come due, until ``stop_event`` is set; without one, forever.

    ``store`` is the path of the store, by default that of ``LocalOrchestrator()``. Schedules that are created, changed,
    paused or deleted meanwhile are noticed within ``poll_seconds``. Two servers of one store never start a run twice:
    its id consists of the schedule's id and the scheduled time.
    """
    path = home() / "runs.db" if store is None else Path(store).expanduser().absolute()
    Server(ScheduleStore(RunStore(path)), stop_event or threading.Event()).run(poll_seconds)


class Server:
    """Starts the due runs of one store. Each gets its own process and does not depend on this one."""

    def __init__(self, store: ScheduleStore, stop: threading.Event) -> None:
        self._store = store
        self._stop = stop
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(100)})
        self._versions: dict[str, int] = {}
        self._id = uuid4().hex
        self._trouble = ""

    def run(self, poll_seconds: float) -> None:
        """Run until the stop event; check for changed schedules this often."""
        self._store.record_heartbeat(self._id)  # a record that cannot be used is an error at once
        self._scheduler.start()
        try:
            while True:
                self._poll()
                if self._stop.wait(poll_seconds):
                    return
        finally:
            self._stop.set()
            self._scheduler.shutdown()
            self._store.remove_server(self._id)

    def _poll(self) -> None:
        """Read the schedules.

        Failures are logged, and the next poll may succeed: a full disk must not end all schedules.
        """
        trouble = ""
        try:
            self._store.record_heartbeat(self._id)
            self._follow_changes()
        except (sqlite3.Error, ConfigurationError) as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            logger.error("The schedules could not be read (%s); retrying until they can.", trouble)
        self._trouble = trouble

    def _follow_changes(self) -> None:
        kept = {item.schedule_id: item for item in self._store.all() if not item.paused}
        for schedule_id in self._versions.keys() - kept.keys():
            del self._versions[schedule_id]
            if self._scheduler.get_job(schedule_id):
                self._scheduler.remove_job(schedule_id)
        for schedule_id, item in kept.items():
            if self._versions.get(schedule_id) != item.version:
                self._versions[schedule_id] = item.version
                try:
                    self._plan(item)
                except Exception:  # the others still fire
                    logger.exception("Schedule %r of %r cannot be planned.", schedule_id, item.pipeline)

    def _plan(self, item: Kept) -> None:
        self._scheduler.add_job(
            self._fire, Trigger(item.schedule, _missed_after(item)), args=[item.schedule_id, item.version],
            id=item.schedule_id, name=item.pipeline, replace_existing=True,
            coalesce=True, max_instances=1, misfire_grace_time=None,
        )  # fmt: skip
        logger.info("Schedule %r of %r: %s.", item.schedule_id, item.pipeline, item.schedule)

    def _fire(self, schedule_id: str, version: int) -> None:
        """Start the due runs; missed ones start one after another."""
        while item := self._still_wanted(schedule_id, version):
            now = datetime.now(UTC)
            due = due_now(item, now)
            if due is None:
                self._skip(item, now)
                return
            run_id = run_id_of(schedule_id, due)
            try:
                if start(self._store.runs, item, due):
                    logger.info("Run %r of %r has started.", run_id, item.pipeline)
            except Exception:
                logger.exception("The run of %r that was due at %s could not be started.", item.pipeline, due)
                if datetime.now(UTC) - due < _LATE:  # a database that was busy, a disk that was full
                    self._stop.wait(_AGAIN_SECONDS)
                    continue
            self._store.mark_fired(schedule_id, due)
            if not item.schedule.catch_up:
                return
            self._wait_for(run_id)

    def _skip(self, item: Kept, now: datetime) -> None:
        """Log the first of the times that are too late, if there are any: another server may have run them."""
        times = item.schedule.next_times(1, item.seen + MOMENT)
        if times and times[0] <= now:
            logger.warning("Schedule %r of %r skips %s, which is more than a minute late.",
                           item.schedule_id, item.pipeline, times[0])  # fmt: skip
            self._store.mark_fired(item.schedule_id, now)

    def _still_wanted(self, schedule_id: str, version: int) -> Kept | None:
        try:
            item = self._store.get(schedule_id)
        except ScheduleNotFoundError:
            return None
        changed = item.paused or item.version != version or self._stop.is_set()
        return None if changed else item

    def _wait_for(self, run_id: str) -> None:
        while not self._stop.wait(0.5):
            row = self._store.runs.find(run_id)
            if row is None or row.status not in ("QUEUED", "RUNNING"):
                return


class Trigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Gives APScheduler the next time of a schedule. The server itself counts missed times."""

    def __init__(self, schedule: Schedule, after: datetime) -> None:
        self._schedule = schedule
        self._after = after

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """Return the first time after the last one, or None if the schedule has ended."""
        after = self._after if previous is None else max(previous + MOMENT, now)
        times = self._schedule.next_times(1, after)
        return times[0] if times else None


def due_now(item: Kept, now: datetime) -> datetime | None:
    """Return the time of the run to start now: with catch-up the earliest missed one, else the latest."""
    due = None
    after = _missed_after(item, now)
    while (times := item.schedule.next_times(1, after)) and times[0] <= now:
        due, after = times[0], times[0] + MOMENT
        if item.schedule.catch_up:
            break
    return due


def _missed_after(item: Kept, now: datetime | None = None) -> datetime:
    seen = item.seen + MOMENT
    return seen if item.schedule.catch_up else max(seen, (now or datetime.now(UTC)) - _LATE)
