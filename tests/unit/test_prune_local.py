"""`flowyml prune` of local runs: what goes, what stays and why, and what goes on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import RetryRefusedError, RunNotFoundError
from flowyml.core.pruning import Bounds, prune
from flowyml.core.schedule import Schedule
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local.store import PRUNED
from flowyml.runtime.unpacking import unpack_bundle
from tests.unit.commands import flowyml
from tests.unit.local_runs import COMPLETED, FAILED, beating, finished, process_id
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("own_home")

OLD = 0.0
"""An age that everything has."""


@pytest.fixture
def usual(own_home: Path) -> LocalOrchestrator:
    return LocalOrchestrator(keep_outputs=True)


def large(name: str = "large", size: int = 100_000) -> Pipeline:
    @step(outputs=["rows"])
    def make() -> str:
        print("made")
        return "x" * size

    return Pipeline(name).add_step(make)


def fails(name: str = "fails") -> Pipeline:
    @step(outputs=["rows"])
    def load() -> str:
        return "x" * 100_000

    @step
    def broken(rows: str) -> None:
        raise ValueError("no luck")

    return Pipeline(name).add_step(load).add_step(broken)


def artifacts(home: Path) -> list[Path]:
    return sorted(path for path in (home / "artifacts").rglob("*") if path.is_file())


def plan_of(local: LocalOrchestrator, older_than: float = OLD) -> dict[tuple[str, str], str]:
    return {(item.kind, item.name): item.kept for item in local.prunable(Bounds(older_than=older_than))}


def test_an_old_run_goes_with_its_log_and_its_outputs(usual: LocalOrchestrator, own_home: Path) -> None:
    gone = large().run(on=usual, run_id="gone").run_id
    assert len(artifacts(own_home)) == 1
    assert plan_of(usual, 3600)["run", gone] == "used within 1 h"
    would = usual.prune(older_than=OLD, dry_run=True)
    assert usual.get_run(gone).status is COMPLETED
    assert artifacts(own_home)
    done = usual.prune(older_than=OLD)
    assert [(each.item.kind, each.item.name) for each in would] == [(each.item.kind, each.item.name) for each in done]
    (run,) = [each for each in done if each.item.kind == "run"]
    assert run.freed > 100_000
    with pytest.raises(RunNotFoundError):
        usual.get_run(gone)
    assert artifacts(own_home) == []
    assert list((own_home / "artifacts").iterdir()) == []
    with usual.store.session() as db:
        for table in ("runs", "steps", "lines", "jobs", "kept"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert large().run(on=usual, run_id="gone")["rows"] == "x" * 100_000


def test_a_failed_run_that_stays_can_be_run_again_and_one_that_goes_takes_its_bundle(
    usual: LocalOrchestrator, own_home: Path
) -> None:
    handle = fails().submit(on=usual, run_id="failed").wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is FAILED
    (bundle,) = (own_home / "bundles").glob("*.pyz")
    os.utime(bundle, (1, 1))
    usual.prune(older_than=3600)
    assert plan_of(usual, 3600)["bundle", bundle.name] == "run 'failed' can be retried"
    kept = list((own_home / "jobs").rglob("rows-*"))
    assert len(kept) == 1, "an output that its retry needs"
    handle.retry()
    assert finished(usual, "failed").status is FAILED
    wait_until(lambda: plan_of(usual)["run", "failed"] == "")
    usual.prune(older_than=OLD)
    assert not bundle.exists()
    assert [path for path in (own_home / "jobs").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("how", ["schedule", "deployment"])
def test_what_a_schedule_or_a_deployment_runs_stays(own_home: Path, how: str, tmp_path: Path) -> None:
    """Also those in a record of one's own, which shares the folder of bundles."""
    usual, other = LocalOrchestrator(), LocalOrchestrator(store=tmp_path / "other.db")
    for local, pipeline in ((usual, large("mine")), (other, large("theirs"))):
        if how == "deployment":
            local.deploy_pipeline(pipeline)
        else:
            with pytest.warns(UserWarning, match="nothing will fire"):
                local.schedule_pipeline(pipeline, Schedule.of("interval", 3600))
    deployed = sorted((own_home / "bundles").glob("*.pyz"))
    assert len(deployed) == 2
    for local in (usual, other):
        local.prune(older_than=OLD)
        reasons = {kept for (kind, _), kept in plan_of(local).items() if kind == "bundle"}
        expected = "schedule '{0}' runs it" if how == "schedule" else "it is the deployed version of '{0}'"
        assert reasons == {expected.format("mine"), expected.format("theirs")}
    assert sorted((own_home / "bundles").glob("*.pyz")) == deployed


