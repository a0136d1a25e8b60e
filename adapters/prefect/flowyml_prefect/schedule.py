"""Convert a schedule to Prefect's notation, and back.

Prefect's cron and interval schedules have neither start nor end, but its recurrence rules (RFC 5545) have both. So a
schedule with a start or an end becomes such a rule. The slug of the schedule then has the original.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import EngineError, ScheduleError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.core.web import parsed
from flowyml_prefect.names import PIPELINE
from flowyml_prefect.parameters import read_parameters

__all__ = [
    "MADE_UP", "SET", "SLUG", "as_set", "from_prefect", "is_active", "is_ours", "own_schedule", "schedule_info",
    "to_prefect", "was_edited",
]  # fmt: skip

SLUG = "flowyml"
MADE_UP = "flowyml.made_up"
"""The label of a run for a missed time of the schedule, which flows read; and its tag, by which the run is found."""
SET = "x-flowyml-schedule"
"""The key in a deployment's parameter schema with the digest (``as_set``) of the schedule that FlowyML set."""

_TIMING = ("cron", "day_or", "interval", "anchor_date", "rrule", "timezone")
_EDITED = (
    "it was changed by hand, as in Prefect's UI: schedule the pipeline again with --force, or put the change into the "
    "pipeline."
)
_EPOCH = datetime.fromtimestamp(0, UTC)


def to_prefect(schedule: Schedule) -> dict[str, Any]:
    """Return the ``schedule`` and ``slug`` of a deployment schedule.

    Raises ``ScheduleError`` for one that Prefect cannot follow.
    """
    notes = {
        name: value
        for name, value in schedule.to_dict().items()
        if name in ("cron", "interval_seconds", "start", "end", "catch_up")
    }
    bounded = schedule.start is not None or schedule.end is not None
    if bounded and schedule.cron is None:
        notes["timezone"] = schedule.timezone
    return {
        "schedule": _rule(schedule) if bounded else _plain(schedule),
        "slug": f"{SLUG} {json.dumps(notes)}" if bounded or schedule.catch_up else SLUG,
    }


def from_prefect(plain: Mapping[str, Any]) -> Schedule:
    """Decode a schedule that ``to_prefect`` encoded, with changes that were made by hand since."""
    kept, slug = plain["schedule"], plain.get("slug") or ""
    notes = _notes(slug)
    parameters = read_parameters(plain.get("parameters") or {})
    zone = (notes.get("timezone") if "rrule" in kept else None) or kept.get("timezone") or "UTC"
    options: dict[str, Any] = {"timezone": zone, "parameters": parameters}
    options |= {name: datetime.fromisoformat(notes[name]) for name in ("start", "end") if name in notes}
    if "rrule" in kept:
        timing = {name: notes[name] for name in ("cron", "interval_seconds") if name in notes}
    elif "cron" in kept:
        timing = {"cron": kept["cron"]}
    else:
        timing = {"interval_seconds": float(kept["interval"])}
    return Schedule(**timing, **options, catch_up=notes.get("catch_up", False))


def is_ours(plain: Mapping[str, Any]) -> bool:
    """Return whether FlowyML created this deployment schedule."""
    slug = plain.get("slug") or ""
    return slug == SLUG or bool(_notes(slug))


