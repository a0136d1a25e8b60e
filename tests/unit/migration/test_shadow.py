"""A pipeline's schedule is made beside a DAG, becomes the only one, or is removed, wherever a process was killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml import Pipeline
from flowyml.cli import airflow, main
from flowyml.core.errors import ScheduleError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Outputs, Run, StepRun
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.migration.airflow.cutover import Cutover, Record, save, shadowed
from flowyml.orchestrators.handover import ForeignSchedule, OldSchedule

HOURLY = Schedule(cron="0 * * * *")
PIPELINE = cast("Any", Pipeline("x"))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))


def _at(hour: int) -> datetime:
    return datetime(2026, 3, 1, hour, tzinfo=UTC)


class _Old:
    """A DAG that has run all until ``last``."""

    name, place = "daily", "airflow"

    def __init__(self, *, is_paused: bool = False, last: datetime | None = None) -> None:
        self.is_paused, self.last = is_paused, last
        self.marked: list[datetime] = []

    def look(self) -> OldSchedule:
        return OldSchedule(schedule=HOURLY, catch_up=True, is_paused=self.is_paused, is_busy=False, last=self.last)

    def runs(self, most: int) -> Mapping[datetime, Run]:
        return {_at(hour): _run(f"old {hour}") for hour in range(1, 9)}

    def pause(self, paused: bool) -> None:
        self.is_paused = paused

    def mark_as_run(self, time: datetime, note: str) -> None:
        self.marked.append(time)

    def run_for(self, time: datetime) -> None:
        raise AssertionError


class _New:
    """A target that has at most one schedule."""

    can_run_missed = False

    def __init__(self, start: datetime | None = None, *, paused: bool = False, tells: bool = True) -> None:
        self.there = [self._info(replace(HOURLY, start=start), paused)] if start else []
        self.tells, self.made = tells, 0

    def _info(self, schedule: Schedule, paused: bool = False) -> ScheduleInfo:
        return ScheduleInfo(schedule_id="s", pipeline="x", schedule=schedule, paused=paused)

    def schedules(self, pipeline: str) -> list[ScheduleInfo]:
        return self.there

    def schedule_pipeline(self, pipeline: object, schedule: Schedule) -> None:
        self.there, self.made = [self._info(schedule)], self.made + 1

    def delete_schedule(self, schedule_id: str) -> None:
        self.there = []

    def check_fires(self) -> None: ...

    def scheduled_runs(self, pipeline: str, *, limit: int) -> Mapping[datetime, Run]:
        if not self.tells:
            raise UnsupportedFeatureError("It does not tell.")
        return {_at(hour): _run(f"new {hour}") for hour in (3, 4, 5, 7)}


def _run(job: str) -> Run:
    return Run(job_id=job, run_id=job, pipeline="x", status=ExecutionStatus.COMPLETED, raw_status="success")


def _record(phase: str, **known: Any) -> Record:
    known = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in known.items()}
    begun = _at(2).isoformat()
    return Record(
        dag="daily", old="airflow", new="prefect", file="x.py", pipeline="x", phase=phase, begun=begun, **known
    )


def _work(old: _Old, record: Record) -> Cutover:
    return Cutover(cast("ForeignSchedule", old), record, print)


def test_a_shadow_pauses_nothing() -> None:
    old, new = _Old(last=_at(2)), _New()
    before = datetime.now(UTC)
    record = _work(old, replace(_record("begun"), begun="")).go_beside(cast("Any", new), PIPELINE)
    assert (record.phase, old.is_paused, new.made) == ("shadow", False, 1)
    first = new.there[0].schedule.start
    assert first is not None
    assert first == datetime.fromisoformat(record.shadow)
    assert first >= before + timedelta(seconds=30)
    assert Cutover.recorded("airflow", "daily") == record
    again = _work(old, record).go_beside(cast("Any", new), PIPELINE)
    assert (again, new.made) == (record, 1)


def test_a_shadow_that_was_made_before_a_kill_is_not_made_again() -> None:
    there = _New(_at(3))
    record = _work(_Old(), _record("shadowing", shadow=_at(3))).go_beside(cast("Any", there), PIPELINE)
    assert (record.phase, record.shadow, there.made) == ("shadow", _at(3).isoformat(), 0)
    not_there = _New()
    record = _work(_Old(), _record("shadowing", shadow=_at(3))).go_beside(cast("Any", not_there), PIPELINE)
    assert (record.shadow != _at(3).isoformat(), not_there.made) == (True, 1)


def test_what_has_no_shadow() -> None:
    with pytest.raises(ScheduleError, match="is paused"):
        _work(_Old(is_paused=True), _record("begun")).go_beside(cast("Any", _New()), PIPELINE)
    new = _New(tells=False)
    with pytest.raises(UnsupportedFeatureError):
        _work(_Old(), _record("begun")).go_beside(cast("Any", new), PIPELINE)
    assert (new.made, Cutover.recorded("airflow", "daily")) == (0, None)


@pytest.mark.parametrize("phase", ["paused", "scheduling"])
def test_a_shadow_goes_on_alone(phase: str) -> None:
    """The DAG ran what came before, so nothing is made up for, which this target could not."""
    old, new = _Old(is_paused=True, last=_at(5)), _New(_at(3))
    record = _record(phase, shadow=_at(3), last=_at(5))
    record = _work(old, record).go(cast("Any", new), PIPELINE)
    assert (record.phase, record.first, record.made_up, new.made) == ("done", _at(3).isoformat(), [], 0)
    assert old.is_paused


def test_times_before_the_shadow_that_the_dag_has_not_run() -> None:
    old, new = _Old(is_paused=True, last=_at(1)), _New(_at(3))
    with pytest.raises(ScheduleError, match="cannot run times that have passed, such as 2026-03-01T02:00"):
        _work(old, _record("paused", shadow=_at(3), last=_at(1))).go(cast("Any", new), PIPELINE)
    record = Cutover.recorded("airflow", "daily")
    assert record is not None
    assert (record.phase, old.is_paused, len(new.there)) == ("shadow", False, 1)


def test_a_paused_shadow_does_not_go_on_alone() -> None:
    old = _Old(last=_at(5))
    with pytest.raises(ScheduleError, match="schedule resume s --on prefect"):
        _work(old, _record("shadow", shadow=_at(3))).go(cast("Any", _New(_at(3), paused=True)), PIPELINE)
    assert not old.is_paused


@pytest.mark.parametrize("phase", ["shadowing", "shadow", "begun"])
def test_a_shadow_is_removed(phase: str) -> None:
    old, new = _Old(last=_at(5)), _New(_at(3))
    record = _work(old, _record(phase, shadow=_at(3))).back(cast("Any", new))
    assert (record.phase, new.there, old.is_paused, old.marked) == ("back", [], False, [])
    assert abs(datetime.fromisoformat(record.last) - datetime.now(UTC)) < timedelta(minutes=5), "no later runs compared"


def test_back_where_the_dag_was_paused_and_the_shadow_went_on() -> None:
    """What the pipeline has run alone meanwhile, the DAG does not run again."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    old, new = _Old(is_paused=True, last=now - timedelta(hours=2)), _New(_at(3))
    record = _record("paused", shadow=_at(3), last=now - timedelta(hours=2))
    assert _work(old, record).back(cast("Any", new)).phase == "back"
    assert (new.there, old.is_paused) == ([], False)
    assert old.marked[:2] == [now - timedelta(hours=1), now]


