"""What goes wrong with the record of local runs, or beside it, for a moment, harms no more than it must."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flowyml import for_each, pipeline, step
from flowyml.core.errors import ConfigurationError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.locks import held
from flowyml.core.process_identity import ProcessIdentity, this_process
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import engine
from flowyml.orchestrators.local import store as store_module
from flowyml.orchestrators.local.recorder import Recorder
from flowyml.orchestrators.local.schedule_server import Server
from flowyml.orchestrators.local.schedules import ScheduleStore
from flowyml.orchestrators.local.store import RunStore
from flowyml.runtime.spawn import Child
from tests.waiting import wait_until


def test_a_record_that_is_locked_for_a_moment_ends_no_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looks = 0
    stop = threading.Event()

    class Locked(ScheduleStore):
        def record_heartbeat(self, server: str) -> None:
            nonlocal looks
            looks += 1
            if looks in (2, 3):
                raise sqlite3.OperationalError("database is locked")
            if looks == 5:
                stop.set()
            super().record_heartbeat(server)

    Server(Locked(RunStore(tmp_path / "runs.db")), stop).run(0.01)
    assert looks == 5
    assert caplog.text.count("The schedules could not be read (database is locked)") == 1


def test_a_server_whose_record_cannot_be_used_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("this is no database, and long enough to be seen as none")
    with pytest.raises(ConfigurationError, match="not a database"):
        Server(ScheduleStore(RunStore(tmp_path / "runs.db")), threading.Event()).run(0.01)


def test_a_record_that_cannot_be_opened_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, ticks = tmp_path / "home", threading.Event()
    folder.write_text("a file in its place")
    recorder = Recorder(RunStore(folder / "runs.db"), 1)
    with caplog.at_level(logging.ERROR):
        recorder.start(lambda db: ticks.set())
        wait_until(lambda: caplog.records)
        time.sleep(0.3)  # several more tries
        assert len(caplog.records) == 1
        assert "A local run could not be recorded in" in caplog.text
        folder.unlink()
        assert ticks.wait(2400)
    recorder.close()


def test_the_last_words_are_kept_by_the_one_that_records_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes look at a run whose process has crashed, and the second is faster."""
    store = RunStore(tmp_path / "runs.db")
    process = subprocess.Popen(["sleep", "60"])
    gone = ProcessIdentity(this_process().host, process.pid, psutil.Process(process.pid).create_time())
    process.kill()
    process.wait()
    assert store.add("r", "p", ["s"], {}, gone, detached=True)
    assert store.begin("r", gone)
    folder = store.folder_of("r")
    folder.mkdir(parents=True)
    (folder / "output.log").write_text("free(): invalid pointer\n")
    finish = store_module.finish

    def later(db: sqlite3.Connection, run_id: str, ending: store_module.Ending) -> bool:
        monkeypatch.setattr(store_module, "finish", finish)
        other = RunStore(store.path).get(run_id)
        assert str(other.error).endswith("Its last output: free(): invalid pointer")
        return finish(db, run_id, ending)

    monkeypatch.setattr(store_module, "finish", later)
    row = store.get("r")
    assert str(row.error).endswith("Its last output: free(): invalid pointer")
    assert [line.message for _, line in store.lines(row.number)] == ["free(): invalid pointer"]


def test_a_process_that_cannot_be_started_leaves_no_descriptor(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        Child("step 's'", ["/no/such/python"], {"answer": str(tmp_path / "answer")}, lambda *_: None, 0)
    assert psutil.Process().num_fds() == before


@pytest.mark.processes
def test_items_that_are_due_again_at_the_same_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a clock of whole seconds, so that they are."""
    clock = SimpleNamespace(monotonic=lambda: round(time.monotonic(), 0), time=time.time)
    tries: list[int] = []

    @step(retry=OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0.5))
    def flaky(number: int) -> int:
        tries.append(number)
        if tries.count(number) == 1:
            raise ValueError(number)
        return number

    @step
    def numbers() -> list[int]:
        return list(range(8))

    @pipeline
    def due_again() -> object:
        with for_each(numbers()) as number:
            return flaky(number)

    monkeypatch.setattr(engine, "time", clock)
    result = due_again.run(on=LocalOrchestrator(store=tmp_path / "runs.db"))
    assert result.success, result.error
    assert sorted(tries) == sorted([*range(8), *range(8)])


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs.db")


_FILLS_ITS_DISK = """
import resource
from flowyml import pipeline, step

@step
def talk(lines: int) -> int:
    for number in range(lines):
        print(f"{number:04} " + "x" * 1000)
    return lines

@pipeline
def talking(lines: int = 5000) -> int:
    return talk(lines)

resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
run = talking.run(run_id="talking")
assert run["talk"] == 5000
"""


def test_steps_of_a_run_whose_log_fills_the_disk_are_recorded(tmp_path: Path) -> None:
    """A limit for each file is to SQLite what a full disk is."""
    script = tmp_path / "talking.py"
    script.write_text(_FILLS_ITS_DISK)
    environment = {**os.environ, "FLOWYML_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    orchestrator = LocalOrchestrator(store=tmp_path / "home/runs.db")
    assert [run.status for run in orchestrator.step_runs("talking")] == [ExecutionStatus.COMPLETED]
    said = "lines of this run could not be saved"
    assert said in done.stderr
    assert said in list(orchestrator.logs("talking"))[-1].message


def test_a_record_that_cannot_be_written_is_not_taken_for_a_full_disk(store: RunStore) -> None:
    said = r"cannot be written by this user: .* Set FLOWYML_HOME to a folder"
    with pytest.raises(ConfigurationError, match=said), store.session() as db:
        db.executescript("PRAGMA query_only = 1; DELETE FROM runs")


def test_two_records_with_names_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    one, other = RunStore(tmp_path / "runs.db"), RunStore(tmp_path / "runs.sqlite")
    assert one.folder_of("a") != other.folder_of("a")


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none, as some network file systems."""

    def refuse(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path / "lock", wait=None) as mine, held(tmp_path / "lock", wait=None) as second:
        assert (mine, second) == (None, None)