def own_schedule(deployment: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schedule of a deployment that FlowyML created, or None."""
    return next((schedule for schedule in deployment.get("schedules") or () if is_ours(schedule)), None)


def is_active(deployment: Mapping[str, Any]) -> bool:
    """Return whether FlowyML's schedule of this deployment is active."""
    schedule = own_schedule(deployment)
    return schedule is not None and bool(schedule["active"])


def as_set(schedule: Mapping[str, Any]) -> str:
    """Return a digest of the times and the parameters of a deployment schedule, as the server has it."""
    kept = schedule["schedule"]
    parts = {name: kept[name] for name in _TIMING if kept.get(name) is not None}
    text = json.dumps([parts, schedule.get("parameters") or {}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def was_edited(deployment: Mapping[str, Any]) -> bool:
    """Return whether FlowyML's schedule of a deployment was changed by hand since, as in Prefect's UI."""
    schedule = own_schedule(deployment)
    noted = (deployment.get("parameter_openapi_schema") or {}).get(SET)
    return schedule is not None and noted is not None and noted != as_set(schedule)


def schedule_info(deployment: Mapping[str, Any], planned: Sequence[datetime]) -> ScheduleInfo:
    """Return FlowyML's schedule of this deployment, and its planned runs."""
    schedule = own_schedule(deployment)
    assert schedule is not None
    return ScheduleInfo(
        schedule_id=deployment["id"],
        pipeline=deployment["labels"].get(PIPELINE, deployment["name"]),
        schedule=from_prefect(schedule),
        paused=not schedule["active"],
        next_runs=tuple(planned) if schedule["active"] else (),
        drift=(_EDITED,) if was_edited(deployment) else (),
    )


def _notes(slug: str) -> dict[str, Any]:
    word, _, rest = slug.partition(" ")
    try:
        notes = parsed(rest.encode()) if word == SLUG and rest else {}
    except (ValueError, EngineError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _plain(schedule: Schedule) -> dict[str, Any]:
    if schedule.cron is not None:
        return {"cron": schedule.cron, "timezone": schedule.timezone}
    return {"interval": schedule.interval_seconds, "anchor_date": _EPOCH.isoformat(), "timezone": schedule.timezone}


def _rule(schedule: Schedule) -> dict[str, Any]:
    """Write a recurrence rule. DTSTART and UNTIL are in the rule's time zone, as Prefect requires.

    For a cron expression that is the schedule's time zone. For an interval it is UTC: Prefect counts in wall-clock
    time, which shows an hour twice when clocks go back. DTSTART is the next run from now: Prefect counts from it each
    time that it plans.
    """
    from zoneinfo import ZoneInfo

    if schedule.cron is not None:
        timezone, rule = schedule.timezone, _cron_rule(schedule.cron)
    else:
        timezone, rule = "UTC", _interval_rule(schedule)
    zone = ZoneInfo(timezone)
    first = schedule.next_times() or [schedule.end or datetime.now(UTC)]
    until = f";UNTIL={_moment(schedule.end.astimezone(zone))}" if schedule.end else ""
    return {"rrule": f"DTSTART:{_moment(first[0].astimezone(zone))}\nRRULE:{rule}{until}", "timezone": timezone}


def _moment(time: datetime) -> str:
    return f"{time:%Y%m%dT%H%M%S}"


def _interval_rule(schedule: Schedule) -> str:
    seconds = schedule.interval_seconds or 0
    if seconds != int(seconds):
        raise ScheduleError(
            f"On Prefect an interval with a start or an end is a whole number of seconds, not {seconds:g}."
        )
    return f"FREQ=SECONDLY;INTERVAL={int(seconds)}"


def _cron_rule(cron: str) -> str:
    """Write five fields as a daily rule, or as a monthly one for weekdays counted in the month (``1#2``, ``L5``)."""
    from croniter import croniter

    (minutes, hours, days, months, weekdays), counted = croniter.expand(cron)
    if days != ["*"] and weekdays != ["*"]:
        raise ScheduleError(
            f"cron {cron!r} names days of the month and of the week. With a start or an end, Prefect can keep only one "
            f"of them. Make it two pipelines, or leave out start and end."
        )
    parts = [f"BYHOUR={_listed(hours, range(24))}", f"BYMINUTE={_listed(minutes, range(60))}", "BYSECOND=0"]
    if days != ["*"]:
        parts.append(f"BYMONTHDAY={_listed(['-1' if day == 'l' else day for day in days], ())}")
    if months != ["*"]:
        parts.append(f"BYMONTH={_listed(months, ())}")
    if weekdays != ["*"]:
        parts.append("BYDAY=" + ",".join(_weekdays(weekdays, counted)))
    return ";".join([f"FREQ={'MONTHLY' if counted else 'DAILY'}", *parts])


def _weekdays(weekdays: Sequence[Any], counted: Mapping[int, Iterable[Any]]) -> Iterator[str]:
    """Yield each weekday as in RFC 5545. ``counted`` has the ones of a month that are meant; empty for all."""
    for day in weekdays:
        name = ("SU", "MO", "TU", "WE", "TH", "FR", "SA")[int(day) % 7]
        for number in sorted(map(str, counted.get(day, [""]))):
            yield f"{'-1' if number == 'l' else number}{name}"


def _listed(values: Sequence[Any], everything: Sequence[int]) -> str:
    return ",".join(map(str, everything if list(values) == ["*"] else values))
