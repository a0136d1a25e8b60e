"""A schedule of a pipeline, in terms that every engine's scheduler understands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, Literal

from flowyml.core.dates import RunDates
from flowyml.core.durations import span_text
from flowyml.core.errors import ScheduleError
from flowyml.core.loading import is_loading_on_worker

__all__ = ["Schedule", "ScheduleInfo"]

_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_SHORTEST, _LONGEST = 0.1, 315_360_000
MOST_MISSED = 1000  # are counted
_CHANGE = timedelta(hours=3)
"""More than clocks go back or forward."""
_PICKS: Mapping[str, Callable[[Sequence[datetime]], datetime]] = {"first": itemgetter(0), "earlier": min, "later": max}
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Either a cron expression of five fields or an interval, in a time zone.

    ``catch_up`` lets the engine run the times that it missed, including those since a ``start`` in the past. Each
    scheduled run gets ``parameters``. ``paused`` creates the schedule paused; one that exists stays as it is, and so
    two schedules that differ in it alone are equal.

    >>> Schedule.of("weekly", "MON:09:00").cron
    '0 9 * * 1'
    >>> Schedule.of("hourly", 15).cron
    '15 * * * *'
    >>> Schedule.of("interval", 90).interval_seconds
    90
    """

    cron: str | None = None
    interval_seconds: float | None = None
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    catch_up: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    paused: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        from zoneinfo import ZoneInfo

        if is_loading_on_worker():  # it was checked where it was submitted, and the worker may know no time zones
            return
        if (self.cron is None) == (self.interval_seconds is None):
            raise ScheduleError("A schedule has either a cron expression or an interval.")
        if self.interval_seconds is not None and not _is_interval(self.interval_seconds):
            raise ScheduleError(
                f"interval={self.interval_seconds!r}: use a number of seconds above 0, from {_SHORTEST} to {_LONGEST} "
                f"(ten years)."
            )
        try:
            ZoneInfo(self.timezone)
        except (AttributeError, TypeError, ValueError, LookupError, OSError) as error:
            raise ScheduleError(f"Unknown time zone {self.timezone!r}. Use a name such as 'Europe/Berlin'.") from error
        for name in ("start", "end"):
            moment = getattr(self, name)
            if moment is not None and not isinstance(moment, datetime):
                raise ScheduleError(
                    f"{name}={moment!r} is not a datetime. Write datetime(2026, 1, 31), or datetime.fromisoformat(…)."
                )
            if moment is not None and moment.tzinfo is None:
                object.__setattr__(self, name, moment.replace(tzinfo=ZoneInfo(self.timezone)))
        if self.start and self.start.year > 9000:  # the times that follow must be times that Python knows
            raise ScheduleError(f"The schedule starts ({self.start}) too far in the future.")
        if self.start and self.end and self.end <= self.start:
            raise ScheduleError(f"The schedule ends ({self.end}) before it starts ({self.start}).")
        if self.cron is not None:
            _check_cron(self.cron)

    @classmethod
    def of(cls, schedule_type: str, value: object, **options: Any) -> Schedule:
        """Build one from a type and its value.

        ============  =========================================
        type          value
        ============  =========================================
        ``hourly``    minute of the hour, 0 to 59
        ``daily``     hour of the day, 0 to 23, or ``"HH:MM"``
        ``weekly``    ``"MON:09:00"``
        ``cron``      five fields, minutes first
        ``interval``  seconds
        ============  =========================================
        """
        if schedule_type == "interval":
            return cls(interval_seconds=value, **options)  # type: ignore[arg-type]  # checked in __post_init__
        cron = _CRON_OF.get(schedule_type)
        if cron is None:
            raise ScheduleError(f"Unknown schedule_type {schedule_type!r}. Use {', '.join(_CRON_OF)} or interval.")
        return cls(cron=cron(value), **options)

    def check_future(self) -> None:
        """Raise ``ScheduleError`` for a schedule that ends before its first time."""
        if self.end and not self.catch_up and not self.next_times():
            raise ScheduleError(f"The schedule ends ({self.end}) before it would fire. Give a later end.")

    def count_between(self, after: datetime, until: datetime) -> int:
        """Return how many times of this schedule are after one time and until another, inclusive, up to 1000."""
        fires = 0
        for count in (1, MOST_MISSED):  # mostly it does not
            fires = sum(time <= until for time in self.next_times(count, after))
            if fires < count:
                break
        return fires

    def next_times(self, count: int = 1, after: datetime | None = None) -> list[datetime]:
        """Return the next times of this schedule, in its time zone. Fewer than ``count`` if it ends before."""
        from zoneinfo import ZoneInfo

        zone = ZoneInfo(self.timezone)
        moment = (after or datetime.now(UTC)).astimezone(zone)
        if self.start and self.start > moment:
            before = timedelta(microseconds=1 if self.cron else 0)  # croniter finds times after a moment
            moment = (self.start.astimezone(UTC) - before).astimezone(zone)  # not by the clock, which may jump there
        times = self._cron_times(moment, count) if self.cron else self._interval_times(moment, count)
        return [time for time in times if self.end is None or time <= self.end]

    def dates_at(self, time: datetime, *, picks: Literal["first", "earlier", "later"] | None = None) -> RunDates:
        """Return the dates of the run that is due at this time, in the schedule's time zone.

        ``picks`` is for engines that go through the times that clocks show: where clocks go back or forward, such a
        time can mean two moments, of which they take the first (``fold=0``), the earlier or the later. The later is
        for Airflow, which does so unless the cron expression has a run in every hour.
        """
        from zoneinfo import ZoneInfo

        moment = time.astimezone(ZoneInfo(self.timezone))
        is_by_clocks = picks and self.cron and (picks != "later" or not _covers_every_hour(self.cron))
        before = self._before_by_clocks(moment, _PICKS[picks]) if picks and is_by_clocks else self._before(moment)
        return RunDates(logical_date=moment, data_interval_start=before, data_interval_end=before and moment)

    def is_due(self, time: datetime) -> bool:
        """Return whether this is one of the schedule's times, from its start to its end."""
        moment = time.astimezone(UTC)  # times of two zones never equal one another in an hour that clocks show twice
        return moment in [each.astimezone(UTC) for each in self.next_times(after=moment - timedelta(microseconds=1))]

    def _before(self, moment: datetime) -> datetime | None:
        """Return the previous scheduled time; None if croniter is not installed, as on a worker."""
        if self.interval_seconds is not None:
            return (moment.astimezone(UTC) - timedelta(seconds=self.interval_seconds)).astimezone(moment.tzinfo)
        try:
            from croniter import croniter
        except ImportError:
            return None
        times: Iterator[datetime] = iter(partial(croniter(self.cron, moment).get_prev, datetime), None)
        return next(time for time in times if not (_is_second(time) and _is_fixed(self.cron or "")))

    def _before_by_clocks(self, moment: datetime, pick: Callable[[Sequence[datetime]], datetime]) -> datetime | None:
        """Return the previous scheduled time for an engine that picks moments; None without croniter.

        The times that clocks show are not always in the order of their moments, so those of some hours are compared.
        """
        try:
            from croniter import croniter
        except ImportError:
            return None
        clock = moment.replace(tzinfo=None)
        wall_times: Iterator[datetime] = iter(partial(croniter(self.cron, clock + _CHANGE).get_prev, datetime), None)
        picks: list[datetime] = []
        for time in wall_times:
            if picks and time < clock - _CHANGE:
                break
            picked = pick([time.replace(tzinfo=moment.tzinfo, fold=fold).astimezone(UTC) for fold in (0, 1)])
            if picked < moment.astimezone(UTC):
                picks.append(picked)
        return max(picks).astimezone(moment.tzinfo)

    def _cron_times(self, after: datetime, count: int) -> list[datetime]:
        from croniter import croniter

        assert self.cron is not None
        times = iter(partial(croniter(self.cron, after).get_next, datetime), None)
        return list(islice((time for time in times if not (_is_second(time) and _is_fixed(self.cron))), count))

    def _interval_times(self, after: datetime, count: int) -> list[datetime]:
        assert self.interval_seconds is not None
        step = timedelta(seconds=self.interval_seconds)
        anchor = (self.start or datetime.fromtimestamp(0, UTC)).astimezone(UTC)
        first = anchor if anchor >= after else anchor + ((after - anchor) // step + 1) * step
        return [(first + step * n).astimezone(after.tzinfo) for n in range(count)]

    def __str__(self) -> str:
        return f"cron {self.cron} {self.timezone}" if self.cron else f"every {span_text(self.interval_seconds or 0)}"

    def to_dict(self, *, declared: bool = False) -> dict[str, Any]:
        """Return plain JSON, without defaults. Only a ``declared`` one has ``paused``, which says how it begins."""
        plain: dict[str, Any] = {"timezone": self.timezone}
        names = ("cron", "interval_seconds", "start", "end", "catch_up", "parameters")
        for name in (*names, "paused") if declared else names:
            if value := getattr(self, name):
                plain[name] = value.isoformat() if isinstance(value, datetime) else value
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Schedule:
        """Read back what ``to_dict`` wrote."""
        times = {name: datetime.fromisoformat(plain[name]) for name in ("start", "end") if name in plain}
        return cls(**{**plain, **times})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """The engine's record of a schedule. ``next_runs`` are the times that the engine itself plans, soonest first,
    in the time zone of the schedule.

    ``missed`` is the number of missed runs that are run before them, if the engine reports it, counted up to 1000.
    ``drift`` has a sentence for each change that was made by hand since FlowyML created the schedule, if that can be
    seen.
    """

    schedule_id: str
    pipeline: str
    schedule: Schedule
    paused: bool = False
    next_runs: tuple[datetime, ...] = ()
    missed: int = 0
    drift: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from zoneinfo import ZoneInfo

        zone = ZoneInfo(self.schedule.timezone)
        object.__setattr__(self, "next_runs", tuple(time.astimezone(zone) for time in self.next_runs))


def _is_second(time: datetime) -> bool:
    """Return whether the clocks have gone back, and have shown this time an hour ago already."""
    return time.utcoffset() != time.replace(fold=0).utcoffset()


def _is_fixed(cron: str) -> bool:
    """Return whether it means times of the day, and not every hour or minute (source: cron(8), Vixie's)."""
    return not any(field.startswith("*") for field in cron.split()[:2])


def _covers_every_hour(cron: str) -> bool:
    """Return whether a cron expression has every hour, as ``airflow.timetables._cron`` does; False without croniter."""
    try:
        from croniter import croniter
    except ImportError:
        return False
    return bool(croniter.expand(cron)[0][1] == ["*"])


def _daily(value: object) -> str:
    if isinstance(value, str) and (match := _TIME.fullmatch(value)):
        return f"{int(match[2])} {int(match[1])} * * *"
    return f"0 {_whole('daily', value, 'an hour', 23)} * * *"


def _weekly(value: object) -> str:
    day, _, time = str(value).partition(":")
    match = _TIME.fullmatch(time)
    if match is None or day.upper() not in _DAYS:
        raise ScheduleError(f"weekly takes a day and a time such as 'MON:09:00', not {value!r}.")
    return f"{int(match[2])} {int(match[1])} * * {_DAYS.index(day.upper())}"


_CRON_OF: Mapping[str, Callable[[object], str]] = {
    "hourly": lambda value: f"{_whole('hourly', value, 'a minute', 59)} * * * *",
    "daily": _daily,
    "weekly": _weekly,
    "cron": str,
}


def _whole(schedule_type: str, value: object, what: str, highest: int) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise ScheduleError(f"{schedule_type} takes {what} from 0 to {highest}, not {value!r}.")
    return value


def _is_interval(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _SHORTEST <= value <= _LONGEST


def _check_cron(expression: str) -> None:
    if not isinstance(expression, str):
        raise ScheduleError(f"cron={expression!r} is not text. Write five fields: minute hour day month weekday.")
    if len(expression.split()) != 5:
        raise ScheduleError(
            f"cron {expression!r} has {len(expression.split())} fields. Write five: minute hour day month weekday."
        )
    if any(field[:1] in "RrHh" for field in expression.split()):
        raise ScheduleError(f"cron {expression!r} has a random field (R or H): write the minute or hour itself.")
    try:
        from croniter import CroniterBadDateError, CroniterError, croniter
    except ImportError:  # on a worker, which loads a script that was checked where the pipeline was submitted
        return
    try:
        croniter(expression, datetime.now(UTC)).get_next(datetime)
    except CroniterBadDateError as error:
        raise ScheduleError(f"cron {expression!r} never fires.") from error
    except (CroniterError, ValueError) as error:
        raise ScheduleError(f"cron {expression!r} cannot be read: {error}") from error
