"""Which runs of a DAG count as those of its schedule: who may trigger it may give a run any id and any interval."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flowyml.core.errors import ScheduleError
from flowyml.core.schedule import Schedule
from flowyml_airflow.backfills import days, zone_of
from flowyml_airflow.connection import Connection
from flowyml_airflow.handover import DagSchedule, _is_due, cron_or_words, runs_by_time

MARK = "flowyml_handed_over__"


def _at(hour: int, minute: int = 0) -> str:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC).isoformat()


def _run(end: str, run_id: str | None = None, kind: str = "manual") -> dict[str, Any]:
    return {"dag_run_id": run_id or f"{MARK}{end}", "run_type": kind, "data_interval_end": end}


class _Airflow:
    """A client, and a reader of runs, whose DAG is hourly."""

    def __init__(self, *runs: dict[str, Any], url: str = "http://airflow:8080") -> None:
        self._runs, self.transport = runs, SimpleNamespace(connection=Connection.to(url))
        self.marked: list[str] = []

    about: Mapping[str, Any] = {"timetable_summary": "0 * * * *"}

    def dag(self, dag_id: str) -> dict[str, Any]:
        return {**self.about, "is_paused": True}

    def make_run(self, dag_id: str, run_id: str, logical: datetime, start: datetime, end: datetime) -> None:
        self.made = [logical, start, end]

    def runs(self, dag_ids: list[str], limit: int) -> list[dict[str, Any]]:
        return list(self._runs)

    def unfinished(self, dag_ids: list[str]) -> list[dict[str, Any]]:
        return []

    def set_success(self, dag_id: str, run_id: str) -> None:
        self.marked.append(run_id)

    def note(self, dag_id: str, run_id: str, note: str) -> None:
        assert run_id in self.marked

    def record(self, run: dict[str, Any], *, whole: bool) -> str:
        return str(run["dag_run_id"])


def _schedule(*runs: dict[str, Any]) -> tuple[DagSchedule, Any]:
    airflow = cast("Any", _Airflow(*runs))
    return DagSchedule(airflow, "daily", airflow), airflow


FUTURE = (datetime.now(UTC) + timedelta(days=3650)).replace(minute=0, second=0, microsecond=0).isoformat()


@pytest.mark.parametrize(
    "claimed",
    [
        _run(FUTURE),
        _run(_at(7), f"{MARK}{_at(6)}"),
        _run(_at(7, 30)),
        _run(_at(7), f"{MARK}"),
        _run(_at(7), f"{MARK}whenever"),
        _run(_at(7), f"x{MARK}{_at(7)}"),
        _run(_at(7), f"{MARK}2026-03-01T07:00:00"),
        _run(_at(7), "mine"),
    ],
)
def test_a_run_that_only_says_that_it_is_of_the_schedule(claimed: dict[str, Any]) -> None:
    old, _ = _schedule(claimed, _run(_at(5), "scheduled__5", "scheduled"))
    assert old.look().last == datetime.fromisoformat(_at(5))
    assert list(cast("Any", old.runs(10).values())) == ["scheduled__5"]


def test_what_was_handed_over_counts_and_a_run_of_airflows_own_wins() -> None:
    five, six = _run(_at(5)), _run(_at(6))
    old, airflow = _schedule(six, five, _run(_at(5), "scheduled__5", "scheduled"))
    assert old.look().last == datetime.fromisoformat(_at(6))
    assert set(cast("Any", old.runs(10).values())) == {six["dag_run_id"], "scheduled__5"}
    old, _ = _schedule(_run(_at(5), "scheduled__5", "scheduled"), five)
    assert list(cast("Any", old.runs(10).values())) == ["scheduled__5"]
    assert list(runs_by_time(airflow, [six, five])) == [], "the schedule of a pipeline was not handed over"


def test_a_run_that_stands_still_is_the_one_that_is_marked() -> None:
    late = {**_run(_at(5), "scheduled__5", "scheduled"), "state": "queued"}
    old, airflow = _schedule(late, {**_run(_at(4), "scheduled__4", "scheduled"), "state": "success"})
    assert old.look().waiting == {datetime.fromisoformat(_at(5))}
    old.mark_as_run(datetime.fromisoformat(_at(5)), "run elsewhere")
    assert airflow.marked == ["scheduled__5"]


NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("minutes", [0, 60, 30])
def test_a_run_that_is_made_is_dated_as_the_last_one_of_the_schedule(minutes: int) -> None:
    """By its time, by the time before, or by an interval that the timetable has: ``CronTriggerTimetable`` takes one."""
    begun = (datetime.fromisoformat(_at(5)) - timedelta(minutes=minutes)).isoformat()
    old, airflow = _schedule({**_run(_at(5), "scheduled__5", "scheduled"), "logical_date": begun})
    old.run_for(NINE)
    start = NINE - timedelta(minutes=minutes)
    assert airflow.made == [start, start, NINE]


@pytest.mark.parametrize("time", ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"])
def test_both_times_of_an_hour_that_comes_twice_are_due(time: str) -> None:
    assert _is_due(datetime.fromisoformat(time), Schedule(cron="0 * * * *", timezone="Europe/Berlin"))
    assert not _is_due(datetime.fromisoformat(time) + timedelta(minutes=1), Schedule(cron="0 * * * *"))


@pytest.mark.parametrize(
    ("following", "last", "zone", "is_right"),
    [
        ("2026-03-02T06:00:00Z", "2026-03-01T06:00:00Z", "UTC", True),
        ("2026-03-02T05:00:00Z", None, "UTC", False),
        (None, "2026-03-01T05:00:00Z", "UTC", False),
        ("2026-03-02T05:00:00Z", "2026-03-01T05:00:00Z", "Europe/Berlin", True),
        ("2026-03-02T06:00:00Z", "2026-03-01T07:30:00Z", "UTC", True),  # the schedule has changed since
        (None, None, "UTC", True),
        ("2026-10-25T05:00:00Z", None, "Europe/Berlin", True),  # the clocks went back that night
        ("2026-10-25T00:00:00Z", None, "Europe/Berlin", True),  # near that, each time is taken
    ],
)
def test_a_timetable_with_another_zone_than_its_dag_is_refused(
    following: str | None, last: str | None, zone: str, is_right: bool
) -> None:
    """As ``CronTriggerTimetable("0 6 * * *", timezone="Europe/Berlin")`` in a DAG that starts at a time in UTC."""
    old, airflow = _schedule(*([_run(last, "scheduled__x", "scheduled")] if last else []))
    airflow.about = {"timetable_summary": "0 6 * * *", "timezone": zone, "next_dagrun_run_after": following}
    if is_right:
        assert old.look().schedule == Schedule(cron="0 6 * * *", timezone=zone)
    else:
        with pytest.raises(ScheduleError, match=r"'0 6 \* \* \*' does not fire in its zone, UTC"):
            old.look()


@pytest.mark.parametrize(
    ("zone", "first"),
    [("+01:00", "2026-02-28T23:00"), ("-03:30", "2026-03-01T03:30"), ("Asia/Tokyo", "2026-02-28T15:00")],
)
def test_a_day_of_a_dag_with_a_fixed_offset_is_one_there(zone: str, first: str) -> None:
    found = cast("Any", SimpleNamespace(schedule=None, dag={"timezone": zone}))
    begin, _ = days(date(2026, 3, 1), date(2026, 3, 1), zone_of(found))
    assert begin == datetime.fromisoformat(first + "Z")


@pytest.mark.parametrize(
    ("urls", "place"),
    [
        (["http://localhost:8080", "http://ada:pw@127.0.0.1:8080/", "HTTP://[::1]:8080"], "http://localhost:8080"),
        (["https://Airflow.example./team/", "https://airflow.example:443/team"], "https://airflow.example:443/team"),
        (["http://[fe80::1]"], "http://[fe80::1]:80"),
    ],
)
def test_the_place_of_a_schedule_is_the_same_however_the_url_is_written(urls: list[str], place: str) -> None:
    made = [cast("Any", _Airflow(url=url)) for url in urls]
    assert {DagSchedule(airflow, "daily", airflow).place for airflow in made} == {place}


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ({"__type": "CronExpression", "value": "5 4 * * *"}, "5 4 * * *"),
        ({"__type": "CronExpression", "value": "@daily"}, "0 0 * * *"),
        ({"__type": "TimeDelta", "days": 0, "microseconds": 0, "seconds": 21600}, "6:00:00"),
        ({"__type": "TimeDelta", "days": 2, "microseconds": 0, "seconds": 0}, "2 days, 0:00:00"),
        ({"__type": "RelativeDelta", "months": 1, "days": 0, "day": None}, "relativedelta(months=1)"),
        (None, None),
    ],
)
def test_a_schedule_of_airflow_2_is_said_whatever_its_kind(interval: Any, said: str | None) -> None:
    """Airflow 2.11 describes an interval by an empty text, which would look like a DAG that runs by hand alone."""
    dag = {"schedule_interval": interval, "timetable_description": "", "timetable_summary": None}
    assert cron_or_words(dag) == said
