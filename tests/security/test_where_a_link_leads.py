"""A link that another user planted leads nowhere: every file is created, under a name that cannot be guessed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from flowyml.artifacts.store import LocalStore, passing_file
from flowyml.cli import main
from flowyml.core.errors import ArtifactError
from flowyml.core.files import unfinished_name, whole_file, write_whole
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step

PIPELINE = """
from flowyml import Pipeline, step
written = Pipeline("written").add_step(step(name="one")(lambda: 1))
"""
WRITES = os.O_WRONLY | os.O_RDWR
_opened: list[tuple[str, int]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes) and isinstance(arguments[2], int):
        _opened.append((os.fsdecode(arguments[0]), arguments[2]))


sys.addaudithook(_watch)  # for as long as this process lives; there is no way to remove one


def made_by_command(*words: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder.parent / "written.py").write_text(PIPELINE)
        path = folder / words[-1]
        assert main([words[0], str(folder.parent / "written.py"), *words[1:-1], "-o", str(path), "--force"]) == 0
        return path

    return write


def bundle(folder: Path) -> Path:
    return build(Plan(name="written", steps=())).write(folder)


def artifact(folder: Path) -> Path:
    def produce(file: BinaryIO) -> None:
        file.write(b"x")

    return Path(LocalStore(folder).write("model.bin", produce).url.removeprefix("file://"))


def dag(folder: Path) -> Path:
    from flowyml_airflow.folder import open_folder

    open_folder(str(folder)).write("flowyml.py", b"x")
    return folder / "flowyml.py"


def flow(folder: Path) -> Path:
    from flowyml_prefect.server import write_privately

    write_privately(folder / "server.json", "{}")
    return folder / "server.json"


def run_folder(folder: Path) -> Path:
    from flowyml_kubeflow.local.folder import RunFolder

    RunFolder(folder).write("run.json", {})
    return folder / "run.json"


WRITERS = {
    "compile to Airflow": made_by_command("compile", "--to", "airflow", "dag.py"),
    "compile to Prefect": made_by_command("compile", "--to", "prefect", "flow.py"),
    "compile to Kubeflow": made_by_command("compile", "--to", "kubeflow", "flow.yaml"),
    "compile to a plan": made_by_command("compile", "--to", "plan", "plan.json"),
    "graph": made_by_command("graph", "-f", "svg", "graph.svg"),
    **{function.__name__: function for function in (bundle, artifact, dag, flow, run_folder)},
}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    return WRITERS[request.param]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which others may write too."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = tmp_path / "shared"
    made.mkdir(mode=0o777)
    yield made
    sys.modules.pop("written", None)


def test_each_file_is_created_and_none_is_opened_that_was_there(
    writer: Callable[[Path], Path], folder: Path, tmp_path: Path
) -> None:
    path = writer(folder)
    mode = path.stat().st_mode
    path.unlink()
    path.symlink_to(tmp_path / "victim")  # it leads nowhere, so that a file there is one that was written through it
    _opened.clear()
    assert writer(folder) == path
    assert not path.is_symlink()
    assert not (tmp_path / "victim").exists()
    assert path.stat().st_mode == mode
    written = [(Path(name), flags) for name, flags in _opened if _is_in(folder, name) and flags & WRITES]
    assert written
    assert [name for name, flags in written if not flags & os.O_EXCL] == []
    assert [name for name, _ in written if not re.fullmatch(r"\.new-[0-9a-f]{16}", name.name)] == []
    assert list(folder.rglob(".new*")) == []


def test_names_of_unfinished_files_cannot_be_guessed() -> None:
    """All 64 bits vary, as in no clock, counter or process id."""
    names = [unfinished_name().removeprefix(".new-") for _ in range(1000)]
    assert len(set(names)) == 1000
    assert [len(set(digits)) for digits in zip(*names, strict=True)] == [16] * 16


def test_the_answer_of_a_step_goes_through_no_link(tmp_path: Path) -> None:
    plan = Plan(name="answering", steps=(Step(name="one", function="builtins:dict", outputs=("x",)),))
    words = [sys.executable, str(build(plan).write(tmp_path)), "step", "one"]
    for name in ("answer", "answer.part"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    subprocess.run([*words, f"--answer={tmp_path / 'answer'}"], check=True)
    assert json.loads((tmp_path / "answer").read_text()) == {"outputs": {"x": {}}}
    assert not (tmp_path / "victim").exists()


def _is_in(folder: Path, name: str) -> bool:
    """By its path, or by a name within a folder that was opened before."""
    return name.startswith((str(folder), ".new-"))


@pytest.mark.parametrize("depth", range(3))
def test_a_folder_of_a_store_that_is_a_link_is_neither_written_listed_nor_cleared(tmp_path: Path, depth: int) -> None:
    """Others may write to the store, and lead it to a folder of its user's."""
    private = tmp_path / "private"
    names = ["cache", "train", "load", "a" * 64]
    key, below = "/".join(names), "/".join(names[depth + 1 :])
    (private / below).mkdir(parents=True)
    (private / below / "entry.json").write_text("mine")
    store = LocalStore(tmp_path / "store")
    link = store.root.joinpath(*names[: depth + 1])
    link.parent.mkdir(parents=True)
    link.symlink_to(private)
    source = LocalStore(tmp_path / "other")
    written = source.write("run/entry.json", lambda file: file.write(b"theirs"))
    with pytest.raises(ArtifactError):
        store.write(f"{key}/entry.json", lambda file: file.write(b"theirs"))
    with pytest.raises(ArtifactError):
        store.take(source, written, f"{key}/other.json")
    assert list(store.folders("cache", 3)) == []
    with suppress(ArtifactError):
        store.remove(key)
    assert [path.name for path in private.rglob("*") if path.is_file()] == ["entry.json"]
    assert (private / below / "entry.json").read_text() == "mine"


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"old")
    with suppress(ZeroDivisionError), whole_file(tmp_path / "kept") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("kept", b"old")]


def test_names_in_the_folder_for_temporary_files_cannot_be_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with passing_file() as (one, _), passing_file() as (other, file):
        assert one.parent == other.parent == tmp_path
        assert one != other
        assert other.stat().st_mode & 0o777 == 0o600
        file.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_rights_follow_the_umask_and_data_of_flowyml_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "home" / "private", b"")
        write_whole(tmp_path / "shared", b"")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("home/private", "shared")] == [0o600, 0o640]
