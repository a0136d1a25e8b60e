"""Dates and time zones: datetime, pendulum, pytz, zoneinfo, dateutil, calendar."""

from __future__ import annotations

import ast
import calendar
import datetime
import re
import zoneinfo
from typing import Any

from flowyml.migration.airflow.reader.library.natives import plain
from flowyml.migration.airflow.reader.values import Arguments, Foreign, Native, NotKnown


def _zone(name: Any = "UTC") -> datetime.tzinfo:
    if isinstance(name, int):
        return _offset(name)
    if str(name).upper() == "UTC":
        return datetime.UTC
    return zoneinfo.ZoneInfo(name)


def _offset(offset: float | datetime.timedelta, *_: Any, **__: Any) -> datetime.tzinfo:
    return datetime.timezone(offset if isinstance(offset, datetime.timedelta) else datetime.timedelta(seconds=offset))


def _pendulum(*args: Any, tz: Any = datetime.UTC, **kwargs: Any) -> datetime.datetime:
    return _instance(datetime.datetime(*args, **kwargs), tz)  # noqa: DTZ001  # its zone comes next


def _instance(of: datetime.datetime, tz: Any = datetime.UTC) -> datetime.datetime:
    zone = _zone(tz) if isinstance(tz, str) else tz
    return of if of.tzinfo is not None else of.replace(tzinfo=zone)


class ParserError(ValueError):
    """The error of pendulum for a text that is not a date."""


def _read(text: str, tz: Any = datetime.UTC, **_: Any) -> datetime.datetime:
    try:
        return _instance(datetime.datetime.fromisoformat(text), tz)
    except ValueError as error:
        raise NotKnown from error  # pendulum and dateutil read more forms than Python does


def _read_by_pendulum(text: str, **options: Any) -> datetime.datetime:
    try:
        return _read(text, **options)
    except NotKnown as error:
        if re.search(r"[^\W\d_]{2}", text):
            raise ParserError(str(error.__cause__)) from error
        raise


def clock(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return machine.unknown(node, origin="clock")


_ZONES = ("pendulum.timezone", "pendulum.Timezone", "pendulum.tz.timezone", "pendulum.tz.timezone.Timezone",
          "pytz.timezone", "zoneinfo.ZoneInfo", "dateutil.tz.gettz", "dateutil.tz.tzutc")  # fmt: skip
_OFFSETS = ("pendulum.FixedTimezone", "pendulum.tz.fixed_timezone", "pendulum.tz.timezone.FixedTimezone")
_UTC = ("datetime.timezone.utc", "datetime.UTC", "pendulum.UTC", "pendulum.tz.UTC", "pytz.utc", "pytz.UTC",
        "dateutil.tz.UTC")  # fmt: skip
NAMES: dict[str, Any] = {
    "calendar.day_abbr": list(calendar.day_abbr),
    "calendar.month_abbr": list(calendar.month_abbr),
    "calendar.day_name": list(calendar.day_name),
    "calendar.month_name": list(calendar.month_name),
    "calendar.isleap": plain(calendar.isleap),
    "calendar.monthrange": plain(calendar.monthrange),
    "datetime.datetime": Foreign("datetime.datetime"),
    "datetime.datetime.min": datetime.datetime.min,  # noqa: DTZ901  # as in the file
    "datetime.datetime.max": datetime.datetime.max,  # noqa: DTZ901  # as in the file
    "datetime.datetime.strptime": plain(datetime.datetime.strptime),
    "datetime.datetime.fromisoformat": plain(datetime.datetime.fromisoformat),
    "datetime.datetime.combine": plain(datetime.datetime.combine),
    "datetime.time.min": datetime.time.min,
    "datetime.time.max": datetime.time.max,
    "datetime.date.fromisoformat": plain(datetime.date.fromisoformat),
    "datetime.timezone": plain(datetime.timezone),
    "pendulum.datetime": plain(_pendulum),
    "pendulum.DateTime": plain(_pendulum),
    "pendulum.instance": plain(_instance),
    **dict.fromkeys(_ZONES, plain(_zone)),
    **dict.fromkeys(_OFFSETS, plain(_offset)),
    **dict.fromkeys(_UTC, datetime.UTC),
    "pendulum.parse": plain(_read_by_pendulum),
    "pendulum.duration": plain(datetime.timedelta),
    "pytz.FixedOffset": plain(lambda minutes: _offset(minutes * 60)),
    "dateutil.tz.tzoffset": plain(lambda _, offset: _offset(offset)),
    "dateutil.parser.parse": plain(_read),
}


CALLED: dict[str, Native] = {
    "datetime.datetime": plain(datetime.datetime),
    "datetime.date": plain(datetime.date),
    "datetime.time": plain(datetime.time),
    "datetime.timedelta": plain(datetime.timedelta),
}
