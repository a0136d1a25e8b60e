"""Old bundles go, and none that something may still need: at each deployment, and by `flowyml prune`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import ConfigurationError
from flowyml.core.pruning import Bounds, prune
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.beside import runtime
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.folder import Folder, open_folder
from flowyml_airflow.pruning import prunable
from flowyml_airflow.undeploying import remove_old_bundles


class Client:
    """All that is asked of Airflow: which DAGs are FlowyML's, and which runs have not ended."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy

    def dags(self, tag: str) -> list[dict[str, str]]:
        return [{"dag_id": "train"}, {"dag_id": "train__dev"}]

    def unfinished(self, dags: Sequence[str]) -> list[dict[str, str]]:
        assert list(dags) in (["train", "train__dev"], ["busy", "busy__dev"])
        return [{"dag_run_id": "r"}] if self.busy or dags[0] == "busy" else []


def bundle(number: int) -> str:
    return f"train-{number:08x}.pyz"


@pytest.mark.parametrize("scheme", ["", "local://"])
def test_bundles_that_nothing_needs_go(tmp_path: Path, scheme: str) -> None:
    bundles = tmp_path / "flowyml_bundles"
    bundles.mkdir()
    others = ["train-model-00000001.pyz", "train-1.pyz", ".airflowignore", "train-0000000g.pyz"]
    for name in [*map(bundle, range(6)), *others]:
        (bundles / name).write_bytes(b"")
    (tmp_path / "train.py").write_text(f'BUNDLE = "{bundle(5)}"')
    (tmp_path / "renamed.py").write_text(f'# a copy that somebody made\nBUNDLE = "{bundle(1)}"')
    (tmp_path / "notes.txt").write_text(bundle(2))
    folder = open_folder(f"{scheme}{tmp_path}")
    assert folder is not None

    def swept(**options: Any) -> Sequence[str]:
        return remove_old_bundles(folder, cast("Any", Client(**options)), "train", {bundle(5), bundle(4)})

    assert swept(busy=True) == ()
    assert list(swept()) == [bundle(0), bundle(2), bundle(3)]
    assert sorted(path.name for path in bundles.iterdir()) == sorted([*map(bundle, (1, 4, 5)), *others])
    assert swept() == []


def written(folder: Folder, name: str, answer: int) -> str:
    pipeline = Pipeline(name, context={"answer": answer}).add_step(step(name="one")(lambda answer: answer))
    made = pipeline.bundle()
    folder.write(f"flowyml_bundles/{made.filename}", made.data)
    return made.filename


def plan_of(folder: Folder, **bounds: float) -> dict[str, str]:
    found = prunable(folder, lambda: cast("Any", Client()), Bounds(older_than=bounds.get("older_than", 0.0)))
    return {item.name: item.kept for item in found}


