"""Which times of a schedule are made up for when it passes to another engine, and who works on a cutover."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowyml import Pipeline
from flowyml.cli import airflow, main
from flowyml.core.errors import DefinitionError, ScheduleError
from flowyml.core.schedule import Schedule
from flowyml.migration.airflow import cutover
from flowyml.migration.airflow.cutover import Cutover, Record, save
from flowyml.migration.airflow.schedule_times import time_before, times_between
from flowyml.orchestrators.handover import OldSchedule
from tests.unit.migration.cutting import HOURLY, PIPELINE, New, Old, at, record, work


@pytest.fixture
def at_half_past_nine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutover, "_now", lambda: at(9, 30))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("at_half_past_nine")
@pytest.mark.parametrize(
    ("catch_up", "begun", "hours"),
    [
        (True, at(7, 30), [4, 5, 6, 7, 8, 9]),
        (False, at(7, 30), [7, 8, 9]),  # of what it had missed by itself the newest alone
        (False, at(3, 30), [4, 5, 6, 7, 8, 9]),
        (False, at(9, 25), [9]),
    ],
)
def test_what_is_made_up_for(catch_up: bool, begun: datetime, hours: list[int]) -> None:
    old = Old(catch_up=catch_up)
    found = work(old, record("paused", begun=begun, last=3)).go(New(), PIPELINE)
    assert found.made_up == [at(hour).isoformat() for hour in hours]


def test_times_between_two_moments() -> None:
    assert times_between(HOURLY, at(3), at(5)) == [at(4), at(5)]
    assert times_between(HOURLY, at(3), at(3, 59)) == []
    assert (time_before(HOURLY, at(3)), time_before(HOURLY, at(3, 59))) == (at(3), at(3))
    with pytest.raises(DefinitionError, match="too many"):
        times_between(Schedule(cron="* * * * *"), at(0), at(23))


def test_a_record_is_read_back_and_one_process_works_on_it() -> None:
    known = Record(dag="a/../b", old="airflow", new="prefect", file="x.py", pipeline="x", made_up=["t"])
    save(known)
    assert Cutover.recorded("airflow", "a/../b") == known
    assert Cutover.recorded("airflow", "other") is None
    one, other = Cutover.alone("airflow", "a/../b"), Cutover.alone("airflow", "a/../b")
    with one, pytest.raises(ScheduleError, match="Another process"), other:
        raise AssertionError


def test_a_target_that_cannot_run_what_has_passed_gets_nothing() -> None:
    old, known = Old(), record("paused", "kubeflow", last=datetime.now(UTC) - timedelta(hours=3))
    with pytest.raises(ScheduleError, match=r"kubeflow cannot run times that have passed, such as .* unpaused again"):
        work(old, known).go(New(can_run_missed=False), PIPELINE)
    assert not old.is_paused
    saved = Cutover.recorded("airflow", "daily")
    assert saved is not None
    assert saved.phase == "begun"


class Clock(Old):
    """A time that passes where somebody waits, and a DAG that runs each hour when it comes."""

    def __init__(self, now: datetime, last: int) -> None:
        super().__init__(is_paused=False, last=last)
        self.now = now
        self.paused_at: list[datetime] = []

    def sleep(self, seconds: float) -> None:
        before = self.now
        self.now += timedelta(seconds=seconds)
        if self.now.hour != before.hour:
            self.seen = replace(self.seen, last=at(self.now.hour))

    def pause(self, paused: bool) -> None:
        super().pause(paused)
        self.paused_at.append(self.now)


@pytest.mark.parametrize("last", [7, 9])
def test_a_target_that_cannot_run_what_has_passed_gets_its_schedule_before_the_next_time(
    last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So shortly before ten its first time would be eleven, and ten would be missed.

    Nothing is paused for it where the DAG has missed times by itself.
    """
    now = at(9, 59) + timedelta(seconds=25) if last == 9 else at(9, 30)
    clock, new = Clock(now, last), New(can_run_missed=False)
    monkeypatch.setattr(cutover, "_now", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    cutting = work(clock, record("begun", "kubeflow"))
    if last == 7:
        with pytest.raises(ScheduleError, match=r"not run 2026-03-01T08:00:00\+00:00\. Nothing was"):
            cutting.go(new, PIPELINE)
        assert (clock.paused_at, new.made) == ([], [])
        return
    known = cutting.go(new, PIPELINE)
    assert (known.phase, known.last, known.made_up) == ("done", at(10).isoformat(), [])
    assert new.made == [at(11)]
    (paused_at,) = clock.paused_at
    assert at(10) + timedelta(seconds=cutover.QUIET) <= paused_at < at(10, 1)


def test_a_schedule_that_was_deleted_by_hand() -> None:
    with pytest.raises(ScheduleError, match=r"0 schedules of 'x'.*run this command again"):
        work(Old(), record("making up", last=3, first=5)).go(New(), PIPELINE)


@pytest.mark.parametrize(("phase", "is_paused"), [("begun", True), ("paused", True), ("begun", False)])
def test_back_before_the_new_side_has_a_schedule(phase: str, is_paused: bool, at_half_past_nine: None) -> None:
    """The DAG makes up for all that it missed while it was paused, also where it has no catch-up."""
    old = Old(is_paused=is_paused, last=6, catch_up=False)
    assert work(old, record(phase)).back(New()).phase == "back"
    assert (old.is_paused, old.to_run) == (False, [7, 8, 9] if is_paused else [])
    saved = Cutover.recorded("airflow", "daily")
    assert saved is not None
    assert saved.phase == "back"


class Late(Old):
    """A DAG whose scheduler makes a run while it is being paused, which ends when the DAG is unpaused."""

    busy = True

    def look(self) -> OldSchedule:
        return replace(self.seen, is_busy=self.busy, last=at(9))

    def pause(self, paused: bool) -> None:
        super().pause(paused)
        self.busy = False


def test_a_run_that_a_late_scheduler_made_is_waited_for(
    at_half_past_nine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, saved = New(can_run_missed=False), list[Record]()
    monkeypatch.setattr(cutover, "save", saved.append)
    found = work(Late(), record("paused", "kubeflow", last=3)).go(new, PIPELINE)
    assert found.last == at(9).isoformat()
    assert [each.phase for each in saved] == ["begun", "paused", "scheduling", "making up", "done"]
    assert new.made == [at(10)]


@pytest.mark.parametrize(
    ("stopped", "waiting", "following", "marked", "to_run"),
    [
        # All that passed while neither side was scheduled: a DAG without catch-up makes up for one time at most.
        (6, [], None, [6], [7, 8, 9]),
        # And of the new side's times, what Airflow would still run is marked.
        (9, [at(2), at(4)], None, [4, 9], []),
        (9, [], at(8), [8, 9], []),
        (9, [], at(3), [4, 5, 6, 7, 8, 9], []),
        (9, [], at(10), [9], []),
    ],
)
def test_what_the_old_side_runs_of_what_has_passed(
    stopped: int, waiting: list[datetime], following: datetime | None, marked: list[int], to_run: list[int],
    at_half_past_nine: None,
) -> None:  # fmt: skip
    old = Old(catch_up=False, waiting=waiting, following=following)
    assert work(old, record("marking", last=3, stopped=stopped)).back(New()).phase == "back"
    assert (old.marked, old.to_run) == (marked, to_run)


class Airflow:
    """One that says of each question that it was asked."""

    def __init__(self, on: str) -> None: ...

    def foreign_schedule(self, name: str) -> Old:
        return Asked()

    def schedules(self, pipeline: str) -> Any:
        raise ScheduleError("It was asked.")


class Asked(Old):
    def look(self) -> OldSchedule:
        raise ScheduleError("It was asked.")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow, "resolve", Airflow)
    monkeypatch.setattr(airflow, "load", lambda file: Pipeline("x"))


@pytest.mark.parametrize(
    ("phase", "given", "is_refused"),
    [
        ("making up", ["--to", "kubeflow"], False),
        ("making up", ["--pipeline", "x.py"], False),
        ("making up", ["--to", "prefect"], True),
        ("making up", ["--pipeline", "y.py"], True),
        ("begun", ["--to", "prefect"], False),
    ],
)
def test_what_is_recorded_may_be_said_again(
    phase: str, given: list[str], is_refused: bool, asked: None, capfd: pytest.CaptureFixture[str]
) -> None:
    save(record(phase, "kubeflow"))
    assert main(["airflow", "cutover", "daily", *given]) != 0
    assert ("to kubeflow with" in capfd.readouterr().err) == is_refused


@pytest.mark.parametrize("on", ["airflow", "http://localhost:8080"])
def test_one_airflow_has_one_lock_and_one_record(on: str, asked: None, capfd: pytest.CaptureFixture[str]) -> None:
    """However it is called: two processes do not cut the same DAG over at the same time."""
    save(record("making up", "kubeflow"))
    with Cutover.alone(Old.place, "daily"):
        assert main(["airflow", "cutover", "daily", "--on", on]) != 0
    assert "Another process is cutting 'daily' over." in capfd.readouterr().err
    assert main(["airflow", "cutover", "daily", "--on", on, "--to", "prefect"]) != 0
    assert "to kubeflow with" in capfd.readouterr().err


def test_two_dags_are_not_cut_over_to_one_pipeline_at_once(asked: None, capfd: pytest.CaptureFixture[str]) -> None:
    """Each would find no schedule yet, and one would take the other's for its own."""
    given = ["airflow", "cutover", "second", "--to", "prefect", "--pipeline", "sales.py"]
    with Cutover.alone(Old.place, "first"), Cutover.alone_there("prefect", "x"):
        assert main(given) != 0
    assert "Another process is cutting a DAG over to 'x' on prefect." in capfd.readouterr().err
    assert main(given) != 0
    assert "It was asked." in capfd.readouterr().err, "the other one has ended"
