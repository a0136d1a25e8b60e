"""What a failed run leaves for its retry: for its owner alone, and no way around what forbids pickles."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowyml import pipeline, step
from flowyml.core.errors import ConfigurationError, RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.process_identity import ProcessIdentity
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local.store import connect
from tests.waiting import wait_until


@step
def load(size: int) -> str:
    return "x" * size


@step
def fails(folder: str, text: str) -> int:
    place = Path(folder) / "failed"
    if not place.exists():
        place.touch()
        raise ValueError("the first time")
    return len(text)


@pipeline
def failing(folder: str, size: int = 10) -> Any:
    return fails(folder, load(size))


class Evil:
    """Makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_a_planted_pickle_is_not_read_where_pickles_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    local = LocalOrchestrator(store=tmp_path / "runs.db")
    handle = local.attach(failing.run({"folder": str(tmp_path)}, on=local).run_id)
    planted = {"pickle": base64.b64encode(pickle.dumps(Evil(str(tmp_path / "owned")))).decode()}
    with local.store.session() as db:
        assert db.execute("UPDATE kept SET entry = ?", (json.dumps(planted),)).rowcount == 1
    handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is ExecutionStatus.FAILED
    assert "pickles are not read here" in str(handle.error)
    assert not (tmp_path / "owned").exists()


