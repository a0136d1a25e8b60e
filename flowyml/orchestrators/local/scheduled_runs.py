"""Runs for the times of a schedule: their ids, and starting one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from flowyml.core.errors import OwnershipError
from flowyml.core.origin import Origin
from flowyml.core.runs import Run
from flowyml.orchestrators.bundled import BundledPipeline
from flowyml.orchestrators.local.detached import start_run
from flowyml.orchestrators.local.records import run_of
from flowyml.orchestrators.local.schedules import Kept, ScheduleStore
from flowyml.orchestrators.local.schema import RunRow
from flowyml.orchestrators.local.store import RunStore
from flowyml.plan.names import slug

__all__ = ["run_id_of", "runs_by_time", "start", "time_of"]

_DATE = "[0-9]" * 8 + "T" + "[0-9]" * 6  # for SQLite's GLOB
_WHOLE, _PARTS = "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S.%fZ"


def run_id_of(schedule_id: str, due: datetime) -> str:
    """Return the id of the one run for this time, however often it is started.

    >>> run_id_of("daily", datetime(2026, 3, 1, 6, tzinfo=UTC))
    'daily-20260301T060000Z'
    """
    moment = due.astimezone(UTC)
    return f"{schedule_id}-{moment.strftime(_PARTS if moment.microsecond else _WHOLE)}"


def time_of(schedule_id: str, run_id: str) -> datetime | None:
    """Return the scheduled time of a run; None if the run is not the schedule's.

    >>> str(time_of("daily", "daily-20260301T060000Z")), time_of("daily", "daily-2026"), time_of("daily", "x")
    ('2026-03-01 06:00:00+00:00', None, None)
    """
    text = run_id.removeprefix(f"{schedule_id}-")
    try:
        moment = datetime.strptime(text, _PARTS if "." in text else _WHOLE).replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment if run_id_of(schedule_id, moment) == run_id else None


def start(store: RunStore, item: Kept, due: datetime) -> bool:
    """Start the run for this time, in its own process. Return False if it was started before.

    Raises ``OwnershipError`` if another pipeline's run has its id: nothing has run for this time then.
    """
    path = Path(item.bundle)
    pipeline = BundledPipeline(path)
    parameters = pipeline.check_parameters(item.schedule.parameters)
    run_id, dates = run_id_of(item.schedule_id, due), item.schedule.dates_at(due)
    bundle = pipeline.bundle()
    if start_run(store, path, bundle, run_id, parameters, item.orchestrator, dates):
        return True
    run = store.get(run_id)
    if run.pipeline != item.pipeline or not _may_be_from(bundle.origin, run):
        raise OwnershipError(
            f"The schedule {item.schedule_id!r} has not run for {due}: run {run_id!r} already exists, of pipeline "
            f"{run.pipeline!r} from {_origin(run) or 'an unknown project'}. Run this one by hand, or schedule it "
            f"under another name."
        )
    return False


def runs_by_time(schedules: ScheduleStore, pipeline: str, limit: int) -> dict[datetime, Run]:
    """Return the newest runs of a schedule by their scheduled times, without those of another project's pipeline."""
    schedule_id = slug(pipeline)
    origin, runs = schedules.origin_of(schedule_id), {}
    for row in schedules.runs.runs(pipeline, limit, f"{schedule_id}-{_DATE}*Z"):
        time = time_of(schedule_id, row.run_id)
        if time and _may_be_from(origin, row):
            runs[time] = run_of(row)
    return runs


def _may_be_from(origin: Origin | None, row: RunRow) -> bool:
    """Return whether a run may be from an origin; True if one of the origins is unknown."""
    return origin is None or _origin(row) in (None, origin)


def _origin(row: RunRow) -> Origin | None:
    return Origin.from_dict(json.loads(row.origin or "null"))
