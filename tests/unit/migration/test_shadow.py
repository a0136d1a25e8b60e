"""A pipeline's schedule is made beside a DAG, becomes the only one, or is removed, wherever a process was killed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml.cli import airflow, main
from flowyml.core.errors import ScheduleError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Outputs, StepRun
from flowyml.migration.airflow.cutover import Cutover, save, shadowed
from tests.unit.migration.cutting import PIPELINE, New, Old, at, record, work


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))


def target(*starts: int, **options: Any) -> New:
    return New(*starts, **{"can_run_missed": False, **options})


def test_a_shadow_pauses_nothing() -> None:
    old, new = Old(is_paused=False, last=2), target()
    before = datetime.now(UTC)
    known = work(old, replace(record("begun"), begun="")).go_beside(new, PIPELINE)
    assert (known.phase, old.is_paused, len(new.made)) == ("shadow", False, 1)
    first = new.there[0].schedule.start
    assert first is not None
    assert first == datetime.fromisoformat(known.shadow)
    assert first >= before + timedelta(seconds=30)
    assert Cutover.recorded("airflow", "daily") == known
    again = work(old, known).go_beside(new, PIPELINE)
    assert (again, len(new.made)) == (known, 1)


def test_a_shadow_that_was_made_before_a_kill_is_not_made_again() -> None:
    there = target(3)
    known = work(Old(is_paused=False), record("shadowing", shadow=3)).go_beside(there, PIPELINE)
    assert (known.phase, known.shadow, there.made) == ("shadow", at(3).isoformat(), [])
    not_there = target()
    known = work(Old(is_paused=False), record("shadowing", shadow=3)).go_beside(not_there, PIPELINE)
    assert (known.shadow != at(3).isoformat(), len(not_there.made)) == (True, 1)


def test_what_has_no_shadow() -> None:
    with pytest.raises(ScheduleError, match="is paused"):
        work(Old(is_paused=True), record("begun")).go_beside(target(), PIPELINE)
    new = target(tells=False)
    with pytest.raises(UnsupportedFeatureError):
        work(Old(is_paused=False), record("begun")).go_beside(new, PIPELINE)
    assert (new.made, Cutover.recorded("airflow", "daily")) == ([], None)


@pytest.mark.parametrize("phase", ["paused", "scheduling"])
def test_a_shadow_goes_on_alone(phase: str) -> None:
    """The DAG ran what came before, so nothing is made up for, which this target could not."""
    old, new = Old(is_paused=True, last=5), target(3)
    known = record(phase, shadow=3, last=5)
    known = work(old, known).go(new, PIPELINE)
    assert (known.phase, known.first, known.made_up, new.made) == ("done", at(3).isoformat(), [], [])
    assert old.is_paused


def test_times_before_the_shadow_that_the_dag_has_not_run() -> None:
    old, new = Old(is_paused=True, last=1), target(3)
    with pytest.raises(ScheduleError, match="cannot run times that have passed, such as 2026-03-01T02:00"):
        work(old, record("paused", shadow=3, last=1)).go(new, PIPELINE)
    known = Cutover.recorded("airflow", "daily")
    assert known is not None
    assert (known.phase, old.is_paused, len(new.there)) == ("shadow", False, 1)


def test_a_paused_shadow_does_not_go_on_alone() -> None:
    old = Old(is_paused=False, last=5)
    with pytest.raises(ScheduleError, match="schedule resume from-3 --on prefect"):
        work(old, record("shadow", shadow=3)).go(target(3, paused=True), PIPELINE)
    assert not old.is_paused


def test_back_where_the_dag_was_paused_and_the_shadow_went_on() -> None:
    """What the pipeline has run alone meanwhile, the DAG does not run again."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    old, new = Old(is_paused=True, last=now - timedelta(hours=2)), target(3)
    known = record("paused", shadow=3, last=now - timedelta(hours=2))
    assert work(old, known).back(new).phase == "back"
    assert (new.there, old.is_paused) == ([], False)
    assert old.marked[:2] == [(now - timedelta(hours=1)).hour, now.hour]


class Engine(New):
    def __init__(self, name: str) -> None:
        super().__init__(ran=[at(3), at(4), at(5), at(7)])
        self.name = name

    def foreign_schedule(self, name: str) -> Old:
        return Old(is_paused=False)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        return (StepRun(name="a", status=ExecutionStatus.COMPLETED, raw_status="success"),)

    def outputs(self, job_id: str) -> Outputs:
        return Outputs({"a": job_id == "new 5"})


def test_intervals_since_the_shadow_until_the_dag_was_paused() -> None:
    engines = cast("Any", Engine("old")), cast("Any", Engine("new"))
    known = record("done", shadow=3, last=7)
    found = shadowed(*engines, known, 25)
    verdicts = [(each.time.hour, str(each.verdict)) for each in found.intervals]
    assert verdicts == [(3, "equal"), (4, "equal"), (5, "differs"), (6, "differs"), (7, "equal")]
    assert [each.time.hour for each in shadowed(*engines, known, 2).intervals] == [6, 7]
    assert [each.time.hour for each in shadowed(*engines, replace(known, last=""), 3).intervals] == [6, 7, 8]


def test_the_report_of_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(airflow, "resolve", Engine)
    save(record("shadow", shadow=3))
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
    save(record("shadow", shadow=20))
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
    monkeypatch.setattr(airflow, "resolve", Engine)
    save(record("done", shadow=3))
    assert main(["airflow", *line.split()]) == 2
    assert said in " ".join(capfd.readouterr().err.split())
