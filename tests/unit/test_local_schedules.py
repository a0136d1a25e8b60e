"""Schedules of local runs, and the server that fires them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import OwnershipError, ParameterError, ScheduleNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.origin import Origin
from flowyml.core.process_identity import this_process
from flowyml.core.schedule import Schedule
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import schema
from flowyml.orchestrators.local.schedule_server import Server, Trigger, serve_schedules
from flowyml.orchestrators.local.scheduled_runs import run_id_of
from flowyml.orchestrators.local.schedules import ScheduleStore
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

quietly = pytest.mark.filterwarnings("ignore:.*nothing will fire.*:UserWarning")


def noting(folder: Path) -> Pipeline:
    place = str(folder / "fired")

    @step
    def note(word: str) -> None:
        with Path(place).open("a") as file:
            file.write(f"{word}\n")

    return Pipeline("noting", context=context(word="tick")).add_step(note)


def fired(folder: Path) -> list[str]:
    path = folder / "fired"
    return path.read_text().split() if path.exists() else []


def fires_within(folder: Path, seconds: float) -> bool:
    before = fired(folder)
    time.sleep(seconds)
    return fired(folder) != before


@contextmanager
def served(local: LocalOrchestrator, servers: int = 1) -> Iterator[None]:
    stop = threading.Event()
    threads = [
        threading.Thread(target=serve_schedules, args=(local.store.path, stop), kwargs={"poll_seconds": 0.1})
        for _ in range(servers)
    ]
    before = threading.enumerate()
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(240)
        assert not {*threading.enumerate()} - {*before}


def test_a_schedule_without_a_server_warns(local: LocalOrchestrator, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="flowyml schedule serve") as caught:
        made = noting(tmp_path).schedule("daily", 3, on=local)
    assert caught[0].filename == __file__
    assert (made.schedule_id, made.pipeline, made.schedule.cron) == ("noting", "noting", "0 3 * * *")
    assert made.next_runs[:2] == tuple(made.schedule.next_times(2))


@quietly
def test_deploying_moves_the_schedule_and_a_dry_run_tells(local: LocalOrchestrator, tmp_path: Path) -> None:
    old = noting(tmp_path)
    plain = replace(old.bundle(), data=old.bundle().data)
    assert "A new bundle" in local.diff(plain)
    local.deploy_pipeline(old)
    assert local.diff(plain) == ""
    made = local.schedule_pipeline(old, Schedule.of("hourly", 5, parameters={"word": "tock"}))
    assert local.diff(plain) == ""
    new = Pipeline("noting", context=context(word="later")).add_step(old._calls[0].step)
    assert '+      "default": "later",' in local.diff(new.bundle())
    deployed = local.deploy_pipeline(new)
    assert deployed.changed
    assert deployed.also == (f"schedule {made.schedule_id!r}",)
    assert local.diff(new.bundle()) == ""
    assert local.schedules() == [made]
    assert ScheduleStore(local.store).get(made.schedule_id).bundle.endswith(new.bundle().filename)
    other = Pipeline("noting", context=context(words="later")).add_step(step(name="note")(lambda words: words))
    with pytest.raises(ParameterError, match="it has no parameter 'word'"):
        local.deploy_pipeline(other)


def test_a_server_fires_follows_changes_and_stops(local: LocalOrchestrator, tmp_path: Path) -> None:
    pipeline = noting(tmp_path)
    with served(local):
        wait_until(lambda: ScheduleStore(local.store).is_served())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipeline.schedule("interval", 1, on=local)
        wait_until(lambda: len(fired(tmp_path)) >= 2)
        pipeline.schedule("interval", 1, on=local, parameters={"word": "tock"})
        wait_until(lambda: "tock" in fired(tmp_path))
        local.pause_schedule("noting")
        wait_until(lambda: not fires_within(tmp_path, 2.5))  # one may have been on its way
        wait_until(lambda: all(run.status.is_terminal for run in local.runs()))
        local.delete_schedule("noting")
    wait_until(lambda: all(run.status.is_terminal for run in local.runs()))  # the server may just have begun one
    assert not ScheduleStore(local.store).is_served()
    runs = local.runs("noting")
    assert {run.status for run in runs} == {ExecutionStatus.COMPLETED}
    assert all(run.run_id.startswith("noting-20") for run in runs)
    assert len({run.run_id for run in runs}) == len(runs) == len(fired(tmp_path))


@quietly
def test_two_servers_fire_once(local: LocalOrchestrator, tmp_path: Path) -> None:
    noting(tmp_path).schedule("interval", 1, on=local)
    with served(local, servers=2):
        wait_until(lambda: len(fired(tmp_path)) >= 3)
    wait_until(lambda: all(run.status.is_terminal for run in local.runs()))
    assert len(fired(tmp_path)) == len(local.runs())


@quietly
def test_catching_up_begins_at_the_start_and_makes_one_run_after_another(
    local: LocalOrchestrator, tmp_path: Path
) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    assert noting(tmp_path).schedule("interval", 1200, on=local, catch_up=True, start=start).missed == 4
    with served(local):
        wait_until(lambda: len(fired(tmp_path)) == 4)
    runs = local.runs()
    assert [run.run_id for run in reversed(runs)] == [
        f"noting-{start + timedelta(minutes=20 * number):%Y%m%dT%H%M%SZ}" for number in range(4)
    ]
    for earlier, later in zip(runs[1:], runs, strict=False):
        assert earlier.ended_at is not None
        assert later.created_at is not None
        assert earlier.ended_at <= later.created_at


@quietly
def test_a_schedule_that_is_changed_goes_on_catching_up_where_it_was(local: LocalOrchestrator, tmp_path: Path) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    pipeline, schedules = noting(tmp_path), ScheduleStore(local.store)
    pipeline.schedule("interval", 1200, on=local, catch_up=True, start=start)
    schedules.mark_fired("noting", start + timedelta(minutes=20))
    assert pipeline.schedule("interval", 600, on=local, catch_up=True, start=start).missed == 4
    assert pipeline.schedule("interval", 600, on=local, start=start).missed == 0
    assert pipeline.schedule("interval", 600, on=local, catch_up=True, start=start).missed == 7, "from the start"
    assert local.pause_schedule("noting").missed == 0
    assert local.resume_schedule("noting").missed == 0, "what came due during a pause is left out"
    later = datetime.now(UTC) + timedelta(hours=1)
    assert pipeline.schedule("hourly", 0, on=local, catch_up=True, start=later).missed == 0
    assert pipeline.schedule("hourly", 0, on=local).missed == 0
    assert pipeline.schedule("hourly", 0, on=local, catch_up=True, start=datetime(1, 1, 1, tzinfo=UTC)).missed == 1000


@quietly
def test_without_catch_up_what_was_missed_is_left_out(local: LocalOrchestrator, tmp_path: Path) -> None:
    noting(tmp_path).schedule("interval", 3600, on=local, start=datetime.now(UTC) - timedelta(minutes=90))
    with local.store.session() as db:
        db.execute("UPDATE schedules SET seen = seen - 7200")
    with served(local):
        time.sleep(0.5)
    assert local.runs() == []


@quietly
@pytest.mark.filterwarnings("ignore:Schedule 'damaged' is left out:UserWarning")
def test_damaged_schedules_are_logged_and_do_not_keep_the_others_from_firing(
    local: LocalOrchestrator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noting(tmp_path).schedule("interval", 1, on=local)
    with local.store.session() as db:
        for name, bundle, schedule, seen in (
            ("damaged", "bundle", '{"interval_seconds": 1e-9}', "seen"),
            ("unplanned", "bundle", '{"interval_seconds": 1e8}', "253402290000"),
            ("bundleless", "'/nowhere/at-all.pyz'", '{"interval_seconds": 1}', "seen"),
        ):
            db.execute(
                "INSERT INTO schedules (schedule_id, pipeline, bundle, orchestrator, schedule, seen)"
                f" SELECT '{name}', '{name}', {bundle}, orchestrator, '{schedule}', {seen} FROM schedules"
                " WHERE schedule_id = 'noting'"
            )
    with pytest.warns(UserWarning, match="Schedule 'damaged' is left out.*flowyml schedule delete damaged"):
        assert local.schedules("damaged") == []
    with served(local):
        wait_until(lambda: fired(tmp_path))
        wait_until(lambda: "Schedule 'unplanned' of 'unplanned' cannot be planned." in caplog.text)
        wait_until(lambda: "could not be started" in caplog.text)
    assert local.runs("bundleless") == []
    local.delete_schedule("damaged")
    with pytest.raises(ScheduleNotFoundError, match="'damaged'"):
        local.delete_schedule("damaged")


@quietly
def test_a_run_that_cannot_be_started_for_a_moment_is_not_lost(
    local: LocalOrchestrator, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowyml.orchestrators.local.schedule_server._AGAIN_SECONDS", 0.2)
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    created = noting(tmp_path).schedule("interval", 3600, start=due, on=local)
    bundle = Path(ScheduleStore(local.store).get(created.schedule_id).bundle)
    away = bundle.rename(tmp_path / "away")
    with served(local):
        wait_until(lambda: "could not be started" in caplog.text)
        away.rename(bundle)
        wait_until(lambda: fired(tmp_path))
    assert [run.run_id for run in local.runs("noting")] == [run_id_of(created.schedule_id, due)]


@quietly
def test_a_time_that_comes_too_late_is_skipped_with_a_line_in_the_log(
    local: LocalOrchestrator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=90)
    created = noting(tmp_path).schedule("interval", 3600, start=start, on=local)
    store = ScheduleStore(local.store)
    with local.store.session() as db:
        db.execute("UPDATE schedules SET seen = ?", (start.timestamp() - 1,))
    server = Server(store, threading.Event())
    for _ in range(2):
        server._fire(created.schedule_id, store.get(created.schedule_id).version)
    assert [record.getMessage() for record in caplog.records] == [
        f"Schedule 'noting' of 'noting' skips {start}, which is more than a minute late."
    ]
    assert fired(tmp_path) == []


@quietly
def test_a_subclass_executes_scheduled_runs(tmp_path: Path) -> None:
    place = str(tmp_path / "after")

    class Mine(LocalOrchestrator):
        def execute(self, *arguments: Any) -> Any:
            result = super().execute(*arguments)
            with Path(place).open("a") as file:
                file.write("x")
            return result

    local = Mine(store=tmp_path / "runs.db")
    noting(tmp_path).schedule("interval", 1, on=local)
    with served(local):
        wait_until(lambda: (tmp_path / "after").exists())


def test_a_server_in_a_process_of_its_own_leaves_its_runs_alone(local: LocalOrchestrator, tmp_path: Path) -> None:
    path = str(local.store.path)
    code = f"from flowyml.orchestrators.local.schedule_server import serve_schedules; serve_schedules({path!r})"
    server = subprocess.Popen([sys.executable, "-c", code])
    try:
        store = ScheduleStore(local.store)
        wait_until(store.is_served)
        gate = str(tmp_path / "gate")

        @step
        def waits() -> None:
            import time

            while not Path(gate).exists():
                time.sleep(0.1)

        Pipeline("waits").add_step(waits).schedule("interval", 1, on=local)
        wait_until(local.runs)
        local.pause_schedule("waits")  # a kill in the middle of a start would leave a run that never began
        wait_until(lambda: {run.status for run in local.runs()} == {ExecutionStatus.RUNNING})
    finally:
        server.kill()
        server.wait()
    assert not store.is_served()
    Path(gate).touch()
    wait_until(lambda: all(run.status is ExecutionStatus.COMPLETED for run in local.runs()))


NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def test_weekdays_count_from_sunday_and_either_day_will_do() -> None:
    """Both as in cron; APScheduler's own trigger differs in both."""
    trigger = Trigger(Schedule(cron="0 9 13 * 1"), NOON)
    times: list[datetime] = []
    moment: datetime | None = None
    for _ in range(3):
        moment = trigger.get_next_fire_time(moment, NOON)
        assert moment is not None
        times.append(moment)
    assert [f"{time:%a %d}" for time in times] == ["Mon 09", "Fri 13", "Mon 16"]


