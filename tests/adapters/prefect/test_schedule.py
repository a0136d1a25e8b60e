"""Schedules in Prefect's notation fire when FlowyML says that they do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import TypeAdapter

from flowyml.core.errors import ScheduleError
from flowyml.core.schedule import Schedule
from flowyml_prefect import worker
from flowyml_prefect.schedule import from_prefect, is_ours, to_prefect

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2, hours=3)
LATER = SOON + timedelta(days=9)
DAY = timedelta(days=1)
CLOCKS_GO_BACK = datetime(2027, 10, 30, 23, 30, tzinfo=UTC)  # half an hour later, in Berlin

SCHEDULES = [
    Schedule.of("hourly", 5, catch_up=True),
    Schedule.of("daily", "03:30", timezone="Europe/Berlin"),
    Schedule.of("weekly", "MON:09:00", timezone="America/New_York"),
    Schedule.of("interval", 90),
    Schedule.of("interval", 0.5),
    Schedule.of("cron", "*/20 8-10 * * MON,WED", start=SOON),
    Schedule.of("cron", "15 3 1,15 * *", end=SOON + timedelta(days=60)),
    Schedule.of("daily", 6, timezone="Australia/Lord_Howe", start=SOON, end=LATER),
    Schedule.of("interval", 3600, start=SOON),
    Schedule.of("interval", 7200, timezone="Asia/Kolkata", end=LATER),
    Schedule.of("interval", 7200, start=SOON - timedelta(days=30), end=LATER),
    Schedule.of("interval", 1800, timezone="Europe/Berlin", start=CLOCKS_GO_BACK, end=CLOCKS_GO_BACK + DAY),
    Schedule.of("cron", "0 9 * * 1#1", timezone="Europe/Berlin", start=SOON),
    Schedule.of("cron", "30 9,17 * 3-11 L5", end=SOON + timedelta(days=700)),
    Schedule.of("cron", "0 0 * * SUN#5,L3,2#2,2#4", start=SOON),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_prefect_plans_the_same_times_and_the_schedule_is_read_back(schedule: Schedule) -> None:
    from prefect.server.schemas.schedules import SCHEDULE_TYPES

    written = to_prefect(schedule)
    theirs: Any = TypeAdapter(SCHEDULE_TYPES).validate_python(written["schedule"])
    now = datetime.now(UTC)
    expected = [time.astimezone(UTC) for time in schedule.next_times(10, after=now)]
    planned = asyncio.run(theirs.get_dates(n=len(expected) + 1, start=now))
    assert [time.astimezone(UTC) for time in planned][: len(expected)] == expected
    if schedule.end:
        assert all(time <= schedule.end for time in planned)
    assert is_ours(written)
    assert from_prefect({**written, "parameters": {"rows": 5}}) == replace(schedule, parameters={"rows": 5})


CRONS = ["30 2 * * *", "0 0 * * *", "0 * * * *", "*/15 * * * *", "15 1,2,3 * * *", "0 */2 * * *", "*/30 2 * * *"]


def days_of_change(zone: ZoneInfo) -> Iterator[datetime]:
    """Days of the next year on which clocks go back or forward."""
    for number in range(365):
        day = datetime(datetime.now(UTC).year + 1, 1, 2, tzinfo=zone) + number * DAY
        if day.utcoffset() != (day + DAY).utcoffset():
            yield day


@pytest.mark.parametrize("is_bounded", [False, True])
@pytest.mark.parametrize("name", ["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"])
def test_data_intervals_join_where_clocks_change(name: str, is_bounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.schedules import CronSchedule, RRuleSchedule
    from prefect.server.schemas.schedules import SCHEDULE_TYPES

    zone = ZoneInfo(name)
    days = list(days_of_change(zone))
    assert len(days) == 2
    for day, cron in product(days, CRONS):
        schedule = Schedule(cron=cron, timezone=name, start=day - 3 * DAY if is_bounded else None)
        written = to_prefect(schedule)
        theirs: Any = TypeAdapter(SCHEDULE_TYPES).validate_python(written["schedule"])
        times = asyncio.run(theirs.get_dates(n=300, start=day - 2 * DAY, end=day + 3 * DAY))
        rule = (RRuleSchedule if is_bounded else CronSchedule)(**written["schedule"])
        kept = DeploymentSchedule(schedule=rule, slug=written["slug"])
        monkeypatch.setattr(worker, "_deployment", lambda run, kept=kept: SimpleNamespace(schedules=[kept]))
        for before, time in pairwise(time.astimezone(UTC) for time in times):
            run = SimpleNamespace(expected_start_time=time, auto_scheduled=True)
            context = SimpleNamespace(get=lambda run=run: SimpleNamespace(flow_run=run))
            monkeypatch.setattr(worker, "FlowRunContext", context)
            found = worker.run_dates().data_interval_start
            assert found is not None
            assert found.astimezone(UTC) == before, (cron, time)


@pytest.mark.parametrize("slug", [None, "", "flowyml-x", "flowyml no json", "theirs"])
def test_schedules_that_others_made_are_not_ours(slug: str | None) -> None:
    assert not is_ours({"slug": slug})


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule.of("cron", "0 6 1 * MON", start=SOON), "can keep only one"),
        (Schedule.of("cron", "0 6 1 * MON#1", start=SOON), "can keep only one"),
        (Schedule.of("interval", 1.5, end=LATER), "whole number of seconds"),
    ],
)
def test_what_prefect_cannot_keep_is_refused(schedule: Schedule, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        to_prefect(schedule)


def test_a_schedule_that_was_changed_by_hand_has_the_zone_that_it_has_now() -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    plain = to_prefect(Schedule.of("interval", 3600, timezone="Asia/Tokyo", end=end))
    assert from_prefect(plain).timezone == "Asia/Tokyo"
    by_hand = {**plain, "schedule": {"cron": "0 9 * * *", "timezone": "Europe/Berlin"}}
    assert (from_prefect(by_hand).cron, from_prefect(by_hand).timezone) == ("0 9 * * *", "Europe/Berlin")