@pytest.fixture(params=["", "local://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    (tmp_path / "flowyml_bundles").mkdir()
    opened = open_folder(f"{request.param}{tmp_path}")
    assert opened is not None
    return opened


def test_prune_takes_bundles_of_any_pipeline_that_no_file_names(folder: Folder, tmp_path: Path) -> None:
    gone, runs, named = (written(folder, *each) for each in (("train", 1), ("busy", 1), ("train", 2)))
    folder.write("train.py", f'BUNDLE = "{named}"'.encode())
    (tmp_path / "flowyml_bundles/train-01234567.pyz").write_bytes(b"theirs")
    (tmp_path / "flowyml_bundles/.airflowignore").write_bytes(b"*")
    assert plan_of(folder) == {
        gone: "", named: "a DAG file names it", runs: "a run of its pipeline is in progress",
        "train-01234567.pyz": "it is not a FlowyML bundle",
    }  # fmt: skip
    assert plan_of(folder, older_than=3600)[gone] == "used within 1 h"
    done = list(prune(list(prunable(folder, lambda: cast("Any", Client()), Bounds(older_than=0)))))
    assert [(each.item.name, each.freed > 100_000, each.problem) for each in done] == [(gone, True, "")]
    assert sorted(path.name for path in (tmp_path / "flowyml_bundles").iterdir()) == sorted(
        [".airflowignore", "train-01234567.pyz", runs, named]
    )


def test_a_dag_file_needs_the_bundle_of_its_facts_alone_until_somebody_edits_it(folder: Folder) -> None:
    """A text of the user's may name another bundle."""
    old = written(folder, "train", 1)
    one = step(name="one")(lambda: 1)
    dag = compile_dag(Pipeline("train", description=f"as {old} was").add_step(one).bundle())
    for path, data in dag.files.items():
        folder.write(path, data)
    folder.write(f"flowyml_bundles/{dag.bundle.filename}", dag.bundle.data)
    mine = (dag.bundle.filename, runtime().name)
    assert old in dag.text
    assert plan_of(folder) == {old: "", **dict.fromkeys(mine, "a DAG file names it")}
    folder.write("train.py", dag.text.replace("import sys", "import sys  # ours").encode())
    assert plan_of(folder) == dict.fromkeys((old, *mine), "a DAG file names it")


def test_a_runtime_goes_when_no_dag_file_names_it_and_no_run_is_in_progress(folder: Folder) -> None:
    name = f"flowyml-0.9.0-{'0' * 32}.pyz"
    folder.write(f"flowyml_bundles/{name}", b"old")
    assert plan_of(folder, older_than=3600) == {name: "used within 1 h"}
    (kept,) = prunable(folder, lambda: cast("Any", Client(busy=True)), Bounds(older_than=0))
    assert (kept.kept, kept.remove()) == ("a run of a pipeline is in progress", 0)
    done = list(prune(list(prunable(folder, lambda: cast("Any", Client()), Bounds(older_than=0)))))
    assert [(each.item.kind, each.item.name, each.freed) for each in done] == [("runtime", name, 3)]
    assert folder.names("flowyml_bundles") == []


@pytest.mark.parametrize("when", ["before it is removed", "while it is removed"])
def test_a_deployment_that_takes_a_bundle_up_again_finds_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    name = written(folder, "train", 1)
    (item,) = prunable(folder, lambda: cast("Any", Client()), Bounds(older_than=0))
    remove: Callable[[str], None] = folder.remove_own

    def removed(path: str) -> None:
        remove(path)
        folder.write("train.py", f'BUNDLE = "{name}"'.encode())

    if when == "while it is removed":
        monkeypatch.setattr(folder, "remove_own", removed)
    else:
        folder.write("train.py", f'BUNDLE = "{name}"'.encode())
    assert item.remove() == 0
    assert folder.read(f"flowyml_bundles/{name}")


def test_a_link_in_the_dags_folder_leads_nowhere(tmp_path: Path) -> None:
    there = open_folder(tmp_path / "elsewhere")
    assert there is not None
    (tmp_path / "elsewhere").mkdir()
    name = written(there, "train", 1)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/flowyml_bundles").symlink_to(tmp_path / "elsewhere/flowyml_bundles")
    dags = open_folder(tmp_path / "dags")
    assert dags is not None
    done = list(prune(list(prunable(dags, lambda: cast("Any", Client()), Bounds(older_than=0)))))
    assert [each.freed for each in done] == [0]
    assert there.read(f"flowyml_bundles/{name}")


def test_what_a_killed_process_was_writing_goes_in_time(folder: Folder, tmp_path: Path) -> None:
    left = [
        f"{place}.new-{digit * 16}"
        for place, digit in (("", "0"), ("flowyml_bundles/", "a"), ("flowyml_bundles/", "b"))
    ]
    others = [
        ".new-mine.py", ".new-features", "flowyml_bundles/.new-features", "flowyml_bundles/.newer",
        f"reports/.new-{'0' * 16}",
    ]  # fmt: skip
    (tmp_path / "reports").mkdir()
    for name in (*left, *others):
        (tmp_path / name).write_bytes(b"half")
    assert plan_of(folder) == dict.fromkeys(left, "a process may be writing it")
    old = list(prunable(folder, lambda: cast("Any", Client()), Bounds(older_than=0, now=time.time() + 4000)))
    os.utime(tmp_path / left[0], (time.time() + 4000, time.time() + 4000))
    done = list(prune(old))
    assert {each.item.name: each.freed for each in done} == {left[0]: 0, left[1]: 4, left[2]: 4}
    assert not any((tmp_path / name).exists() for name in left[1:])
    assert all((tmp_path / name).exists() for name in (left[0], *others))


def test_pruning_needs_the_dags_folder() -> None:
    with pytest.raises(ConfigurationError, match="dags_folder"):
        list(AirflowOrchestrator("http://127.0.0.1:1").prunable(Bounds()))
