"""Schedules as KFP's recurring runs, and back.

KFP's cron has six fields, seconds first: five would be read with the minutes as seconds, and fire hourly what was
meant daily (KFP issue 2318). Its time zone is one setting of the server, UTC unless somebody changed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.schedule import Schedule

__all__ = ["kfp_cron", "kfp_interval"]

_YEARS = 3  # how far ahead a change of the offset is looked for
_DAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELD = re.compile(r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?")


def kfp_cron(schedule: Schedule) -> str:
    """Six fields in UTC. Raises ``UnsupportedFeatureError`` where KFP could not keep the schedule.

    >>> kfp_cron(Schedule(cron="10 10 * * *"))
    '0 10 10 * * *'
    >>> kfp_cron(Schedule(cron="30 8 * * MON-FRI", timezone="Asia/Kolkata"))
    '0 0 3 * * 1,2,3,4,5'
    """
    assert schedule.cron is not None
    fields = schedule.cron.split()
    for field in fields:
        if not all(_FIELD.fullmatch(part) for part in field.split(",")):
            raise UnsupportedFeatureError(f"cron {schedule.cron!r}: KFP's scheduler does not know {field!r}.")
    fields[4] = _week(fields[4])
    return " ".join(["0", *(fields if _is_utc(schedule) else _in_utc(schedule, fields))])


def kfp_interval(schedule: Schedule) -> int:
    """Whole seconds, which is what KFP counts in."""
    seconds = schedule.interval_seconds or 0
    if seconds != int(seconds):
        raise UnsupportedFeatureError(f"The schedule is {schedule}; KFP counts in whole seconds.")
    return int(seconds)


def _is_utc(schedule: Schedule) -> bool:
    return not any(_offsets(schedule.timezone))


def _offsets(timezone: str) -> set[int]:
    """The minutes by which a zone differs from UTC, from now on."""
    zone, now = ZoneInfo(timezone), datetime.now(UTC)
    days = (now + timedelta(days=day) for day in range(0, 366 * _YEARS, 7))
    offsets = (day.astimezone(zone).utcoffset() or timedelta() for day in days)
    return {int(offset.total_seconds() // 60) for offset in offsets}


def _in_utc(schedule: Schedule, fields: list[str]) -> list[str]:
    minute, hour, day, month, weekday = fields
    offsets = _offsets(schedule.timezone)
    every_hour = hour == "*" and day == "*" and month == "*" and weekday == "*"
    if len({offset % 60 for offset in offsets} if every_hour else offsets) > 1:
        raise UnsupportedFeatureError(
            f"The schedule is {schedule}, and {schedule.timezone} changes its offset in the course of the year. KFP's "
            f"scheduler has one time zone, the server's: the schedule would be an hour off for months. Write it in UTC."
        )
    hours_off, minutes_off = divmod(-offsets.pop(), 60)
    minutes, carried = _shifted(_numbers(minute, 0, 59), minutes_off, 60)
    if every_hour:
        return [_list(minutes, 60), *fields[1:]]
    if len(carried) > 1:
        raise _awkward(schedule, "in part of its minutes falls into another hour")
    hours, days = _shifted(_numbers(hour, 0, 23), hours_off + carried.pop(), 24)
    return [_list(minutes, 60), _list(hours, 24), *_days(schedule, days, day, month, weekday)]


def _days(schedule: Schedule, days: set[int], day: str, month: str, weekday: str) -> list[str]:
    """The days of a schedule whose hours may have moved over midnight."""
    if days == {0} or (day, month, weekday) == ("*", "*", "*"):
        return [day, month, weekday]
    if len(days) > 1 or day != "*" or month != "*":
        raise _awkward(schedule, "falls on another day")
    weekdays, _ = _shifted(_numbers(weekday, 0, 6), days.pop(), 7)
    return [day, month, _list(weekdays, 7)]


def _awkward(schedule: Schedule, how: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(f"The schedule is {schedule}, which in UTC {how}. Write it in UTC.")


def _shifted(numbers: Iterable[int], by: int, size: int) -> tuple[list[int], set[int]]:
    moved = [number + by for number in numbers]
    return sorted({number % size for number in moved}), {number // size for number in moved}


def _list(numbers: list[int], size: int) -> str:
    return "*" if len(numbers) == size else ",".join(map(str, numbers))


def _week(field: str) -> str:
    """Names become numbers, and Sunday is 0: KFP's scheduler knows no 7."""
    if field == "*":
        return field
    return _list(sorted({number % 7 for number in _numbers(field, 0, 7)}), 7)


def _numbers(field: str, lowest: int, highest: int) -> list[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        low = lowest if span == "*" else _number(first)
        high = min(highest, 6) if span == "*" and highest == 7 else highest if span == "*" else _number(last or first)
        if step and not last and span != "*":
            high = highest
        found.update(range(low, high + 1, int(step or 1)))
    return sorted(found)


def _number(text: str) -> int:
    return _DAY_NAMES.index(text.upper()) if text.upper() in _DAY_NAMES else int(text)
