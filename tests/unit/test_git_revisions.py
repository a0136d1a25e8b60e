"""Each run knows the git commit that it was made from, and whether files were changed since."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline
from flowyml.authoring.git_revisions import revision_of
from flowyml.orchestrators import LocalOrchestrator

SCRIPT = """
from flowyml import pipeline, step

@step
def one():
    return 1

@pipeline
def train():
    return one()
"""


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "sql.txt").write_text("select 1")
    return tmp_path


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "more")
    return git(folder, "rev-parse", "HEAD")


def test_the_commit_and_what_was_changed_since(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(repository / "train.py")
    assert revision_of(file) is None  # nothing is committed
    first = commit(repository)
    assert revision_of(file) == first
    (repository / "scratch.csv").write_text("not tracked, and not the pipeline")
    second = commit(repository)
    assert revision_of(file) == second != first
    (repository / "train.py").write_text(SCRIPT + "\n")
    assert revision_of(file) == f"{second}-dirty"
    (repository / "other.py").write_text("")
    assert revision_of(str(repository / "other.py")) == f"{second}-dirty"
    monkeypatch.setenv("GIT_DIR", str(repository / "nowhere"))  # as git sets it for its hooks
    assert revision_of(file) == f"{second}-dirty"


def test_a_worktree_has_its_own(repository: Path) -> None:
    first = commit(repository)
    git(repository, "worktree", "add", "-q", "side")
    assert revision_of(str(repository / "side" / "train.py")) == first
    second = commit(repository / "side")
    assert revision_of(str(repository / "side" / "train.py")) == second
    assert revision_of(str(repository / "train.py")) == first


def test_without_git_there_is_none(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository)
    elsewhere = tmp_path_factory.mktemp("plain") / "train.py"
    elsewhere.write_text(SCRIPT)
    assert revision_of(str(elsewhere)) is None
    (repository / "train.py").touch()
    monkeypatch.setenv("PATH", "")
    assert revision_of(str(repository / "train.py")) is None


def loaded(path: Path) -> Pipeline:
    spec = importlib.util.spec_from_file_location("train_of_a_repository", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train: Pipeline = module.train
    return train


def test_runs_tell_it_and_the_bundle_stays_the_same(repository: Path) -> None:
    pipeline, local = loaded(repository / "train.py"), LocalOrchestrator()
    first = commit(repository)
    bundle = pipeline.bundle()
    assert bundle.revision == bundle.with_files({"x": b""}).revision == first
    result = pipeline.run(on=local)
    assert local.get_run(result.run_id).revision == first
    second = commit(repository)
    assert pipeline.bundle().digest == bundle.digest
    handle = pipeline.submit(on=local)
    assert handle.run.revision == second
    assert handle.wait_for_completion(2400, 0.1).status.is_successful


def test_a_change_of_another_file_is_seen_by_the_same_process(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, first = str(repository / "train.py"), commit(repository)
    assert revision_of(file) == first
    (repository / "sql.txt").write_text("select 2")
    later = time.monotonic() + 3
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert revision_of(file) == f"{first}-dirty"
