"""Crons as KFP's scheduler reads them, beside what croniter says of the original."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowyml.core.errors import ScheduleError, UnsupportedFeatureError
from flowyml.core.schedule import Schedule
from flowyml_kubeflow.schedule import kfp_cron

INDIA, NEPAL, TOKYO, HONOLULU = "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo", "Pacific/Honolulu"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "expected"),
    [
        ("0 9 * * SAT-SUN", "UTC", "0 0 9 * * 0,6"),
        ("0 9 * * FRI-MON", "UTC", "0 0 9 * * 0,1,5,6"),
        ("0 9 * * 5-7", "UTC", "0 0 9 * * 0,5,6"),
        ("0 9 * * 7", "UTC", "0 0 9 * * 0"),
        ("0 22-2 * * *", "UTC", "0 0 0,1,2,22,23 * * *"),
        ("0 0 1 NOV-FEB *", "UTC", "0 0 0 1 1,2,11,12 *"),
        ("*/5 * * * *", "UTC", "0 */5 * * * *"),
        # Whole hours elsewhere, also where the offset has half an hour or a quarter.
        ("15 * * * *", TOKYO, "0 15 * * * *"),
        ("15 * * * *", INDIA, "0 45 * * * *"),
        ("0 * * * *", NEPAL, "0 15 * * * *"),
        ("0 22-2 * * *", INDIA, "0 30 16,17,18,19,20 * * *"),
        # Over midnight, to the day before and to the day after.
        ("0 6 * * MON", TOKYO, "0 0 21 * * 0"),
        ("0 6 * * SUN", TOKYO, "0 0 21 * * 6"),
        ("0 20 * * SAT", HONOLULU, "0 0 6 * * 0"),
        ("0 20 * * MON-FRI", HONOLULU, "0 0 6 * * 2,3,4,5,6"),
    ],
)
def test_cron_in_six_fields_and_utc(cron: str, zone: str, expected: str) -> None:
    assert kfp_cron(Schedule(cron=cron, timezone=zone)) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "reason"),
    [
        ("0 9 L * *", "UTC", "does not know 'L'"),
        ("0 9 * * MON#1", "UTC", "does not know 'MON#1'"),
        ("0 9 * * *", "Europe/Berlin", "changes its offset"),
        ("0,40 9 * * *", INDIA, "falls into two different hours"),
        ("0 6 1 * *", TOKYO, "moves to another day"),
        ("0 6,12 * * MON", TOKYO, "moves to another day"),
        ("0 6 * 3 *", TOKYO, "moves to another day"),
    ],
)
def test_what_kfp_could_not_keep_is_refused(cron: str, zone: str, reason: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=reason):
        kfp_cron(Schedule(cron=cron, timezone=zone))


def fields(lowest: int, highest: int) -> st.SearchStrategy[str]:
    number = st.integers(lowest, highest).map(str)
    spans = st.one_of(number, st.tuples(number, number).map("-".join), st.just("*"))
    steps = st.integers(1, highest).map(lambda step: f"/{step}")
    stepped = st.tuples(st.one_of(st.just("*"), st.tuples(number, number).map("-".join)), steps).map("".join)
    return st.lists(st.one_of(spans, stepped), min_size=1, max_size=2).map(",".join)


@settings(max_examples=50)
@given(
    minute=fields(0, 59),
    hour=fields(0, 23),
    weekday=st.one_of(st.just("*"), fields(0, 7)),
    zone=st.sampled_from(["UTC", INDIA, NEPAL, TOKYO, HONOLULU]),
)
def test_it_fires_when_the_original_does(minute: str, hour: str, weekday: str, zone: str) -> None:
    try:
        schedule = Schedule(cron=f"{minute} {hour} * * {weekday}", timezone=zone)
        converted = kfp_cron(schedule)
    except (ScheduleError, UnsupportedFeatureError):
        assume(False)
    assert len(converted.split()) == 6
    begin = BEGIN.astimezone(schedule_zone := schedule.next_times()[0].tzinfo)
    assert schedule_zone is not None
    original = croniter(schedule.cron, begin)
    theirs = croniter(converted, BEGIN, second_at_beginning=True)
    for _ in range(60):
        assert theirs.get_next(datetime) == original.get_next(datetime)
    late = BEGIN + timedelta(weeks=3)
    original.set_current(late.timestamp())
    theirs.set_current(late.timestamp())
    assert _within_two_days(theirs, late) == _within_two_days(original, late)


def _within_two_days(cron: croniter, begin: datetime) -> list[datetime]:
    times = iter(lambda: cron.get_next(datetime).astimezone(UTC), None)
    return list(takewhile(lambda time: time < begin + timedelta(days=2), times))
