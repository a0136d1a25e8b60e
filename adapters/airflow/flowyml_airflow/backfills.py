"""Arguments of a backfill: whole days, and parameters that the pipeline has."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowyml.core.durations import counted
from flowyml.core.errors import ScheduleError
from flowyml_airflow.deployed_dag import Deployed
from flowyml_airflow.parameters import conf_of

__all__ = ["backfill", "days", "zone_of"]

logger = logging.getLogger("flowyml.airflow")

_MOMENT = timedelta(microseconds=1)


def backfill(
    deployed: Deployed, start: date, end: date, parameters: Mapping[str, Any], **options: Any
) -> list[dict[str, Any]]:
    """Create a backfill and return its runs, by date; empty, and logged, if every time has its run already.

    Raises ``ScheduleError`` if the range has no time of FlowyML's schedule. For other schedules Airflow reports it.
    """
    client, dag, dates = deployed.client, deployed.dag["dag_id"], days(start, end, zone_of(deployed))
    deployed.check_parameters(parameters)
    if deployed.schedule and not any(time <= dates[1] for time in deployed.schedule.next_times(1, dates[0] - _MOMENT)):
        raise _no_time(deployed, dates)
    before = {_identity(run) for run in client.runs([dag], None, dates)} if client.can_backfill else set()
    client.backfill(dag, *dates, conf_of(parameters), **options)
    runs_there = client.runs([dag], None, dates)
    dag_runs = [run for run in runs_there if run.get("run_type") == "backfill" and _identity(run) not in before]
    if not dag_runs:
        _check_done(deployed, dates, [run for run in runs_there if run.get("run_type") in ("scheduled", "backfill")])
    return sorted(dag_runs, key=lambda run: str(run.get("logical_date")))


def _no_time(deployed: Deployed, dates: tuple[datetime, datetime]) -> ScheduleError:
    start = deployed.schedule.start if deployed.schedule else None
    since = f": it starts at {start}" if start and dates[0] < start else ""
    return ScheduleError(
        f"The schedule of {deployed.dag['dag_id']!r} has no run from {dates[0]} to {dates[1]}{since}. Choose another "
        f"range; `{deployed.client.command('schedule list')}` shows the schedule."
    )


def _check_done(deployed: Deployed, dates: tuple[datetime, datetime], there: Sequence[Mapping[str, Any]]) -> None:
    """Log that every time of the range has its run; raise ``ScheduleError`` if the range cannot have a run."""
    if not there:
        raise _no_time(deployed, dates)
    failed = sum(run.get("state") == "failed" for run in there)
    more = f". {failed} of them failed: reprocess_behavior='failed' runs those again" if failed else ""
    logger.warning(
        "The backfill of %r started no run: every scheduled time from %s to %s already has one (%s)%s.",
        deployed.dag["dag_id"], *dates, counted(len(there), "run"), more,
    )  # fmt: skip


def days(start: date, end: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return the first and the last moment of a range. A date is a whole day in ``zone``.

    A ``datetime`` is that moment.

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


def zone_of(deployed: Deployed) -> tzinfo:
    """Return the time zone of a DAG's dates: that of FlowyML's schedule, else the DAG's own."""
    name = str((deployed.schedule.timezone if deployed.schedule else deployed.dag.get("timezone")) or "UTC")
    with suppress(ZoneInfoNotFoundError, ValueError):
        return ZoneInfo(name)
    with suppress(ValueError):
        return datetime.strptime(name, "%z").tzinfo or UTC  # a fixed offset: "+01:00"
    return UTC


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _identity(run: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the id of a run and the time when it was queued, since a backfill may repeat a run that exists."""
    return run["dag_run_id"], run.get("queued_at")
