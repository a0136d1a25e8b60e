"""A DAG's schedule goes to the local engine, which runs what the DAG has missed, and back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml import Pipeline, current_run, step
from flowyml.core.errors import ScheduleError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.migration.airflow import cutover
from flowyml.migration.airflow.cutover import Cutover, Record
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.handover import OldSchedule
from flowyml.orchestrators.local.schedule_server import serve_schedules
from tests.waiting import wait_until

HOUR = timedelta(hours=1)


class _Old:
    """A DAG with catch-up that has run all until ``last``."""

    name, place = "daily", "airflow"

    def __init__(self, last: datetime) -> None:
        self.schedule = Schedule(cron=f"{last.minute} * * * *")
        self.last, self.is_paused, self.pauses = last, False, 0
        self.marked: list[datetime] = []

    def look(self) -> OldSchedule:
        return OldSchedule(
            schedule=self.schedule, catch_up=True, is_paused=self.is_paused, is_busy=False, last=self.last
        )

    def pause(self, paused: bool) -> None:
        self.is_paused, self.pauses = paused, self.pauses + paused

    def mark_as_run(self, time: datetime, note: str) -> None:
        self.marked.append(time)


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cutover, "QUIET", 0)  # whatever the time is


@pytest.fixture
def local(tmp_path: Path) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path / "runs.db")


@pytest.fixture
def served(local: LocalOrchestrator) -> Iterator[None]:
    stop = threading.Event()
    server = threading.Thread(target=serve_schedules, args=(local.store.path, stop), kwargs={"poll_seconds": 0.1})
    server.start()
    wait_until(lambda: _is_served(local))
    yield
    stop.set()
    server.join(240)


def _is_served(local: LocalOrchestrator) -> bool:
    try:
        local.check_fires()
    except ScheduleError:
        return False
    return True


def _noting(folder: Path) -> Any:
    place = str(folder / "marks")

    @step
    def note() -> str:
        run = current_run()
        with Path(place).open("a") as file:
            file.write(f"{run.logical_date} {run.data_interval_start}\n")
        return str(run.logical_date)

    return Pipeline("daily").add_step(note)


def _record() -> Record:
    return Record(dag="daily", old="airflow", new="local", file="x.py", pipeline="daily")


@pytest.mark.processes
def test_what_the_dag_has_missed_runs_once(local: LocalOrchestrator, served: None, tmp_path: Path) -> None:
    half_an_hour_ago = datetime.now(UTC).replace(second=0, microsecond=0) - HOUR / 2  # nothing comes due meanwhile
    last = half_an_hour_ago - 2 * HOUR
    old, pipeline = _Old(last), _noting(tmp_path)
    record = Cutover(cast("Any", old), _record(), print).go(local, pipeline)
    made_up = [datetime.fromisoformat(text) for text in record.made_up]
    assert record.phase == "done"
    assert made_up[:2] == [last + HOUR, last + 2 * HOUR]
    assert made_up[-1] + HOUR == datetime.fromisoformat(record.first)

    again = Cutover(cast("Any", old), replace(record, phase="making up", made_up=[]), print).go(local, pipeline)
    assert again == record
    runs = local.scheduled_runs("daily")
    assert sorted(runs) == made_up
    wait_until(lambda: all(run.status.is_terminal for run in local.runs()))
    assert {run.status for run in local.runs()} == {ExecutionStatus.COMPLETED}
    lines = sorted((tmp_path / "marks").read_text().splitlines())
    assert lines == [f"{time} {time - HOUR}" for time in made_up]
    assert local.outputs(runs[last + HOUR].job_id) == {"note": str(last + HOUR)}

    local.pause_schedule("daily")  # by hand: its last run says how far it came
    record = Cutover(cast("Any", old), record, print).back(local)
    assert (record.phase, record.stopped, old.is_paused) == ("back", made_up[-1].isoformat(), False)
    assert old.marked == made_up
    assert (local.schedules(), sorted(local.scheduled_runs("daily"))) == ([], made_up)


def test_nothing_is_paused_while_no_schedule_would_fire(local: LocalOrchestrator, tmp_path: Path) -> None:
    old = _Old(datetime.now(UTC))
    for go in ("go", "go_beside"):
        work = Cutover(cast("Any", old), _record(), print)
        with pytest.raises(ScheduleError, match="flowyml schedule serve"):
            getattr(work, go)(local, _noting(tmp_path))
    assert (old.pauses, local.schedules(), Cutover.recorded("airflow", "daily")) == (0, [], None)


@pytest.mark.processes
def test_runs_by_hand_are_for_no_time(local: LocalOrchestrator, tmp_path: Path) -> None:
    local.run_pipeline(_noting(tmp_path), "daily-by-hand").wait_for_completion(2400)
    assert local.runs("daily")
    assert local.scheduled_runs("daily") == {}