def test_a_schedule_ends() -> None:
    trigger = Trigger(Schedule(interval_seconds=60, end=NOON), NOON - timedelta(seconds=90))
    first = trigger.get_next_fire_time(None, NOON - timedelta(seconds=90))
    assert first == NOON - timedelta(seconds=60)
    assert trigger.get_next_fire_time(NOON, NOON) is None


@quietly
def test_a_run_of_another_project_is_not_taken_for_one_of_the_schedule(
    local: LocalOrchestrator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1, minutes=30)
    schedule = Schedule.of("interval", 3600, start=start, catch_up=True)
    made = local.schedule_pipeline(noting(tmp_path), schedule)
    due = start.replace(microsecond=0)
    run_id = run_id_of(made.schedule_id, due)
    local.run_pipeline(noting(tmp_path), run_id)
    assert local.run_missed(made.schedule_id, due).run_id == run_id
    assert list(local.scheduled_runs("noting")) == [due]
    theirs = json.dumps(Origin("elsewhere", "train.py").to_dict())
    with local.store.session() as db:
        db.execute("UPDATE runs SET origin = ?", (theirs,))
    with pytest.raises(OwnershipError, match=f"run '{run_id}' already exists.* from elsewhere: train.py"):
        local.run_missed(made.schedule_id, due)
    assert local.scheduled_runs("noting") == {}
    with served(local):
        wait_until(lambda: "The schedule 'noting' has not run for" in caplog.text)


