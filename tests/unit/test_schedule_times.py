"""When a schedule fires, where clocks jump and at the edges of its start."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from flowyml.core.errors import ScheduleError
from flowyml.core.schedule import Schedule

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_start_right_after_the_clocks_went_forward_counts() -> None:
    schedule = Schedule(cron="0 3 * * *", timezone="Europe/Berlin", start=datetime(2037, 3, 29, 3, tzinfo=BERLIN))
    assert schedule.next_times(1) == [datetime(2037, 3, 29, 3, tzinfo=BERLIN)]


def test_nothing_fires_before_the_start() -> None:
    schedule = Schedule(cron="0 3 * * *", start=datetime(2039, 1, 1, 3, 0, 0, 500_000, tzinfo=UTC))
    assert schedule.next_times(1) == [datetime(2039, 1, 2, 3, tzinfo=UTC)]
    schedule = Schedule(cron="0 3 * * *", start=datetime(2039, 1, 1, 3, tzinfo=UTC))
    assert schedule.next_times(1) == [datetime(2039, 1, 1, 3, tzinfo=UTC)]


@pytest.mark.parametrize("cron", ["R * * * *", "0 R(2-4) * * *", "H * * * *"])
def test_a_random_time_is_refused(cron: str) -> None:
    with pytest.raises(ScheduleError, match="random"):
        Schedule(cron=cron)
