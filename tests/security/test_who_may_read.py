"""What another user of the machine can read of FlowyML's data: nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.core import home as home_module
from flowyml.core.errors import ConfigurationError
from flowyml.core.home import data_folder, home, open_private, private_file, private_folder
from flowyml.orchestrators.bundled import BundledPipeline
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan
from flowyml.runtime.unpacking import unpack_bundle

NOBODY = 65534
PIPELINE = """
import numpy
from flowyml import Pipeline, context, step
from flowyml.core.process_identity import ProcessIdentity, await_ends
from flowyml.orchestrators import LocalOrchestrator

@step(outputs=["words"])
def say(secret: str):
    print("printed", secret)
    return [secret] * 3

@step(outputs=["large"])
def large(words):
    return numpy.zeros(100_000)

read = Pipeline("read", context=context(secret="planted-value")).add_step(say).add_step(large)

if __name__ == "__main__":
    local = LocalOrchestrator(workers="processes", keep_outputs=True)
    assert read.run(on=local, run_id="here").success
    handle = read.submit(on=local, run_id="submitted").wait_for_completion(2400, progress=False)
    assert handle.status.is_successful, handle.error
    row = local.store.get("submitted")
    assert await_ends([ProcessIdentity(row.host, row.pid, row.born)], 240)  # it clears its folder after the end
    read.deploy(on=local)
    import warnings
    warnings.simplefilter("ignore")
    read.schedule("daily", 3, on=local)
"""
READ = """
import os, sys
os.setgid({user}); os.setuid({user})
opened = []
for root in sys.argv[1:]:
    for folder, names, files in os.walk(root):
        opened += [os.path.join(folder, name) for name in files if os.access(os.path.join(folder, name), os.R_OK)]
    if os.access(root, os.R_OK) or os.access(root, os.X_OK):
        opened.append(root)