@quietly
def test_runs_of_a_schedule_are_found_behind_many_others(local: LocalOrchestrator, tmp_path: Path) -> None:
    due = datetime(2026, 3, 1, 6, tzinfo=UTC)
    for run_id in (run_id_of("noting", due), *(f"by-hand-{number}" for number in range(5)), "noting-20260301T06Z"):
        assert local.store.add(run_id, "noting", ["note"], {}, this_process(), detached=False)
    assert list(local.scheduled_runs("noting", limit=2)) == [due]


@quietly
def test_a_store_of_the_first_release_gets_the_new_columns_and_its_schedules_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in schema._TABLES.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {schema.FIRST}")
        db.execute(
            "INSERT INTO schedules (schedule_id, pipeline, bundle, orchestrator, schedule, seen) VALUES (?,?,?,?,?,?)",
            ("noting", "noting", "gone.pyz", b"", json.dumps(Schedule(cron="0 1 * * *").to_dict()), 0),
        )
    local = LocalOrchestrator(store=path)
    with pytest.warns(UserWarning, match="does not say which project it comes from"):
        local.schedule_pipeline(noting(tmp_path), Schedule(cron="0 2 * * *"))
    assert local.runs() == []
    (info,) = local.schedules()
    assert info.schedule.cron == "0 2 * * *"
