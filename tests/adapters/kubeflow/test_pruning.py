"""The folders of runs on KFP's local runner go when the runs ended long ago, and not before."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import RunNotFoundError, UnknownOptionError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.pruning import Bounds
from flowyml_kubeflow import KubeflowLocalOrchestrator
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.pruning import prunable
from tests.waiting import wait_until

pytestmark = pytest.mark.kubeflow


@step
def wait(folder: str) -> None:
    place = Path(folder)
    (place / "began").touch()
    while not (place / "go").exists():
        time.sleep(0.05)
    if (place / "fail").exists():
        raise ValueError("no luck")


def plan_of(orchestrator: KubeflowLocalOrchestrator, older_than: float = 0) -> dict[str, str]:
    return {item.name: item.kept for item in orchestrator.prunable(Bounds(older_than=older_than))}


def test_a_run_stays_while_it_is_under_way_and_goes_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))  # without the cached results of other tests
    orchestrator = KubeflowLocalOrchestrator(folder=tmp_path / "runs")
    (tmp_path / "fail").touch()
    handle = orchestrator.run_pipeline(Pipeline("prune", context=context(folder=str(tmp_path))).add_step(wait), "r")
    wait_until(lambda: (tmp_path / "began").exists() or handle.status.is_terminal)
    assert not handle.status.is_terminal, handle.error
    assert plan_of(orchestrator) == {"r": "it is in progress"}
    orchestrator.prune(older_than=0)
    (tmp_path / "go").touch()
    assert handle.wait_for_completion(2400, 0.1).status is ExecutionStatus.FAILED
    run = RunFolder(tmp_path / "runs/r")
    wait_until(lambda: not run.is_supervised())
    assert plan_of(orchestrator, 3600) == {"r": "used within 60 minutes"}

    (item,) = orchestrator.prunable(Bounds(older_than=0))
    (tmp_path / "fail").unlink()
    handle.retry()
    assert item.remove() == 0, "it is run again since the plan was made"
    assert orchestrator.attach("r").wait_for_completion(2400, 0.1).status is ExecutionStatus.COMPLETED

    wait_until(lambda: not run.is_supervised())
    theirs, left = tmp_path / "runs/theirs", tmp_path / "runs/.new-0123abcd"
    for folder in (theirs, left):
        folder.mkdir()
        (folder / "bundle.pyz").write_bytes(b"x")
        os.utime(folder / "bundle.pyz", (1, 1))
        os.utime(folder, (1, 1))
    (tmp_path / "runs/link").symlink_to(tmp_path)
    assert plan_of(orchestrator) == {"r": "", left.name: ""}
    done = orchestrator.prune(older_than=0)
    assert [(each.item.name, each.freed > 0, each.problem) for each in done] == [
        (left.name, True, ""),
        ("r", True, ""),
    ]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["link", "theirs"]
    with pytest.raises(RunNotFoundError):
        orchestrator.get_run("r")


def test_a_pipeline_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    orchestrator = KubeflowLocalOrchestrator(folder=tmp_path / "runs")
    refused = Pipeline("refused").add_step(step(name="add", kubeflow={"imge": "python"})(lambda: 1))
    with pytest.raises(UnknownOptionError, match="kubeflow has no option 'imge'"):
        orchestrator.submit(refused.bundle(), "r", {})
    assert list(tmp_path.rglob("*")) == []


def test_the_folder_of_a_run_that_is_being_made_stays(tmp_path: Path) -> None:
    """There is nothing in it for a moment, and nothing says how old it is but its own time."""
    left, begun = tmp_path / ".new-0123abcd", tmp_path / ".new-abcd0123"
    for folder in (left, begun):
        folder.mkdir()
    os.utime(left, (1, 1))
    found = list(prunable(tmp_path, Bounds(older_than=0)))
    assert {item.name: item.kept for item in found} == {left.name: "", begun.name: "a process may be writing it"}
