"""When a run is for: ``current_run()``, parameters that the scheduler fills, and the interval of a schedule."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import flowyml
from flowyml import DATA_INTERVAL_END, DATA_INTERVAL_START, LOGICAL_DATE, Pipeline, current_run, pipeline, step
from flowyml.core.dates import RunDates
from flowyml.core.errors import DefinitionError, ParameterError
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.local import LocalOrchestrator
from flowyml.runtime.processes import StepProcesses

BERLIN = ZoneInfo("Europe/Berlin")


@step(outputs=["seen"])
def describe(day: str) -> dict[str, Any]:
    run = current_run()
    return {
        "day": day, "pipeline": run.pipeline, "run": run.run_id, "step": run.step, "date": run.logical_date.isoformat(),
        "from": str(run.data_interval_start), "to": str(run.data_interval_end),
    }  # fmt: skip


@pipeline(name="dated")
def dated(day: str = LOGICAL_DATE) -> Any:
    return describe(day)


@pytest.mark.parametrize("marker", [DATA_INTERVAL_START, DATA_INTERVAL_END])
def test_an_interval_that_no_schedule_gives_must_be_given(tmp_path: Path, marker: str) -> None:
    local = LocalOrchestrator(store=tmp_path / "runs.db")
    made = Pipeline("since", context={"day": marker}).add_step(describe)
    for start in (made.run, made.submit):
        with pytest.raises(ParameterError, match=r"'day' takes the run's data_interval_.*, but this run has none"):
            start(on=local)
    assert local.runs() == []
    assert made.run({"day": "2026-03-01"}, on=local).outputs["seen"]["day"] == "2026-03-01"


def test_outside_of_a_step_there_is_no_run() -> None:
    with pytest.raises(DefinitionError, match="Call it inside one"):
        flowyml.current_run()


@pytest.mark.processes
def test_steps_in_fresh_processes_know_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_FORK", "0")
    dates = Schedule(cron="0 3 * * *").dates_at(datetime(2026, 3, 2, 3, tzinfo=UTC))
    bundle = dated.bundle().write(tmp_path)
    with StepProcesses(bundle, run_id="r", artifacts=str(tmp_path), dates=dates) as processes:
        seen = processes.run("describe", {})["seen"]
    assert seen["day"] == "2026-03-02T03:00:00+00:00"
    assert (seen["from"], seen["to"]) == ("2026-03-01 03:00:00+00:00", "2026-03-02 03:00:00+00:00")


@pytest.mark.parametrize(
    ("schedule", "time", "before"),
    [
        (Schedule(cron="0 9 * * MON-FRI"), datetime(2026, 3, 2, 9, tzinfo=UTC), datetime(2026, 2, 27, 9, tzinfo=UTC)),
        (
            Schedule(cron="30 2 * * *", timezone="Europe/Berlin"),  # the clocks went back on the 25th
            datetime(2026, 10, 26, 2, 30, tzinfo=BERLIN), datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
        ),
        (
            Schedule(interval_seconds=90),
            datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 58, 30, tzinfo=UTC),
        ),
    ],
)  # fmt: skip
def test_the_interval_begins_at_the_time_before(schedule: Schedule, time: datetime, before: datetime) -> None:
    dates = schedule.dates_at(time.astimezone(UTC))
    assert (dates.logical_date, dates.data_interval_start, dates.data_interval_end) == (time, before, time)
    assert dates.logical_date.tzinfo == ZoneInfo(schedule.timezone)
    assert RunDates.of(dates.plain()).plain() == dates.plain()


@step(outputs=["seen"])
def typed(moment: datetime, day: date, until: date | None) -> list[Any]:
    run = current_run()
    kinds = [type(value).__name__ for value in (moment, day, until)]
    return [*kinds, moment == run.logical_date, day == until == run.logical_date.date()]


@pipeline(name="dated by type")
def dated_by_type(moment: datetime = LOGICAL_DATE, day: date = LOGICAL_DATE, until: date | None = LOGICAL_DATE) -> Any:
    return typed(moment, day, until)


@pytest.mark.processes
def test_a_typed_parameter_is_filled_with_its_type(tmp_path: Path) -> None:
    local = LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")
    result = dated_by_type.run(on=local)
    assert result.outputs["seen"] == ["datetime", "date", "date", True, True]
    given = dated_by_type.run({"day": date(2026, 3, 1), "until": None}, on=local)
    assert given.outputs["seen"] == ["datetime", "date", "NoneType", True, False]


def test_a_day_is_that_of_the_schedule() -> None:
    at_midnight = Schedule(cron="0 0 * * *", timezone="Europe/Berlin").dates_at(datetime(2026, 2, 28, 23, tzinfo=UTC))
    assert at_midnight.filled({"day": LOGICAL_DATE}, days={"day"}) == {"day": "2026-03-01"}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("soon", "'moment' must be a time with its time zone, .* not 'soon'"),
        (
            DATA_INTERVAL_START,
            "'moment' can be the start of the run's data interval only as its default",
        ),
    ],
)
def test_a_typed_parameter_takes_a_date_or_its_own_default(value: str, fault: str) -> None:
    with pytest.raises(ParameterError, match=fault):
        dated_by_type.check_parameters({"moment": value})


@pytest.mark.parametrize(
    ("schedule", "due", "other"),
    [
        (Schedule(cron="30 2 * * *", timezone="Europe/Berlin"), "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"),
        (Schedule(cron="0 3 * * *", start=datetime(2026, 3, 2, tzinfo=UTC)), "2026-03-02T03:00Z", "2026-03-01T03:00Z"),
        (Schedule(cron="0 3 * * *", end=datetime(2026, 3, 2, tzinfo=UTC)), "2026-03-01T03:00Z", "2026-03-02T03:00Z"),
        (Schedule(interval_seconds=90), "1970-01-01T00:03Z", "1970-01-01T00:03:00.000001Z"),
        (
            Schedule(interval_seconds=90, start=datetime(2026, 1, 1, 0, 1, tzinfo=UTC)),
            "2026-01-01T00:01Z",
            "2026-01-01T00:00Z",
        ),
    ],
    ids=str,
)
def test_a_time_is_due_if_the_schedule_has_it(schedule: Schedule, due: str, other: str) -> None:
    assert schedule.is_due(datetime.fromisoformat(due))
    assert not schedule.is_due(datetime.fromisoformat(other))
