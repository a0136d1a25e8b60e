"""What a backfill is asked for: whole days, and parameters that the pipeline has."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowyml.core.errors import EngineError, ScheduleError
from flowyml_airflow.deployed import Deployed

__all__ = ["backfill", "days", "zone_of"]


def backfill(
    found: Deployed, start: date, end: date, parameters: Mapping[str, Any], **options: Any
) -> list[dict[str, Any]]:
    """Make a backfill, and give its runs, by date. Raises ``EngineError`` when there are none."""
    client, dag, dates = found.client, found.dag["dag_id"], days(start, end, zone_of(found))
    found.check_parameters(parameters)
    before = {_identity(run) for run in client.runs([dag], None, dates)} if client.can_backfill else set()
    number = client.backfill(dag, *dates, parameters, **options)
    runs = [run for run in client.runs([dag], None, dates) if run.get("run_type") == "backfill"]
    made = [run for run in runs if _identity(run) not in before]
    if not made:
        raise EngineError(
            f"Backfill {number} of {dag!r} made no run: its schedule has no time in that range, or each of them "
            f"has its run. reprocess_behavior='failed' or 'completed' runs those again."
        )
    return sorted(made, key=lambda run: str(run.get("logical_date")))


def days(start: date, end: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The first and the last moment of a range. A date is a whole day in ``zone``, a ``datetime`` itself.

    Raises ``ScheduleError`` for a range that ends before it starts.

    >>> [str(moment) for moment in days(date(2026, 3, 1), date(2026, 3, 31), ZoneInfo("Europe/Berlin"))]
    ['2026-03-01 00:00:00+01:00', '2026-03-31 23:59:59.999999+02:00']
    """
    first = _aware(start) if isinstance(start, datetime) else datetime.combine(start, time(), zone)
    if isinstance(end, datetime):
        last = _aware(end)
    else:
        last = datetime.combine(end + timedelta(days=1), time(), zone) - timedelta(microseconds=1)
    if last < first:
        raise ScheduleError(f"A backfill from {start} to {end} ends before it starts. Give the earlier date first.")
    return first, last


def zone_of(found: Deployed) -> ZoneInfo:
    """The time zone that a DAG's dates are meant in: that of FlowyML's schedule, else the DAG's own."""
    name = found.schedule.timezone if found.schedule else found.dag.get("timezone")
    try:
        return ZoneInfo(str(name or "UTC"))
    except (ZoneInfoNotFoundError, ValueError):  # Airflow writes fixed offsets as "+01:00"
        return ZoneInfo("UTC")


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _identity(run: Mapping[str, Any]) -> tuple[str, str | None]:
    """A run, and when it was queued: a backfill may run one again that was there."""
    return run["dag_run_id"], run.get("queued_at")
