"""`flowyml prune` of cached results: by when they were used last, and never under the hands of a run."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.artifacts import open_store
from flowyml.core.pruning import Bounds, Prunable
from flowyml.orchestrators import LocalOrchestrator
from flowyml.runtime.caching import entries_in

pytestmark = pytest.mark.usefixtures("own_home")


def cached(folder: Path, size: int = 100_000) -> Pipeline:
    @step(outputs=["rows"], cache=True)
    def make(ran: str) -> str:
        with open(ran, "a") as file:  # noqa: PTH123  # no import, which the key would see
            file.write("x")
        return "x" * size

    return Pipeline("caches", context={"ran": f"{folder}/ran"}).add_step(make)


def times_run(folder: Path) -> int:
    return (folder / "ran").stat().st_size


def results(local: LocalOrchestrator, older_than: float = 0, max_bytes: int = 10**9) -> list[Prunable]:
    bounds = Bounds(older_than=older_than, max_bytes=max_bytes)
    return [item for item in local.prunable(bounds) if item.kind == "cache"]


def entry(home: Path) -> Path:
    (found,) = (home / "artifacts/cache").glob("*/*/*")
    return found


def age(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (1, 1))


def test_what_is_used_stays_and_what_is_not_goes(own_home: Path, tmp_path: Path) -> None:
    local = LocalOrchestrator(keep_outputs=True)
    cached(tmp_path).run(on=local, run_id="first")
    age(entry(own_home))
    (item,) = results(local, 3600)
    assert (item.kept, item.name.startswith("caches, make, ")) == ("", True)
    cached(tmp_path).run(on=local, run_id="second")
    assert times_run(tmp_path) == 1
    (item,) = results(local, 3600)
    assert item.kept == "used within 1 h"
    age(entry(own_home))
    with (entry(own_home) / "turn").open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        assert [each.kept for each in results(local)] == ["a run is computing it"]
        assert item.remove() == 0
    local.prune(older_than=3600)
    assert results(local) == []
    assert local.outputs("second")["rows"] == "x" * 100_000, "a run that took it has it"
    cached(tmp_path).run(on=local, run_id="third")
    assert times_run(tmp_path) == 2


def test_one_that_is_used_after_the_plan_was_made_stays(own_home: Path, tmp_path: Path) -> None:
    local = LocalOrchestrator()
    cached(tmp_path).run(on=local)
    age(entry(own_home))
    (item,) = results(local, 3600)
    cached(tmp_path).run(on=local)
    assert item.remove() == 0
    assert entry(own_home).exists()


def test_runs_that_go_leave_the_cache_and_it_leaves_them(own_home: Path, tmp_path: Path) -> None:
    """Both names may be of one file."""
    local = LocalOrchestrator(keep_outputs=True)
    cached(tmp_path).run(on=local, run_id="first")
    with local.store.session() as db:
        db.execute("UPDATE runs SET ended = 1")
    local.prune(older_than=3600)
    assert local.runs() == []
    cached(tmp_path).run(on=local, run_id="second")
    assert times_run(tmp_path) == 1
    assert local.outputs("second")["rows"] == "x" * 100_000


def test_beyond_the_size_the_oldest_go(own_home: Path, tmp_path: Path) -> None:
    local = LocalOrchestrator()
    for size in (100_000, 100_001, 100_002):
        cached(tmp_path, size).run(on=local)
    assert [each.kept for each in results(local, 3600, 250_000)] == ["used within 1 h"] * 2 + [""]
    local.prune(older_than=3600, max_bytes=250_000)
    assert len(results(local)) == 2


def test_in_a_store_that_fsspec_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("FLOWYML_ARTIFACTS", "memory://prune-cache/top")
    files = fsspec.filesystem("memory")
    files.pipe("/prune-cache/top/cache/theirs/data/x", b"theirs")
    local = LocalOrchestrator()
    cached(tmp_path).run(on=local)
    assert [each.kept for each in results(local, 3600)] == ["used within 1 h"]
    local.prune(older_than=0)
    assert [folder for folder, _ in entries_in(open_store())] == ["cache/theirs/data/x"]
    assert files.find("/prune-cache/top/cache") == ["/prune-cache/top/cache/theirs/data/x"]


def test_one_that_was_made_anew_after_the_plan_stays_in_a_store_that_fsspec_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_ARTIFACTS", "memory://prune-cache/anew")
    local = LocalOrchestrator()
    cached(tmp_path).run(on=local)
    (item,) = results(local)
    cached(tmp_path).run(on=local, refresh=True)
    assert item.remove() == 0
    assert len(results(local)) == 1
    (item,) = results(local)
    assert item.remove() == item.bytes
    assert results(local) == []


def test_links_and_names_in_the_folder_of_results(own_home: Path, tmp_path: Path) -> None:
    treasure, cache = tmp_path / "treasure", own_home / "artifacts/cache/caches/make"
    treasure.mkdir()
    (treasure / "record.json").write_bytes(b"mine")
    age(treasure)
    cache.mkdir(parents=True)
    (cache / ("0" * 64)).symlink_to(treasure)
    (cache / ("1" * 64)).mkdir()
    (cache / ("1" * 64) / "out").symlink_to(treasure)
    (cache / "mine").mkdir()
    (cache / "mine" / "record.json").write_bytes(b"mine")
    age(cache / "mine")
    LocalOrchestrator().prune(older_than=0)
    assert sorted(path.name for path in cache.iterdir()) == ["0" * 64, "mine"]
    assert (treasure / "record.json").read_bytes() == b"mine"
