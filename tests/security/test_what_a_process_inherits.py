"""A process of steps has no secret in its environment, neither in what Python shows nor in what the kernel keeps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.hooks import PipelineHook
from flowyml.orchestrators import LocalOrchestrator

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the environment that a process began with"),
]


@step(timeout=600)
def looks() -> list[str]:
    import os

    return [Path("/proc/self/environ").read_text(errors="replace"), repr(dict(os.environ))]


class Looks(PipelineHook):
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_step_start(self, step_name: str, inputs: Any) -> None:
        (Path(self.folder) / "seen").write_text(Path("/proc/self/environ").read_text(errors="replace"))


@pytest.mark.parametrize("fork", ["1", "0"], ids=["forked", "spawned"])
def test_a_step_and_its_hooks_find_no_secret_that_they_do_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: str
) -> None:
    monkeypatch.setenv("FLOWYML_FORK", fork)
    monkeypatch.setenv("FLOWYML_SECRET_WAREHOUSE_PASSWORD", "planted")
    monkeypatch.setenv("USUAL", "there")
    pipeline = Pipeline("looks", hooks=[Looks(str(tmp_path))]).add_step(looks)
    result = pipeline.run(on=LocalOrchestrator(store=tmp_path / "runs.db"))
    seen = [*result["looks"], (tmp_path / "seen").read_text()]
    assert ["USUAL" in each for each in seen] == [True] * 3
    assert ["planted" in each for each in seen] == [False] * 3
