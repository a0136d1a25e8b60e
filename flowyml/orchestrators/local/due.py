"""Runs that are for a time of a schedule: their ids, and starting one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from flowyml.orchestrators.bundled import BundledPipeline
from flowyml.orchestrators.local.detached import start_run
from flowyml.orchestrators.local.schedules import Kept
from flowyml.orchestrators.local.store import RunStore

__all__ = ["run_id_of", "start", "time_of"]

_WHOLE, _PARTS = "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S.%fZ"


def run_id_of(schedule_id: str, due: datetime) -> str:
    """The id of the one run for this time, however often it is started.

    >>> run_id_of("daily", datetime(2026, 3, 1, 6, tzinfo=UTC))
    'daily-20260301T060000Z'
    """
    moment = due.astimezone(UTC)
    return f"{schedule_id}-{moment.strftime(_PARTS if moment.microsecond else _WHOLE)}"


def time_of(schedule_id: str, run_id: str) -> datetime | None:
    """The time that a run is for; None for one that is not the schedule's.

    >>> str(time_of("daily", "daily-20260301T060000Z")), time_of("daily", "daily-2026"), time_of("daily", "x")
    ('2026-03-01 06:00:00+00:00', None, None)
    """
    text = run_id.removeprefix(f"{schedule_id}-")
    try:
        found = datetime.strptime(text, _PARTS if "." in text else _WHOLE).replace(tzinfo=UTC)
    except ValueError:
        return None
    return found if run_id_of(schedule_id, found) == run_id else None


def start(store: RunStore, item: Kept, due: datetime) -> bool:
    """Start the run for this time, in a process of its own. False where it was started before."""
    path = Path(item.bundle)
    pipeline = BundledPipeline(path)
    parameters = pipeline.check_parameters(item.schedule.parameters)
    run_id, dates = run_id_of(item.schedule_id, due), item.schedule.dates_at(due)
    return start_run(store, path, pipeline.bundle(), run_id, parameters, item.orchestrator, dates)
