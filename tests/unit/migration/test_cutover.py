"""Which times of a schedule are made up for when it passes to another engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from flowyml import Pipeline
from flowyml.cli import airflow, main
from flowyml.core.errors import DefinitionError, ScheduleError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.migration.airflow import cutover
from flowyml.migration.airflow.cutover import Cutover, Record, save
from flowyml.migration.airflow.schedule_times import time_before, times_between
from flowyml.orchestrators.handover import ForeignSchedule, OldSchedule


def _at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


HOURLY = Schedule(cron="0 * * * *")


class _Old:
    """A DAG whose schedule is only looked at."""

    name, place = "daily", "airflow"

    def look(self) -> OldSchedule:
        raise AssertionError

    def pause(self, paused: bool) -> None:
        raise AssertionError

    def mark_as_run(self, time: datetime, note: str) -> None:
        raise AssertionError

    def run_for(self, time: datetime) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("catch_up", "begun", "hours"),
    [
        (True, _at(7, 30), [4, 5, 6, 7, 8, 9]),
        (False, _at(7, 30), [7, 8, 9]),  # of what it had missed by itself the newest alone
        (False, _at(3, 30), [4, 5, 6, 7, 8, 9]),
        (False, _at(9, 30), [9]),
    ],
)
def test_what_is_made_up_for(catch_up: bool, begun: datetime, hours: list[int]) -> None:
    old: ForeignSchedule = _Old()
    record = Record(dag="daily", old="airflow", new="prefect", file="x.py", pipeline="x", begun=begun.isoformat())
    seen = OldSchedule(schedule=HOURLY, catch_up=catch_up, is_paused=True, is_busy=False, last=_at(3))
    assert Cutover(old, record, print)._missed(seen, _at(3), _at(10)) == [_at(hour) for hour in hours]


def test_times_between_two_moments() -> None:
    assert times_between(HOURLY, _at(3), _at(5)) == [_at(4), _at(5)]
    assert times_between(HOURLY, _at(3), _at(3, 59)) == []
    assert (time_before(HOURLY, _at(3)), time_before(HOURLY, _at(3, 59))) == (_at(3), _at(3))
    with pytest.raises(DefinitionError, match="too many"):
        times_between(Schedule(cron="* * * * *"), _at(0), _at(23))


def test_a_record_is_read_back_and_one_process_works_on_it() -> None:
    record = Record(dag="a/../b", old="airflow", new="prefect", file="x.py", pipeline="x", made_up=["t"])
    save(record)
    assert Cutover.recorded("airflow", "a/../b") == record
    assert Cutover.recorded("airflow", "other") is None
    one, other = Cutover.alone("airflow", "a/../b"), Cutover.alone("airflow", "a/../b")
    with one, pytest.raises(ScheduleError, match="Another process"), other:
        raise AssertionError


def test_back_is_not_for_what_is_being_scheduled() -> None:
    record = Record(dag="d", old="airflow", new="prefect", file="x.py", pipeline="x", phase="scheduling")
    with pytest.raises(ScheduleError, match="not finished"):
        Cutover(_Old(), record, print).back(None)  # type: ignore[arg-type]  # it is not asked


class _New:
    """A target that has some schedules, and may be able to run what has passed."""

    def __init__(self, can_run_missed: bool = False) -> None:
        self.can_run_missed = can_run_missed

    def schedules(self, pipeline: str) -> list[ScheduleInfo]:
        return []

    def check_fires(self) -> None: ...


class _Paused(_Old):
    """A DAG that missed times before it was paused."""

    paused = True

    def look(self) -> OldSchedule:
        return OldSchedule(schedule=HOURLY, catch_up=True, is_paused=self.paused, is_busy=False, last=_at(3))

    def pause(self, paused: bool) -> None:
        self.paused = paused


def _recorded(phase: str, last: str = "", first: str = "") -> Record:
    return Record(
        dag="daily", old="airflow", new="kubeflow", file="x.py", pipeline="x", phase=phase, begun=_at(3).isoformat(),
        last=last, first=first,
    )  # fmt: skip


def test_a_target_that_cannot_run_what_has_passed_gets_nothing() -> None:
    old, record = _Paused(), _recorded("paused", last=(datetime.now(UTC) - timedelta(hours=3)).isoformat())
    work = Cutover(old, record, print)
    with pytest.raises(ScheduleError, match=r"kubeflow cannot run times that have passed, such as .* unpaused again"):
        work.go(cast("Any", _New()), cast("Any", None))
    assert not old.paused
    assert cast("Record", Cutover.recorded("airflow", "daily")).phase == "begun"


class _Clock:
    """A time that passes where somebody waits, and a DAG that runs each hour when it comes."""

    name, place = "daily", "airflow"

    def __init__(self, now: datetime, last: datetime) -> None:
        self.now, self.missed_until = now, last
        self.paused_at: list[datetime] = []

    def sleep(self, seconds: float) -> None:
        before = self.now
        self.now += timedelta(seconds=seconds)
        if self.now.hour != before.hour:
            self.missed_until = _at(self.now.hour)

    def look(self) -> OldSchedule:
        return OldSchedule(
            schedule=HOURLY, catch_up=True, is_paused=bool(self.paused_at), is_busy=False, last=self.missed_until
        )

    def pause(self, paused: bool) -> None:
        assert paused
        self.paused_at.append(self.now)


class _Schedules(_New):
    """A target that takes schedules, and cannot run what has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[datetime | None] = []

    def deploy_pipeline(self, pipeline: object) -> None: ...

    def schedule_pipeline(self, pipeline: object, schedule: Schedule) -> None:
        self.made.append(schedule.start)