def test_a_run_that_goes_on_in_another_process_needs_what_it_has(
    usual: LocalOrchestrator, own_home: Path, tmp_path: Path
) -> None:
    handle = beating(tmp_path).submit(on=usual, run_id="live")
    process_id(tmp_path)
    (bundle,) = (own_home / "bundles").glob("*.pyz")
    (code,) = (tmp_path / "cache/flowyml").iterdir()
    for path in (bundle, code):
        os.utime(path, (1, 1))
    plan = plan_of(usual)
    assert plan["run", "live"] == "it is in progress"
    assert plan["bundle", bundle.name] == "a run of its pipeline is in progress"
    assert plan["code", f"beating {code.name[:8]}"] == "a process is using it"
    usual.prune(older_than=OLD, max_bytes=0)
    assert bundle.exists()
    assert code.exists()
    assert (usual.store.folder_of("live") / "job.json").exists()
    handle.cancel()
    wait_until(lambda: plan_of(usual)["code", f"beating {code.name[:8]}"] == "")
    usual.prune(older_than=OLD)
    assert not bundle.exists()
    assert not code.exists()


@pytest.mark.processes
def test_a_run_that_starts_during_a_prune(usual: LocalOrchestrator, own_home: Path) -> None:
    """Its bundle was old when the plan was made, and so was a run that is run again meanwhile."""
    fails().submit(on=usual, run_id="again").wait_for_completion(timeout=2400, poll_interval=0.1)
    wait_until(lambda: plan_of(usual)["run", "again"] == "")
    for bundle in (own_home / "bundles").glob("*.pyz"):
        os.utime(bundle, (1, 1))
    planned = list(usual.prunable(Bounds(older_than=OLD)))
    assert {item.kind for item in planned if not item.kept} >= {"run", "bundle", "code"}
    usual.attach("again").retry()
    new = fails().submit(on=usual, run_id="new")
    done = {each.item.kind: each.freed for each in prune(planned)}
    assert (done["run"], done["bundle"]) == (0, 0)
    assert new.wait_for_completion(timeout=2400, poll_interval=0.1).error == "step 'broken': ValueError: no luck"
    assert finished(usual, "again").error == "step 'broken': ValueError: no luck"


@pytest.mark.processes
def test_a_run_that_is_half_removed_is_not_run_again_and_goes_next_time(usual: LocalOrchestrator) -> None:
    fails().submit(on=usual, run_id="half").wait_for_completion(timeout=2400, poll_interval=0.1)
    with usual.store.session() as db:
        db.execute("UPDATE runs SET raw_status = ?", (PRUNED,))
    with pytest.raises(RetryRefusedError, match="`flowyml prune` is removing the run"):
        usual.attach("half").retry()
    wait_until(lambda: plan_of(usual)["run", "half"] == "")
    usual.prune(older_than=OLD)
    assert usual.runs() == []


KILLED = """
import os, signal, sys
from flowyml.core import removal
from flowyml.orchestrators import LocalOrchestrator

left = int(sys.argv[1])
def dies(call):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counted

for name in ("unlink", "rename", "rmdir"):
    setattr(os, name, dies(getattr(os, name)))
LocalOrchestrator().prune(older_than=0)
print("all of it")
"""


@pytest.mark.slow
def test_a_prune_that_is_killed_in_the_middle_leaves_nothing_that_the_next_one_does_not_find(
    usual: LocalOrchestrator, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        large(f"large {number}").run(on=usual)
    fails().submit(on=usual, run_id="failed").wait_for_completion(timeout=2400, poll_interval=0.1)
    wait_until(lambda: plan_of(usual)["run", "failed"] == "")
    usual.deploy_pipeline(large("deployed"))
    for after in (0, 2, 6, 14):
        done = subprocess.run([sys.executable, "-c", KILLED, str(after)], capture_output=True, text=True, check=False)
        if done.stdout:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        for run in usual.runs():
            usual.step_runs(run.job_id)
            list(usual.logs(run.job_id))
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: now + 4000)
        usual.prune(older_than=OLD)
        usual.prune(older_than=OLD)  # what was half removed of runs that have gone since
    assert usual.runs() == []
    left = [path.name for path in own_home.rglob("*") if path.is_file() and not path.name.startswith("runs.db")]
    assert left == [path.name for path in (own_home / "bundles").glob("deployed-*.pyz")]


