"""A schedule: what it may say, when it fires, and its JSON."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flowyml import Pipeline, step
from flowyml.core import errors
from flowyml.core.errors import DefinitionError, ParameterError, PlanError, ScheduleError
from flowyml.core.loading import loading
from flowyml.core.schedule import Schedule
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.scheduler import declared_schedule
from flowyml.plan.codec import decode
from flowyml.plan.model import SCHEMA_VERSION


class TestSchedule:
    @pytest.mark.parametrize(
        ("kind", "value", "cron"),
        [("hourly", 0, "0 * * * *"), ("daily", 3, "0 3 * * *"), ("daily", "03:30", "30 3 * * *"),
         ("cron", "0 */6 * * *", "0 */6 * * *"), ("weekly", "MON:09:00", "0 9 * * 1"),
         ("weekly", "sun:23:59", "59 23 * * 0")],
    )  # fmt: skip
    def test_types(self, kind: str, value: object, cron: str) -> None:
        assert Schedule.of(kind, value).cron == cron

    @pytest.mark.parametrize(
        ("kind", "value", "message"),
        [
            ("hourly", 60, "a minute from 0 to 59, not 60"),
            ("daily", 24, "an hour from 0 to 23"),
            ("daily", True, "an hour from 0 to 23"),
            ("weekly", "MON", "such as 'MON:09:00'"),
            ("weekly", "DAY:09:00", "such as 'MON:09:00'"),
            ("cron", "* * * *", "has 4 fields. Write five"),
            ("cron", "0 0 0 * * *", "has 6 fields. Write five"),
            ("cron", "61 * * * *", "cannot be read"),
            ("cron", "0 0 30 2 *", "never fires"),
            ("cron", "R * * * *", "random"),
            ("cron", "0 R(2-4) * * *", "random"),
            ("cron", "H * * * *", "random"),
            ("interval", 0, "seconds above 0"),
            ("interval", "1", "seconds above 0"),
            ("interval", float("inf"), "to 315360000"),
            ("interval", float("nan"), "to 315360000"),
            ("interval", 1e14, "to 315360000"),
            ("interval", 1e-9, "from 0.1"),
            ("monthly", 1, "Unknown schedule_type 'monthly'. Use hourly, daily, weekly, cron or interval"),
        ],
    )
    def test_what_no_engine_could_keep(self, kind: str, value: object, message: str) -> None:
        with pytest.raises(ScheduleError, match=message):
            Schedule.of(kind, value)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"start": "2026-01-01"}, r"start='2026-01-01' is not a datetime\. Write datetime\("),
            ({"end": date(2026, 1, 1)}, "end=datetime.date.* is not a datetime"),
            ({"timezone": None}, "Unknown time zone None. Use a name"),
            ({"timezone": 5}, "Unknown time zone 5"),
            ({"cron": 5}, "cron=5 is not text"),
        ],
    )
    def test_values_of_a_wrong_type(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ScheduleError, match=message):
            Schedule(**{"cron": "0 0 * * *", **wrong})

    def test_time_zones(self) -> None:
        with pytest.raises(ScheduleError, match="Unknown time zone 'Mars/Olympus'"):
            Schedule.of("daily", 3, timezone="Mars/Olympus")
        winter = datetime(2026, 3, 28, 12, tzinfo=UTC)
        times = Schedule.of("daily", 3, timezone="Europe/Berlin").next_times(2, after=winter)
        assert [time.astimezone(UTC).hour for time in times] == [1, 1]
        assert times[0].utcoffset() != datetime(2026, 3, 28, tzinfo=ZoneInfo("Europe/Berlin")).utcoffset()

    @pytest.mark.parametrize(
        ("cron", "times"),
        [
            ("30 2 * * *", ["25 02:30 +0200", "26 02:30 +0100", "27 02:30 +0100"]),
            ("0 1-3 * * *", ["25 01:00 +0200", "25 02:00 +0200", "25 03:00 +0100"]),
            ("15 * * * *", ["25 00:15 +0200", "25 01:15 +0200", "25 02:15 +0200", "25 02:15 +0100", "25 03:15 +0100"]),
            ("*/30 2 * * *", ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100"]),
        ],
    )
    def test_a_time_of_the_day_comes_once_when_the_clocks_go_back(self, cron: str, times: list[str]) -> None:
        after = datetime(2026, 10, 24, 22, tzinfo=UTC)
        found = Schedule(cron=cron, timezone="Europe/Berlin").next_times(len(times), after=after)
        assert [f"{time:%d %H:%M %z}" for time in found] == times
        one_by_one = Schedule(cron=cron, timezone="Europe/Berlin").next_times(1, after=found[-2])
        assert one_by_one == found[-1:]

    def test_start_and_end(self) -> None:
        start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, 1, tzinfo=UTC)
        schedule = Schedule.of("daily", 0, start=start, end=end)
        assert schedule.next_times(5) == [start, datetime(2030, 1, 2, tzinfo=UTC)]
        with pytest.raises(ScheduleError, match="before it starts"):
            Schedule.of("daily", 0, start=end, end=start)
        with pytest.raises(ScheduleError, match="too far in the future"):
            Schedule.of("daily", 0, start=datetime(9999, 12, 31, tzinfo=UTC))

    def test_one_that_would_never_fire_is_refused(self) -> None:
        past = Schedule.of("daily", 0, end=datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(ScheduleError, match=r"ends \(2020-01-01 .*\) before it would fire"):
            LocalOrchestrator().schedule_pipeline(Pipeline("past").add_step(step(print)), past)
        replace(past, catch_up=True).check_future()
        Schedule.of("daily", 0).check_future()

    def test_a_script_that_holds_one_is_loaded_where_nothing_is_installed(self) -> None:
        """As in a pod, which has Python alone."""
        folder = Path(errors.__file__).parents[2]
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); from flowyml.core.schedule import Schedule; "
        made = "print(Schedule.of('daily', '03:30'), 'croniter' in sys.modules); import croniter"
        command = [sys.executable, "-I", "-S", "-c", code + made]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == "cron 30 3 * * * UTC False\n", done.stderr
        assert "No module named 'croniter'" in done.stderr

    def test_intervals_are_anchored(self) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        schedule = Schedule.of("interval", 3600, start=start)
        assert schedule.next_times(2, after=datetime(2026, 1, 1, 5, 30, tzinfo=UTC)) == [
            datetime(2026, 1, 1, 6, tzinfo=UTC), datetime(2026, 1, 1, 7, tzinfo=UTC),
        ]  # fmt: skip

    def test_nothing_fires_before_the_start_and_one_right_after_the_clocks_went_forward_counts(self) -> None:
        start = datetime(2037, 3, 29, 3, tzinfo=ZoneInfo("Europe/Berlin"))
        assert Schedule(cron="0 3 * * *", timezone="Europe/Berlin", start=start).next_times(1) == [start]
        start = datetime(2039, 1, 1, 3, tzinfo=UTC)
        assert Schedule(cron="0 3 * * *", start=start).next_times(1) == [start]
        later = Schedule(cron="0 3 * * *", start=start.replace(microsecond=500_000))
        assert later.next_times(1) == [datetime(2039, 1, 2, 3, tzinfo=UTC)]

    def test_json_and_back(self) -> None:
        schedule = Schedule.of(
            "daily",
            3,
            timezone="Asia/Tokyo",
            start=datetime(2030, 1, 1),  # noqa: DTZ001 - gets the zone
            catch_up=True,
            parameters={"rows": 1},
        )
        assert Schedule.from_dict(schedule.to_dict()) == schedule


class TestDeclared:
    """A pipeline's own schedule, which travels in its plan."""

    def test_is_in_the_plan_as_it_is_in_the_source(self) -> None:
        schedule = Schedule.of(
            "daily", 3, timezone="Europe/Berlin", start=datetime(2026, 1, 31, tzinfo=UTC), paused=True
        )
        plan = declaring(schedule).compile()
        read = decode(plan.canonical)
        found = declared_schedule(read)
        assert (found, found and found.paused, read.schema_version) == (schedule, True, SCHEMA_VERSION)
        assert declaring(None).compile().canonical == Pipeline("p").add_step(rows).compile().canonical

    def test_is_checked_with_the_pipeline(self) -> None:
        with pytest.raises(DefinitionError, match=r"schedule='daily' is not a Schedule\. Write schedule="):
            declaring("daily")
        with pytest.raises(ParameterError, match="size"):
            declaring(Schedule.of("daily", 3, parameters={"size": 2})).compile()

    def test_of_a_plan_that_someone_wrote_is_a_plan_error(self) -> None:
        for written in ({"cron": "0 3 * * *", "every": 3}, {"cron": "0 3 * *"}, {"cron": "0 3 * * *", "start": "x"}):
            with pytest.raises(PlanError, match="The schedule in the plan of 'p' cannot be read"):
                declared_schedule(replace(declaring(None).compile(), schedule=written))

    def test_of_a_module_is_not_checked_again_on_a_worker_which_may_know_no_time_zones(self) -> None:
        with loading():
            Schedule.of("daily", 3, timezone="Nowhere/There")

    def test_paused_is_no_difference_of_schedules(self) -> None:
        one = Schedule.of("daily", 3)
        assert replace(one, paused=True) == one
        assert replace(one, paused=True).to_dict() == one.to_dict()


@step(outputs=["rows"])
def rows() -> int:
    return 1


def declaring(schedule: Any) -> Pipeline:
    return Pipeline("p", schedule=schedule).add_step(rows)
