"""The dates of a run, from the context of its task. This file travels in the bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from flowyml.core.dates import RunDates
from flowyml.plan.marks import mark_of

if TYPE_CHECKING:
    from flowyml.core.schedule import Schedule

__all__ = ["dates_of"]

logger = logging.getLogger("airflow.task")


def dates_of(context: Mapping[str, Any]) -> RunDates:
    """Return the dates of a run by FlowyML's schedule or a backfill.

    The timetables that FlowyML uses have no interval: Airflow uses the logical date for its start and its end. A run by
    hand, or by an operator in another DAG, is for the time of the request, unless it was given a logical date, and has
    a data interval only if it was given one.
    """
    run = context.get("dag_run")
    began = getattr(run, "run_after", None) or getattr(run, "start_date", None)
    moment = getattr(run, "logical_date", None) or began
    if moment is None:
        return RunDates()
    schedule = _schedule(context)
    if schedule and str(getattr(run, "run_type", "manual")).rpartition(".")[2].lower() in ("scheduled", "backfill"):
        return schedule.dates_at(moment, picks="later")  # source: make_aware of Airflow
    zone = ZoneInfo(schedule.timezone if schedule else "UTC")
    interval = getattr(run, "data_interval_start", None), getattr(run, "data_interval_end", None)
    start, end = (None, None) if interval == (moment, moment) else interval  # as Airflow fills it in
    return RunDates(
        logical_date=moment.astimezone(zone),
        data_interval_start=start and start.astimezone(zone),
        data_interval_end=end and end.astimezone(zone),
    )


def _schedule(context: Mapping[str, Any]) -> Schedule | None:
    """Return the schedule in the DAG file."""
    try:
        mark = mark_of(Path(context["dag"].fileloc).read_bytes())
        if not (mark and (plain := mark.facts.get("schedule"))):
            return None
        from flowyml.core.schedule import Schedule

        return Schedule.from_dict(plain)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        logger.warning("The schedule of this run cannot be read from its DAG file.", exc_info=True)
        return None