def test_two_prunes_at_once(usual: LocalOrchestrator, own_home: Path) -> None:
    for number in range(8):
        large(f"large {number}").run(on=usual)
    freed: list[int] = []

    def one() -> None:
        done = LocalOrchestrator().prune(older_than=OLD)
        assert [each.problem for each in done if each.problem] == []
        freed.append(sum(each.freed for each in done if each.item.kind == "run"))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(freed) == 2
    assert usual.runs() == []
    assert artifacts(own_home) == []


def test_what_a_run_left_that_the_record_does_not_know(
    usual: LocalOrchestrator, own_home: Path, tmp_path: Path
) -> None:
    """And nothing of another record in the same store."""
    other = LocalOrchestrator(store=tmp_path / "other.db", keep_outputs=True)
    large("theirs").run(on=other, run_id="theirs")
    large().run(on=usual, run_id="known")
    large().run(on=usual, run_id="lost")
    (usual.store.folder_of("lost") / "values").mkdir(parents=True)
    with usual.store.session() as db:
        db.execute("DELETE FROM runs WHERE run_id = 'lost'")
    assert len(artifacts(own_home)) == 3
    usual.prune(older_than=3600)
    assert len(artifacts(own_home)) == 3
    for path in artifacts(own_home):
        os.utime(path, (1, 1))
    os.utime(usual.store.folder_of("lost"), (1, 1))
    usual.prune(older_than=3600)
    assert len(artifacts(own_home)) == 2
    assert not usual.store.folder_of("lost").exists()
    assert usual.outputs("known")["rows"] == other.outputs("theirs")["rows"] == "x" * 100_000


def test_the_outputs_of_a_machine_of_the_same_name_stay(
    usual: LocalOrchestrator, own_home: Path, tmp_path: Path
) -> None:
    """As of a container: its record has the same path, and the artifact store is shared."""
    large().run(on=usual, run_id="theirs")
    there = usual.store.path.rename(tmp_path / "there.db")
    here = LocalOrchestrator(keep_outputs=True)
    large().run(on=here, run_id="ours")
    assert len(artifacts(own_home)) == 2
    here.prune(older_than=OLD)
    assert len(artifacts(own_home)) == 1
    there.rename(here.store.path)
    assert LocalOrchestrator().outputs("theirs")["rows"] == "x" * 100_000


HALF_WRITTEN = """
import os, signal, sys
from pathlib import Path
from flowyml.artifacts import open_store
from flowyml.core.files import whole_file

def half(file):
    file.write(b"x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2:]:
    open_store(sys.argv[1]).write(sys.argv[2], half)
with whole_file(Path(sys.argv[1], "whole")) as file:
    half(file)
"""