class _Engine(_New):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def foreign_schedule(self, name: str) -> _Old:
        return _Old()

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        return (StepRun(name="a", status=ExecutionStatus.COMPLETED, raw_status="success"),)

    def outputs(self, job_id: str) -> Outputs:
        return Outputs({"a": job_id == "new 5"})


def test_intervals_since_the_shadow_until_the_dag_was_paused() -> None:
    engines = cast("Any", _Engine("old")), cast("Any", _Engine("new"))
    record = _record("done", shadow=_at(3), last=_at(7))
    found = shadowed(*engines, record, 25)
    verdicts = [(each.time.hour, str(each.verdict)) for each in found.intervals]
    assert verdicts == [(3, "equal"), (4, "equal"), (5, "differs"), (6, "differs"), (7, "equal")]
    assert [each.time.hour for each in shadowed(*engines, record, 2).intervals] == [6, 7]
    assert [each.time.hour for each in shadowed(*engines, replace(record, last=""), 3).intervals] == [6, 7, 8]


def test_the_report_of_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(airflow, "resolve", _Engine)
    save(_record("shadow", shadow=_at(3)))
    report = tmp_path / "report.md"
    assert main(["airflow", "compare", "daily", "-o", str(report)]) == 1
    shown = capfd.readouterr().out
    assert "2026-03-01T05:00:00+00:00: output a: false in the DAG, true in the pipeline" in shown
    assert "6 intervals: 3 equal, 2 differs, 1 waits." in shown
    assert "differs" in report.read_text()
    assert main(["airflow", "compare", "daily", "--last", "1", "--json"]) == 1, "nothing is known to be equal"
    totals = {"equal": 0, "differs": 0, "nothing_to_compare": 0, "waits": 1}
    assert json.loads(capfd.readouterr().out)["totals"] == totals
    assert main(["airflow", "compare", "daily", "--last", "2"]) == 0
    capfd.readouterr()
    save(_record("shadow", shadow=_at(20)))
    assert main(["airflow", "compare", "daily"]) == 1
    said = capfd.readouterr()
    assert said.out == "0 intervals.\n"
    assert said.err == "Both sides run from 2026-03-01T20:00:00+00:00 on: compare them after that.\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare other", "No pipeline runs beside 'other'"),
        ("compare daily -o report.pdf", "end the name in .md or .json"),
        ("cutover daily --shadow --back", "--back also undoes"),
        ("cutover daily --shadow", "is cut over to prefect already (done)"),
    ],
)
def test_what_makes_no_sense_is_said(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(airflow, "resolve", _Engine)
    save(_record("done", shadow=_at(3)))
    assert main(["airflow", *line.split()]) == 2
    assert said in " ".join(capfd.readouterr().err.split())