def _at_a_time(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> Cutover:
    monkeypatch.setattr(cutover, "_now", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return Cutover(cast("ForeignSchedule", clock), _recorded("begun"), print)


def test_nothing_is_paused_for_a_target_that_cannot_run_what_the_dag_has_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, new = _Clock(_at(9, 30), last=_at(7)), _Schedules()
    with pytest.raises(ScheduleError, match=r"kubeflow cannot run .* not run 2026-03-01T08:00:00\+00:00\. Nothing was"):
        _at_a_time(clock, monkeypatch).go(cast("Any", new), cast("Any", Pipeline("x")))
    assert (clock.paused_at, new.made) == ([], [])


def test_a_target_that_cannot_run_what_has_passed_gets_its_schedule_before_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So shortly before ten its first time would be eleven, and ten would be missed."""
    clock, new = _Clock(_at(9, 59) + timedelta(seconds=25), last=_at(9)), _Schedules()
    record = _at_a_time(clock, monkeypatch).go(cast("Any", new), cast("Any", Pipeline("x")))
    assert (record.phase, record.last, record.made_up) == ("done", _at(10).isoformat(), [])
    assert new.made == [_at(11)]
    (paused_at,) = clock.paused_at
    assert _at(10) + timedelta(seconds=cutover.QUIET) <= paused_at < _at(10, 1)


def test_a_schedule_that_was_deleted_by_hand() -> None:
    record = _recorded("making up", last=_at(3).isoformat(), first=_at(5).isoformat())
    with pytest.raises(ScheduleError, match=r"0 schedules of 'x'.*run this command again"):
        Cutover(_Paused(), record, print).go(cast("Any", _New(can_run_missed=True)), cast("Any", None))


class _WithoutCatchUp(_Paused):
    """It last ran before the last few hours."""

    def __init__(self, paused: bool) -> None:
        self.paused, self.ran = paused, list[datetime]()

    def look(self) -> OldSchedule:
        return OldSchedule(schedule=HOURLY, catch_up=False, is_paused=self.paused, is_busy=False, last=_at(3))

    def run_for(self, time: datetime) -> None:
        self.ran.append(time)


@pytest.mark.parametrize("phase", ["begun", "paused"])
def test_back_before_the_new_side_has_a_schedule(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The DAG makes up for all that it missed while it was paused."""
    monkeypatch.setattr(cutover, "_now", lambda: _at(6, 30))
    old = _WithoutCatchUp(paused=True)
    assert Cutover(old, _recorded(phase), print).back(cast("Any", None)).phase == "back"
    assert not old.paused
    assert old.ran == [_at(4), _at(5), _at(6)]


def test_back_where_the_dag_was_never_paused() -> None:
    old = _WithoutCatchUp(paused=False)
    assert Cutover(old, _recorded("begun"), print).back(cast("Any", None)).phase == "back"
    assert (old.paused, old.ran) == (False, [])
    assert cast("Record", Cutover.recorded("airflow", "daily")).phase == "back"


class _Late(_Paused):
    """A DAG whose scheduler makes a run while it is being paused, which ends when the DAG is unpaused."""

    busy = True

    def look(self) -> OldSchedule:
        return replace(super().look(), is_busy=self.busy, last=_at(9))

    def pause(self, paused: bool) -> None:
        super().pause(paused)
        self.busy = False


def test_a_run_that_a_late_scheduler_made_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutover, "_now", lambda: _at(9, 10))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    old, new, saved = _Late(), _Schedules(), list[Record]()
    monkeypatch.setattr(cutover, "save", saved.append)
    record = _recorded("paused", last=_at(3).isoformat())
    assert Cutover(old, record, print).go(cast("Any", new), cast("Any", Pipeline("x"))).last == _at(9).isoformat()
    assert [record.phase for record in saved] == ["begun", "paused", "scheduling", "making up", "done"]
    assert new.made == [_at(10)]


class _Back(_Old):
    """A paused DAG without catch-up, which notes what it is to run."""

    def __init__(self, *waiting: datetime, following: datetime | None = None) -> None:
        self.waiting, self.following = frozenset(waiting), following
        self.marked: list[datetime] = []
        self.to_run: list[datetime] = []

    def look(self) -> OldSchedule:
        return OldSchedule(
            schedule=HOURLY, catch_up=False, is_paused=True, is_busy=False, last=_at(3), waiting=self.waiting,
            following=self.following,
        )  # fmt: skip

    def mark_as_run(self, time: datetime, note: str) -> None:
        self.marked.append(time)

    def run_for(self, time: datetime) -> None:
        self.to_run.append(time)

    def pause(self, paused: bool) -> None:
        assert not paused


def test_what_passed_while_neither_side_was_scheduled_is_run_by_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it: a DAG without catch-up makes up for one time at most, and for none while as many runs as may go on."""
    monkeypatch.setattr(cutover, "_now", lambda: _at(9, 10))
    old = _Back()
    record = replace(_recorded("marking", last=_at(3).isoformat()), stopped=_at(6).isoformat())
    assert Cutover(old, record, print).back(cast("Any", _New())).phase == "back"
    assert (old.marked, old.to_run) == ([_at(6)], [_at(7), _at(8), _at(9)])


@pytest.mark.parametrize(
    ("waiting", "following", "marked"),
    [([_at(2), _at(4)], None, [4, 6]), ([], _at(5), [5, 6]), ([], _at(3), [4, 5, 6]), ([], _at(7), [6])],
)
def test_what_airflow_would_still_run_of_the_new_sides_times_is_marked(
    waiting: list[datetime], following: datetime | None, marked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutover, "_now", lambda: _at(6, 10))
    old = _Back(*waiting, following=following)
    record = replace(_recorded("marking", last=_at(3).isoformat()), stopped=_at(6).isoformat())
    assert Cutover(old, record, print).back(cast("Any", _New())).phase == "back"
    assert (old.marked, old.to_run) == ([_at(hour) for hour in marked], [])


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
    phase: str, given: list[str], is_refused: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save(_recorded(phase))
    monkeypatch.setattr(airflow, "resolve", lambda on: _Airflow(_Unasked()))
    monkeypatch.setattr(airflow, "load", lambda file: Pipeline("x"))
    assert main(["airflow", "cutover", "daily", *given]) != 0
    assert ("to kubeflow with" in capfd.readouterr().err) == is_refused


class _Unasked(_Old):
    def look(self) -> OldSchedule:
        raise ScheduleError("It was asked.")


@dataclass
class _Airflow:
    old: ForeignSchedule

    def foreign_schedule(self, name: str) -> ForeignSchedule:
        return self.old

    def schedules(self, pipeline: str) -> list[ScheduleInfo]:
        raise ScheduleError("It was asked.")


@pytest.mark.parametrize("on", ["airflow", "http://localhost:8080"])
def test_one_airflow_has_one_lock_and_one_record(
    on: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """However it is called: two processes do not cut the same DAG over at the same time."""
    monkeypatch.setattr(airflow, "resolve", lambda on: _Airflow(_Unasked()))
    save(_recorded("making up"))
    with Cutover.alone(_Unasked.place, "daily"):
        assert main(["airflow", "cutover", "daily", "--on", on]) != 0
    assert "Another process is cutting 'daily' over." in capfd.readouterr().err
    assert main(["airflow", "cutover", "daily", "--on", on, "--to", "prefect"]) != 0
    assert "to kubeflow with" in capfd.readouterr().err


def test_two_dags_are_not_cut_over_to_one_pipeline_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each would find no schedule yet, and one would take the other's for its own."""
    monkeypatch.setattr(airflow, "resolve", lambda on: _Airflow(_Unasked()))
    monkeypatch.setattr(airflow, "load", lambda file: Pipeline("sales"))
    given = ["airflow", "cutover", "second", "--to", "prefect", "--pipeline", "sales.py"]
    with Cutover.alone(_Unasked.place, "first"), Cutover.alone_there("prefect", "sales"):
        assert main(given) != 0
    assert "Another process is cutting a DAG over to 'sales' on prefect." in capfd.readouterr().err
    assert main(given) != 0
    assert "It was asked." in capfd.readouterr().err, "the other one has ended"