def killed(*arguments: object) -> None:
    done = subprocess.run([sys.executable, "-c", HALF_WRITTEN, *map(str, arguments)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_process_was_writing_goes_in_time(usual: LocalOrchestrator, own_home: Path) -> None:
    """Never what may be under way, and never what only looks like it."""
    for run_id in ("known", "lost"):
        large().run(on=usual, run_id=run_id)
    (at,) = own_home.glob("artifacts/*/large/lost/make")
    keys = [path.relative_to(own_home / "artifacts").as_posix() for path in (at, at.parents[1] / "known/make")]
    for key in keys:
        killed(own_home / "artifacts", f"{key}/1/rows-{{content}}.bin")
    (own_home / "bundles").mkdir()
    killed(own_home / "bundles")
    with usual.store.session() as db:
        db.execute("DELETE FROM runs WHERE run_id = 'lost'")
    (own_home / "bundles/.new-mine.txt").write_text("mine")
    lost, known, bundle = (
        next(folder.glob(".new-*[0-9a-f]"))
        for folder in (at / "1", at.parents[1] / "known/make/1", own_home / "bundles")
    )
    plan = plan_of(usual)
    assert plan["unfinished", bundle.name] == "a process may be writing it"
    assert plan_of(usual, 3600)["artifact", str(lost.relative_to(own_home / "artifacts"))] == "used within 1 h"
    for path in (lost, known, bundle, own_home / "bundles/.new-mine.txt"):
        os.utime(path, (1, 1))
    usual.prune(older_than=3600)
    assert not lost.exists()
    assert not bundle.exists()
    assert known.exists(), "its run may be under way"
    assert (own_home / "bundles/.new-mine.txt").exists()
    usual.prune(older_than=OLD)
    usual.prune(older_than=OLD)
    assert artifacts(own_home) == []


def test_outputs_in_a_store_that_fsspec_reaches(usual: LocalOrchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("FLOWYML_ARTIFACTS", "memory://prune-here/below")
    files = fsspec.filesystem("memory")
    files.pipe("/prune-here/others.bin", b"theirs")
    files.pipe("/prune-here/below/their/own/data/of/1/rows-0123456789abcdef.bin", b"theirs")
    large().run(on=usual, run_id="far")
    large().run(on=usual, run_id="lost")
    with usual.store.session() as db:
        db.execute("DELETE FROM runs WHERE run_id = 'lost'")
    assert len(files.find("/prune-here")) == 4
    usual.prune(older_than=OLD)
    assert sorted(files.find("/prune-here")) == [
        "/prune-here/below/their/own/data/of/1/rows-0123456789abcdef.bin", "/prune-here/others.bin",
    ]  # fmt: skip


def test_unpacked_code_beyond_the_size_goes_the_oldest_first(usual: LocalOrchestrator, tmp_path: Path) -> None:
    code = """
import sys
from flowyml.runtime.unpacking import unpack_bundle
unpack_bundle(sys.argv[1])
"""
    for number in range(3):
        bundle = large(f"large {number}").bundle().write(tmp_path)
        subprocess.run([sys.executable, "-c", code, str(bundle)], check=True)
    shown = flowyml("prune", "--dry-run", "--max-size", "0B")
    assert "large 0" in shown.out
    assert "code: shared by all of this user's FlowyML homes" in shown.err
    folders = sorted((tmp_path / "cache/flowyml").iterdir(), key=lambda path: path.stat().st_mtime)
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in folders]
    usual.prune(older_than=3600, max_bytes=sum(sizes[1:]))
    assert [folder.exists() for folder in folders] == [False, True, True]


def test_unpacked_code_is_unpacked_again_by_a_process_that_held_it(tmp_path: Path) -> None:
    bundle = large().bundle().write(tmp_path)
    folder = unpack_bundle(bundle)
    import shutil

    shutil.rmtree(folder)
    assert unpack_bundle(bundle) == folder
    found = [item for item in LocalOrchestrator().prunable(Bounds(older_than=OLD)) if item.kind == "code"]
    (held,) = [item.kept for item in found if item.name.endswith(folder.name[:8])]  # others have code there too
    assert held == "a process is using it"


def test_the_record_gives_room_back(usual: LocalOrchestrator) -> None:
    @step
    def talks() -> None:
        for _ in range(40):
            print("x" * 100_000)

    Pipeline("talks").add_step(talks).run(on=usual)
    with usual.store.session() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = usual.store.path.stat().st_size
    assert before > 4_000_000
    usual.prune(older_than=OLD)
    assert usual.store.path.stat().st_size < 1_000_000


# The command.


@pytest.fixture
def long_ago(usual: LocalOrchestrator) -> Iterator[None]:
    large().run(on=usual, run_id="long-ago")
    large().run(on=usual, run_id="today")
    with usual.store.session() as db:
        db.execute("UPDATE runs SET ended = ended - 31 * 86400 WHERE run_id = 'long-ago'")
    for path in artifacts(Path(os.environ["FLOWYML_HOME"])):
        os.utime(path, (time.time() - 31 * 86400,) * 2)
    yield
    with suppress(OSError):
        os.chdir("/")


@pytest.mark.usefixtures("long_ago")
def test_the_command_shows_then_removes_what_is_older_than_30_days() -> None:
    shown = flowyml("prune", "--dry-run")
    assert shown.code == 0
    assert "long-ago" in shown.out
    assert "today" not in shown.out
    assert "would free 1" in shown.err
    assert "kept: 1 × run: used within 30 d" in shown.err
    done = flowyml("prune", "--json")
    document: dict[str, Any] = json.loads(done.out)
    assert set(document) == {"dry_run", "freed", "items"}
    by_name = {item["name"]: item for item in document["items"]}
    assert set(by_name["today"]) == {"kind", "name", "size", "used_at", "kept", "freed", "problem"}
    assert by_name["today"]["kept"] == "used within 30 d"
    assert by_name["long-ago"]["freed"] > 100_000
    assert document["freed"] >= by_name["long-ago"]["freed"]
    assert [run["run_id"] for run in flowyml("runs", "--json").json] == ["today"]
    nothing = flowyml("prune")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err.endswith("freed 0 B\n")


@pytest.mark.parametrize(("option", "value"), [("--older-than", "30"), ("--older-than", "-1d"), ("--max-size", "many")])
def test_ages_and_sizes_have_units(option: str, value: str) -> None:
    done = flowyml("prune", option, value)
    assert done.code == 2
    assert f"{value!r} is not a " in done.err or "No such option" in done.err
