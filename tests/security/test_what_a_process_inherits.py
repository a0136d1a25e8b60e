"""A process of steps has no secret in its environment, neither in what Python shows nor in what the kernel keeps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.hooks import PipelineHook
from flowyml.orchestrators import LocalOrchestrator
from flowyml.steps import bash
from tests.waiting import wait_until

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


@step(secrets={"password": "warehouse/password"}, timeout=600)
def looks_above(password: str = "") -> list[str]:
    """Of each process from this one to the first of the machine: its environment, as far as this user may see it."""
    import os

    seen, pid = [str(len(password))], os.getpid()
    while pid > 1:
        try:
            seen.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
        except OSError:
            break
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return [text.replace(password, "found") for text in seen]


def test_neither_does_a_step_find_one_in_the_processes_of_a_submitted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_SECRET_WAREHOUSE_PASSWORD", "planted-81d")
    monkeypatch.setenv("USUAL", "there")
    pipeline = Pipeline("looks_above").add_step(looks_above)
    handle = pipeline.submit(on=LocalOrchestrator(store=tmp_path / "runs.db"))
    handle.wait_for_completion(timeout=2400, poll_interval=0.1)
    length, *seen = handle.outputs["looks_above"]
    assert length == str(len("planted-81d")), "the run itself has it"
    assert sum("USUAL=there" in each for each in seen) > 1
    assert ["found" in each for each in seen] == [False] * len(seen)


def test_nor_does_a_command_that_a_step_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_SECRET_WAREHOUSE_PASSWORD", "planted")
    assert bash('echo "[$FLOWYML_SECRET_WAREHOUSE_PASSWORD]"') == "[]"


def test_nor_does_the_process_around_a_prefect_run_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowyml.orchestrators import background
    from flowyml_prefect.runner import launch

    monkeypatch.setenv("FLOWYML_SECRET_WAREHOUSE_PASSWORD", "planted")
    monkeypatch.setenv("USUAL", "there")
    before = {*background._started}
    launch("0" * 8, "flow.py:run", {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, tmp_path)
    (process,) = {*background._started} - before
    try:
        environ = Path(f"/proc/{process.pid}/environ")  # empty until the kernel has started the program
        seen = wait_until(lambda: environ.read_text(errors="replace"))
    finally:
        process.kill()
        process.wait()
    assert "USUAL" in seen
    assert "planted" not in seen


@pytest.mark.filterwarnings("ignore:.*fork")  # with threads, which is what this is about
def test_a_fork_elsewhere_in_the_starter_keeps_no_run_from_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It inherits what the starter holds open, such as the end of a pipe, and may live for hours."""
    import os
    import signal

    from flowyml.orchestrators import background

    copies: list[int] = []

    class Forked(background._Process):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            if not (copy := os.fork()):
                signal.pause()
            copies.append(copy)

    monkeypatch.setattr(background, "_Process", Forked)
    monkeypatch.setenv("FLOWYML_SECRET_LONG", "planted" * 50_000)
    code = (
        "import os; from flowyml.orchestrators.background import take_secrets; take_secrets();"
        "print(len(os.environ['FLOWYML_SECRET_LONG']))"
    )
    try:
        with (tmp_path / "log").open("wb") as log:
            process = background.start_detached([sys.executable, "-c", code], log, secrets=True)
        wait_until(lambda: process.poll() is not None)
        assert (tmp_path / "log").read_text() == "350000\n"
    finally:
        for copy in copies:
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)
