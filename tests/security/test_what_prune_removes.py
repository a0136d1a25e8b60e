"""Who prunes removes what is FlowyML's own, whatever stands in its folders: no link leads out, no name, no record."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.artifacts import open_store
from flowyml.artifacts.housekeeping import discard, stored
from flowyml.core import removal
from flowyml.core.pruning import Bounds, prune, unfinished
from flowyml.orchestrators import LocalOrchestrator

HOSTILE = [
    "..", "...", "-rf", "~", "$(touch hit)", "`touch hit`", "*", "a\nb", "\x1b[2J", ".new-0123", "evil.pyz",
    "train-0123abcd.pyz", "A" * 200, "ü", "train-0123abcd.pyz\n",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home"


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    path = tmp_path / "treasure"
    path.mkdir(mode=0o700)
    for name in ("one.bin", "rows-0123456789abcdef.bin", "train-0123abcd.pyz"):
        (path / name).write_bytes(b"mine")
        os.utime(path / name, (1, 1))
    os.utime(path, (1, 1))
    return path


def is_whole(treasure: Path) -> bool:
    return len(list(treasure.iterdir())) == 3


def large() -> Pipeline:
    @step(outputs=["rows"])
    def make() -> str:
        return "x" * 100_000

    return Pipeline("train").add_step(make)


def pruned(local: LocalOrchestrator) -> None:
    assert [each.problem for each in local.prune(older_than=0, max_bytes=0) if each.problem] == []


def test_a_link_in_place_of_a_folder_leads_nowhere(own_home: Path, tmp_path: Path, treasure: Path) -> None:
    local = LocalOrchestrator(keep_outputs=True)
    large().run(on=local, run_id="r")
    (place,) = (own_home / "artifacts").glob("*/train/r/make/1")
    (artifact,) = place.iterdir()
    (treasure / artifact.name).write_bytes(b"mine")
    os.utime(treasure / artifact.name, (1, 1))
    artifact.unlink()
    place.rmdir()
    place.symlink_to(treasure)
    folder = local.store.folder_of("r")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(treasure)
    (folder.parent / "lost").symlink_to(treasure)
    cache = tmp_path / "cache/flowyml"
    cache.mkdir(parents=True, mode=0o700)
    (cache / ("0" * 64)).symlink_to(treasure)
    (own_home / "bundles").mkdir()
    (own_home / "bundles/train-0123abcd.pyz").symlink_to(treasure / "train-0123abcd.pyz")
    pruned(local)
    assert local.runs() == []
    assert sorted(path.name for path in treasure.iterdir()) == sorted(
        ["one.bin", "rows-0123456789abcdef.bin", "train-0123abcd.pyz", artifact.name]
    )


def test_links_within_a_folder_of_ours_go_and_what_they_lead_to_stays(tmp_path: Path, treasure: Path) -> None:
    ours = tmp_path / "root/ours"
    (ours / "deep").mkdir(parents=True)
    (ours / "deep/out").symlink_to(treasure)
    (ours / "file").symlink_to(treasure / "one.bin")
    (ours / "up").symlink_to("..")
    removal.remove(tmp_path / "root", "ours")
    assert not ours.exists()
    assert is_whole(treasure)


def test_a_folder_that_becomes_a_link_while_it_is_removed(
    tmp_path: Path, treasure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a name and its opening, an attacker has put a link there."""
    ours = tmp_path / "root/ours/inner"
    ours.mkdir(parents=True)
    opened = os.open

    def exchanged(path: str, flags: int, *arguments: int, dir_fd: int | None = None) -> int:
        if path == "inner":
            os.rmdir("inner", dir_fd=dir_fd)
            os.symlink(treasure, "inner", dir_fd=dir_fd)
        return opened(path, flags, *arguments, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", exchanged)
    assert removal.remove(tmp_path / "root", "ours") == 0
    assert is_whole(treasure)


def test_what_belongs_to_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "root/shared"
    folder.mkdir(parents=True)
    (folder / "theirs").write_bytes(b"theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert removal.remove(tmp_path / "root", "shared") == 0
    assert removal.remove(tmp_path / "root", "shared", "theirs") == 0
    assert list(removal.files_below(tmp_path / "root", "shared")) == []
    assert (folder / "theirs").read_bytes() == b"theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_of_another_user_in_a_folder_of_ours_stay(tmp_path: Path) -> None:
    folder = tmp_path / "root/ours"
    folder.mkdir(parents=True)
    for name in ("mine", "theirs"):
        (folder / name).write_bytes(b"x")
    os.chown(folder / "theirs", 65534, 65534)
    assert removal.remove(tmp_path / "root", "ours") == 1
    assert [path.name for path in (tmp_path / "root").rglob("*") if path.is_file()] == ["theirs"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_are_none_of_ours_stay(own_home: Path, tmp_path: Path, name: str) -> None:
    local = LocalOrchestrator()
    large().run(on=local)
    places = [own_home / "bundles", own_home / "artifacts/mine", tmp_path / "cache/flowyml"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if name != "..":
            (place / name).write_bytes(b"mine")
            os.utime(place / name, (1, 1))
    pruned(local)
    assert all((place / name).exists() for place in places)
    assert not list(tmp_path.rglob("hit"))


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    for name in ("", ".", "..", "a/../../outside", "/"):
        assert (removal.remove(root, name), removal.remove(root, name, "outside")) == (0, 0)
    assert (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "url",
    ["../../treasure/rows-0123456789abcdef.bin", "local/train/other/make/1/rows-0123456789abcdef.bin", "x.bin", ""],
)
def test_a_record_that_names_other_files(own_home: Path, treasure: Path, url: str) -> None:
    """What a run wrote is below its own place; whatever else its record says is left alone."""
    local = LocalOrchestrator()
    large().run(on=local, run_id="r")
    there = own_home / "artifacts" / url
    if url and ".." not in url:
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(b"mine")
        os.utime(there, (1, 1))
    for store in (None, str(treasure), str(treasure.parent)):
        entry = {"artifact": {"$artifact": {"url": f"file://{own_home}/artifacts/{url}", "size": 4}}, "store": store}
        with local.store.session() as db:
            db.execute("UPDATE runs SET outputs = ?", (json.dumps({"rows": entry}),))
        if store is not None:
            large().run(on=local, run_id="r")
        pruned(local)
    assert is_whole(treasure)
    assert not url or ".." in url or there.exists()


@pytest.mark.parametrize("key", ["../treasure/one.bin", "a/b/c/d/1/../../../../../../treasure/one.bin", "one.bin", ""])
@pytest.mark.parametrize("place", ["treasure", "memory://prune-attacked/root"])
def test_a_key_leads_to_no_other_file_of_a_store(treasure: Path, key: str, place: str) -> None:
    store = open_store(str(treasure) if place == "treasure" else place)
    assert discard(store, key, unless_since=time.time() + 1000) == 0
    assert is_whole(treasure)


def test_a_server_that_lists_files_of_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory://prune-lies/root")
    about = {"size": 1, "LastModified": "2020-01-01T00:00:00+00:00", "type": "file"}
    found = {f"/prune-lies/{path}": about for path in ("root/ours/a", "elsewhere/b", "root/oursnot/c", "../up")}
    monkeypatch.setattr(type(store.filesystem), "find", lambda *given, **options: found)  # type: ignore[attr-defined]  # of a remote store
    assert [each.key for each in stored(store, "ours")] == ["ours/a"]


def test_of_what_is_not_whole_only_what_flowyml_writes_goes(tmp_path: Path) -> None:
    """And only where no process has gone on with it since the plan was made."""
    left, goes_on, own = (tmp_path / f".new-{name}" for name in ("0123456789abcdef", "abcdefgh", "features"))
    for file in (left, goes_on / "deep/file", own):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")
    for path in (left, goes_on / "deep/file", goes_on / "deep", goes_on, own):
        os.utime(path, (1, 1))
    found = list(unfinished(tmp_path, Bounds(older_than=0)))
    assert {item.name: item.kept for item in found} == {left.name: "", goes_on.name: ""}
    (goes_on / "deep/file").write_bytes(b"more")
    assert [each.freed for each in prune(found)] == [4, 0]
    assert (goes_on / "deep/file").read_bytes() == b"more"
    assert own.exists()