print("\\n".join(opened))
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter: pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory(prefix="flowyml-readable-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def read_by_another_user(*roots: Path) -> list[str]:
    code = READ.format(user=NOBODY)
    command = [sys.executable, "-I", "-c", code, *map(str, roots)]
    if not os.access(sys.executable, os.X_OK):  # pragma: no cover - an interpreter in another user's home
        pytest.skip("no interpreter for another user")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def loose(root: Path) -> list[str]:
    found = [path for path in (root, *root.rglob("*")) if not path.is_symlink()]
    return [f"{path} {stat.S_IMODE(path.stat().st_mode):o}" for path in found if path.stat().st_mode & 0o077]


@as_root
def test_another_user_reads_nothing_of_local_runs(place: Path) -> None:
    data = place / "data"
    (place / "read.py").write_text(PIPELINE)
    environment = {**os.environ, "FLOWYML_HOME": str(data), "XDG_CACHE_HOME": str(place / "cache")}
    done = subprocess.run(
        [sys.executable, "read.py"], cwd=place, env=environment, umask=0, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert loose(data) == []
    names = {path.relative_to(data).parts[0] for path in data.rglob("*")}
    assert {"runs.db", "bundles", "artifacts", "jobs"} <= names
    assert stat.S_IMODE((place / "cache" / "flowyml").stat().st_mode) == 0o700
    assert read_by_another_user(data, place / "cache" / "flowyml") == []

    # What was opened to others is closed when it is used.
    (place / "elsewhere.txt").write_text("mine")
    (place / "elsewhere.txt").chmod(0o644)
    (data / "artifacts" / "link").symlink_to(place / "elsewhere.txt")
    for path in (data, *data.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o666)
    assert read_by_another_user(data) != []
    subprocess.run([sys.executable, "-m", "flowyml", "runs"], env=environment, check=True, capture_output=True)
    assert loose(data) == []
    assert read_by_another_user(data) == []
    assert stat.S_IMODE((place / "elsewhere.txt").stat().st_mode) == 0o644


def test_a_folder_that_is_not_flowymls_alone_stays_open_and_its_own_part_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundles").mkdir()
    for name in ("README.md", "runs.db", "runs.db-wal", "bundles/a.pyz"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644)
    for name in ("airflow", "cutovers", "prefect"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bundles").chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path))
    home_module._close_to_others.cache_clear()
    assert home() == tmp_path
    assert sorted(line.removeprefix(f"{tmp_path}") for line in loose(tmp_path)) == [
        " 755", "/README.md 644", "/airflow 755",
    ]  # fmt: skip


def test_whatever_the_umask_what_is_made_is_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "data"))
    before = os.umask(0)
    try:
        folder = private_folder(tmp_path / "data" / "one" / "two")
        private_file(folder / "empty")
        with open_private(folder / "text", "w") as file:
            file.write("ä")
        assert data_folder(tmp_path / "data" / "three").is_dir()
        assert data_folder(tmp_path / "mine").stat().st_mode & 0o777 == 0o777
        (folder / "old").write_text("")
        assert private_file(folder / "old").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert loose(tmp_path / "data") == []
    (folder / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="a dangling link"):
        private_file(folder / "link")
    assert not (tmp_path / "nowhere").exists()


def test_a_changed_file_among_unpacked_bundles_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = build(Plan(name="kept", steps=()), files={"mine.py": b"answer = 1\n"}).write(tmp_path / "bundles")
    folder = unpack_bundle(bundle)
    assert folder == unpack_bundle(bundle)
    (folder / "code" / "mine.py").write_bytes(b"answer = 2\n")
    (tmp_path / "flowyml").chmod(0o755)
    assert unpack_bundle(bundle) == folder
    assert (folder / "code" / "mine.py").read_bytes() == b"answer = 1\n"
    assert stat.S_IMODE((tmp_path / "flowyml").stat().st_mode) == 0o700


@as_root
@pytest.mark.parametrize("way", ["theirs", "open", "a link"])
def test_what_others_put_beside_the_code_while_the_cache_was_open_is_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """All files of the bundle are there, and one more, which would be imported in place of Python's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = build(Plan(name="kept", steps=()), files={"mine.py": b"answer = 1\n"}).write(tmp_path / "bundles")
    folder = unpack_bundle(bundle)
    (folder / "argparse.py").write_bytes(b"raise SystemExit('theirs')\n")
    if way == "theirs":
        os.chown(folder, NOBODY, NOBODY)
    elif way == "open":
        folder.chmod(0o777)
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "flowyml").chmod(0o777)
    assert not (unpack_bundle(bundle) / "argparse.py").exists()
    assert unpack_bundle(bundle) == folder
    assert (folder / "code" / "mine.py").read_bytes() == b"answer = 1\n"


def test_what_was_read_of_a_bundle_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan and its code come from the same bytes, whatever happens to the file meanwhile."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = build(Plan(name="kept", steps=()), files={"mine.py": b"answer = 1\n"}).write(tmp_path / "bundles")
    pipeline = BundledPipeline(path)
    path.write_bytes(build(Plan(name="kept", steps=()), files={"mine.py": b"answer = 2\n"}).data)
    assert (pipeline.folder / "code" / "mine.py").read_bytes() == b"answer = 1\n"
    assert (unpack_bundle(path) / "code" / "mine.py").read_bytes() == b"answer = 2\n"


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "emptied"])
def test_an_unpacked_bundle_is_compared_with_the_bundle_and_not_with_a_list_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = build(Plan(name="kept", steps=()), files={"mine.py": b"answer = 1\n"}).write(tmp_path / "bundles")
    folder = unpack_bundle(bundle)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink() if gone else path.write_bytes(b"")
    assert (unpack_bundle(bundle) / "code" / "mine.py").read_bytes() == b"answer = 1\n"


@as_root
def test_no_bundle_is_unpacked_into_another_users_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = build(Plan(name="kept", steps=()), files={"mine.py": b"answer = 1\n"}).write(place / "bundles")
    for name in ("theirs", "link"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place / name))
        (place / name).mkdir()
        theirs = place / name / "flowyml"
        if name == "link":
            theirs.symlink_to(place / "theirs" / "flowyml")
        else:
            theirs.mkdir()
            os.chown(theirs, NOBODY, NOBODY)
        folder = unpack_bundle(bundle)
        assert not folder.is_relative_to(place)
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0 or folder.parent.stat().st_mode & 0o077 == 0
        assert list((place / "theirs" / "flowyml").iterdir()) == []


@as_root
def test_data_is_never_kept_in_another_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns a folder can exchange what is in it, and what a run reads there is code."""
    place = tmp_path / "theirs"
    place.mkdir(mode=0o777)
    os.chown(place, NOBODY, NOBODY)
    monkeypatch.setenv("FLOWYML_HOME", str(place))
    with pytest.raises(ConfigurationError, match=r"theirs belongs to another user.* Set FLOWYML_HOME"):
        home()
    assert not list(place.iterdir())


def test_a_record_is_not_made_where_a_dangling_link_leads(tmp_path: Path) -> None:
    (tmp_path / "runs.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(OSError, match="a dangling link"):
        private_file(tmp_path / "runs.db")
    assert not (tmp_path / "elsewhere.db").exists()


@as_root
@pytest.mark.kubeflow
def test_a_run_of_kfps_local_runner_is_private_in_a_folder_that_is_not(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``FLOWYML_HOME`` may be a folder that holds other things, too, and stays open."""
    pytest.importorskip("kfp")
    from flowyml_kubeflow import KubeflowLocalOrchestrator

    monkeypatch.setenv("FLOWYML_HOME", str(place))
    (place / "notes.txt").write_text("anything")
    pipeline = Pipeline("private").add_step(step(name="say", outputs=["word"])(lambda: print("planted-line") or "word"))
    assert pipeline.run(on=KubeflowLocalOrchestrator()).success
    assert (place / "kubeflow" / "runs").is_dir()
    assert read_by_another_user(place / "kubeflow" / "runs") == []
