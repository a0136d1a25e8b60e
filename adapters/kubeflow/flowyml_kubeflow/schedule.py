"""Convert schedules to KFP's recurring runs, and back.

KFP's cron has six fields, seconds first: five would be read with the minutes as seconds, and run hourly instead of
daily (KFP issue 2318). Its time zone is one setting of the server, UTC unless an administrator changed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.schedule import Schedule

__all__ = ["kfp_cron", "kfp_interval", "kfp_start"]

_YEARS = 3  # how far ahead a change of the offset is looked for
_SIZES = (60, 24, 31, 12, 7)  # of the fields of a cron
_NAME = "[0-9]+|[A-Za-z]{3}"
_FIELD = re.compile(rf"(\*|({_NAME})(-({_NAME}))?)(/[0-9]+)?")


def kfp_cron(schedule: Schedule) -> str:
    """Return six fields in UTC. Raises ``UnsupportedFeatureError`` if KFP could not follow the schedule.

    >>> kfp_cron(Schedule(cron="10 10 * * *"))
    '0 10 10 * * *'
    >>> kfp_cron(Schedule(cron="30 8 * * MON-FRI", timezone="Asia/Kolkata"))
    '0 0 3 * * 1,2,3,4,5'
    >>> kfp_cron(Schedule(cron="*/15 0 */10 * MON"))
    '0 */15 0 1,11,21,31 * 1'
    """
    assert schedule.cron is not None
    fields = schedule.cron.split()
    for field in fields:
        if not all(_FIELD.fullmatch(part) for part in field.split(",")):
            raise UnsupportedFeatureError(f"cron {schedule.cron!r}: KFP's scheduler does not know {field!r}.")
    numbers = _numbers(schedule.cron)
    written = [_written(*parts) for parts in zip(fields, numbers, _SIZES, strict=True)]
    # For KFP's scheduler ``*/2`` is a star, beside which only the weekday counts (robfig/cron, getField, dayMatches).
    written[2] = _list(numbers[2], 31)
    written[4] = _list(numbers[4], 7)  # names become numbers, and Sunday is 0: KFP's scheduler does not take 7
    cron_fields = ["0", *(written if _is_utc(schedule) else _in_utc(schedule, written, numbers))]
    if len(cron_fields) != 6 or not all(cron_fields):  # KFP would read all of them one place off
        raise UnsupportedFeatureError(
            f"FlowyML cannot convert the schedule {schedule} to KFP's six cron fields; it got {cron_fields}."
        )
    return " ".join(cron_fields)


def kfp_interval(schedule: Schedule) -> int:
    """Return the interval in whole seconds, KFP's unit."""
    seconds = schedule.interval_seconds or 0
    if seconds != int(seconds):
        raise UnsupportedFeatureError(f"The schedule is {schedule}; KFP counts in whole seconds.")
    return int(seconds)


def kfp_start(schedule: Schedule, now: datetime, last: datetime | None = None) -> datetime | None:
    """Return the start time with which KFP runs at the schedule's times; None for the time when KFP gets it.

    KFP's next run is strictly after the start, or a whole interval after it; without catching up, a past start causes
    one run at once. ``last`` is the time of the schedule's last run, after which catching up continues. Source: KFP,
    crd/controller/scheduledworkflow/util/cron_schedule.go and periodic_schedule.go.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> daily, hourly = Schedule(cron="0 12 * * *", start=noon), Schedule(interval_seconds=3600, start=noon)
    >>> str(kfp_start(daily, noon - timedelta(days=1))), kfp_start(daily, noon + timedelta(days=1))
    ('2026-01-01 11:59:59+00:00', None)
    >>> str(kfp_start(hourly, noon + timedelta(minutes=150)))
    '2026-01-01 14:00:00+00:00'
    """
    start = schedule.start
    if last is not None and (start is None or last > start):
        return last
    if start is None:
        return None
    if schedule.catch_up or start > now:
        return start - timedelta(seconds=1) if schedule.cron else start
    if schedule.cron:
        return None
    every = timedelta(seconds=kfp_interval(schedule))
    return start + (now - start) // every * every


def _is_utc(schedule: Schedule) -> bool:
    return not any(_offsets(schedule.timezone))


def _offsets(timezone: str) -> set[int]:
    """Return the minutes by which a zone differs from UTC, from now on."""
    zone, now = ZoneInfo(timezone), datetime.now(UTC)
    days = (now + timedelta(days=day) for day in range(0, 366 * _YEARS, 7))
    offsets = (day.astimezone(zone).utcoffset() or timedelta() for day in days)
    return {int(offset.total_seconds() // 60) for offset in offsets}


def _in_utc(schedule: Schedule, fields: list[str], numbers: list[list[int]]) -> list[str]:
    offsets = _offsets(schedule.timezone)
    every_hour = fields[1:] == ["*"] * 4
    if len({offset % 60 for offset in offsets} if every_hour else offsets) > 1:
        raise UnsupportedFeatureError(
            f"The schedule is {schedule}, and {schedule.timezone} changes its offset in the course of the year. KFP's "
            f"scheduler has one time zone, the server's: the schedule would be an hour off for months. Write it in UTC."
        )
    hours_off, minutes_off = divmod(-offsets.pop(), 60)
    minutes, carried = _shifted(numbers[0], minutes_off, 60)
    if every_hour:
        return [_list(minutes, 60), *fields[1:]]
    if len(carried) > 1:
        raise _awkward(schedule, "falls into two different hours")
    hours, days = _shifted(numbers[1], hours_off + carried.pop(), 24)
    return [_list(minutes, 60), _list(hours, 24), *_days(schedule, days, fields[2:], numbers[4])]


def _days(schedule: Schedule, days: set[int], fields: list[str], weekdays: list[int]) -> list[str]:
    """Return the days of a schedule whose hours may have moved over midnight."""
    if days == {0} or fields == ["*", "*", "*"]:
        return fields
    if len(days) > 1 or fields[:2] != ["*", "*"]:
        raise _awkward(schedule, "moves to another day")
    moved, _ = _shifted(weekdays, days.pop(), 7)
    return ["*", "*", _list(moved, 7)]


def _awkward(schedule: Schedule, how: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"In UTC, the schedule {schedule} {how}, which FlowyML cannot write as one KFP cron expression. Write the "
        f"schedule in UTC."
    )


def _shifted(numbers: Iterable[int], by: int, size: int) -> tuple[list[int], set[int]]:
    moved = [number + by for number in numbers]
    return sorted({number % size for number in moved}), {number // size for number in moved}


def _list(numbers: list[int], size: int) -> str:
    return "*" if len(numbers) == size else ",".join(map(str, numbers))


def _written(field: str, numbers: list[int], size: int) -> str:
    """Return the field unchanged unless it has a range: KFP's scheduler refuses one that wraps around, as ``22-2``."""
    return _list(numbers, size) if "-" in field else field


def _numbers(cron: str) -> list[list[int]]:
    """Return the numbers in each field."""
    from croniter import croniter

    everything = [list(range(size)) for size in _SIZES]
    for whole in everything[2:4]:
        whole[:] = [number + 1 for number in whole]
    expanded = croniter(cron).expanded
    return [whole if "*" in numbers else numbers for whole, numbers in zip(everything, expanded, strict=True)]