def test_what_is_kept_is_for_its_owner_and_goes_with_the_failure(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        local = LocalOrchestrator(store=tmp_path / "runs.db")
        handle = failing.submit({"folder": str(tmp_path), "size": 200_000}, on=local)
        assert handle.wait_for_completion(timeout=2400, poll_interval=0.1).status is ExecutionStatus.FAILED
    finally:
        os.umask(before)
    folder = local.store.folder_of(handle.run_id) / "kept"
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert len(kept) == 1
    assert not folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is ExecutionStatus.COMPLETED
    assert handle.outputs == {"fails": 200_000}
    wait_until(lambda: not kept[0].exists())  # its process clears the folder after the end


def test_a_planted_orchestrator_is_not_read_where_pickles_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    local = LocalOrchestrator(store=tmp_path / "runs.db")
    handle = local.attach(failing.run({"folder": str(tmp_path)}, on=local).run_id)
    with local.store.session() as db:
        (kept,) = db.execute("SELECT orchestrator FROM jobs").fetchone()
        assert json.loads(kept)["workers"] == "threads", "a usual one needs no pickle"
        db.execute("UPDATE jobs SET orchestrator = ?", (pickle.dumps(Evil(str(tmp_path / "owned"))),))
    with pytest.raises(RetryRefusedError, match="kept as a pickle, which is forbidden: FLOWYML_ALLOW_PICKLE=0"):
        handle.retry()
    assert not (tmp_path / "owned").exists()


def test_options_that_are_not_known_are_a_clear_error(tmp_path: Path) -> None:
    local = LocalOrchestrator(store=tmp_path / "runs.db")
    handle = local.attach(failing.run({"folder": str(tmp_path)}, on=local).run_id)
    with local.store.session() as db:
        db.execute("UPDATE jobs SET orchestrator = ?", (b'{"workers": "threads", "unknown": 1}',))
    handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is ExecutionStatus.FAILED
    assert "kept with this run are not those of this FlowyML" in str(handle.error)
    assert "unknown" in str(handle.error)


class Own(LocalOrchestrator):
    """A subclass reaches another process as a pickle."""


def test_a_subclass_is_not_pickled_where_that_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    own = Own(store=tmp_path / "runs.db")
    with pytest.raises(ConfigurationError, match="Own is a subclass of LocalOrchestrator"):
        failing.submit({"folder": str(tmp_path)}, on=own)
    handle = own.attach(failing.run({"folder": str(tmp_path)}, on=own).run_id)
    with pytest.raises(RetryRefusedError, match="Own is a subclass of LocalOrchestrator"):
        handle.retry()


@pytest.mark.parametrize("detached", [True, False])
def test_a_retry_runs_the_code_of_its_run(tmp_path: Path, detached: bool) -> None:
    @step
    def planted_step(size: int) -> str:
        return "y" * size

    @pipeline(name="failing")
    def other(folder: str, size: int = 10) -> Any:
        return fails(folder, planted_step(size))

    local = LocalOrchestrator(store=tmp_path / "runs.db")
    parameters = {"folder": str(tmp_path)}
    ran = failing.submit(parameters, on=local) if detached else failing.run(parameters, on=local)
    handle = local.attach(ran.run_id).wait_for_completion(timeout=2400, poll_interval=0.1)
    planted = other.bundle()
    (tmp_path / "planted.pyz").write_bytes(planted.data)
    with local.store.session() as db:
        (kept,) = db.execute("SELECT job FROM jobs").fetchone()
        job = {**json.loads(kept), "bundle": str(tmp_path / "planted.pyz")}
        db.execute("UPDATE jobs SET job = ?", (json.dumps(job),))
    with pytest.raises(RetryRefusedError, match="holds other code than it ran"):
        handle.retry()


def lost_run(folder: Path) -> LocalOrchestrator:
    """A record as a cloned folder could have it: of a run whose process is lost, so its folder is read and cleared."""
    local = LocalOrchestrator(store=folder / "runs.db")
    gone = ProcessIdentity("elsewhere", 1, "long ago")
    local.store.add("lost", "training", ["load"], {}, gone, detached=True)
    with local.store.session() as db:
        db.execute("UPDATE runs SET status = 'RUNNING', heartbeat = 0")
    return local


@pytest.mark.parametrize("link", ["jobs", "jobs/runs", "jobs/runs/lost"])
def test_a_record_that_was_cloned_clears_no_other_folder(tmp_path: Path, link: str) -> None:
    local, victim = lost_run(tmp_path / "clone"), tmp_path / "victim"
    inner = victim / Path("jobs/runs/lost").relative_to(link)
    inner.mkdir(parents=True)
    (inner / "file").write_text("of the user")
    (tmp_path / "clone" / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "clone" / link).symlink_to(victim)
    with pytest.raises(ConfigurationError, match="is reached by a link"):
        local.runs()
    assert (inner / "file").read_text() == "of the user"


def test_a_record_that_was_cloned_shows_no_other_file(tmp_path: Path) -> None:
    local, victim = lost_run(tmp_path / "clone"), tmp_path / "id_rsa"
    victim.write_text("of the user")
    (tmp_path / "clone/jobs/runs/lost").mkdir(parents=True)
    (tmp_path / "clone/jobs/runs/lost/output.log").symlink_to(victim)
    assert "of the user" not in str(local.runs()[0].error)
    assert victim.read_text() == "of the user"


KINDS = {
    "a database": ["CREATE TABLE notes (text)"],
    "one with versions": ["CREATE TABLE runs (text)", "PRAGMA user_version = 8"],
    "one of a later version": ["CREATE TABLE notes (text)", "PRAGMA user_version = 99"],
    "one with WAL": ["PRAGMA journal_mode = WAL", "CREATE TABLE notes (text)"],
}


@pytest.mark.parametrize("kind", ["a long text", "a short text", "an empty module", *KINDS])
def test_a_file_that_is_no_record_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    """The settings of a cloned folder may name any file as ``store``."""
    other = tmp_path / ("__init__.py" if kind == "an empty module" else "other")
    if kind in KINDS:
        with closing(sqlite3.connect(other, isolation_level=None)) as db:
            for statement in KINDS[kind]:
                db.execute(statement)
    else:
        other.write_text({"a long text": "<html>" + " " * 100, "a short text": "<html> "}.get(kind, ""))
    other.chmod(0o644)
    before = other.read_bytes()
    with pytest.raises(ConfigurationError, match=r"is a file of another program|is damaged or not a SQLite file"):
        LocalOrchestrator(store=other).runs()
    assert (other.read_bytes(), stat.S_IMODE(other.stat().st_mode)) == (before, 0o644)
    assert list(tmp_path.iterdir()) == [other]


def test_to_look_at_the_record_ends_no_lock_of_this_process_on_it(tmp_path: Path) -> None:
    """As opening and closing the file does (source: SQLite, howtocorrupt.html, 2.2)."""
    store = LocalOrchestrator(store=tmp_path / "runs.db").store
    write = f"import sqlite3; sqlite3.connect({str(store.path)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    with store.session() as db:
        db.execute("BEGIN IMMEDIATE")
        with closing(connect(store.path)):
            pass
        other = subprocess.run([sys.executable, "-c", write], capture_output=True, text=True, check=False)
        db.execute("ROLLBACK")
    assert "database is locked" in other.stderr
