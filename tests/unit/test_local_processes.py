"""Steps in processes of their own: asked for, or because they may have to be killed."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import ConfigurationError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.home import home
from flowyml.core.hooks import PipelineHook
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import stopping
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
CANCELLED, TIMEOUT = ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Whatever a test starts hangs below a child of its own; engines and runs of earlier tests have theirs already."""
    before = set(psutil.Process().children())
    yield
    left = set(psutil.Process().children()) - before
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def processes(tmp_path: Path) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")


def wait_for(seconds: float, name: str = "wait", timeout: float | None = None) -> Any:
    def wait() -> float:
        import time

        time.sleep(seconds)
        return seconds

    return step(name=name, outputs=[name], timeout=timeout)(wait)


def test_steps_in_processes(processes: LocalOrchestrator, capsys: pytest.CaptureFixture[str]) -> None:
    @step(outputs=["pid", "large"])
    def first(rows: int) -> tuple[int, Any]:
        import os
        import sys

        print("from the child")
        print("and its stderr", file=sys.stderr)
        return os.getpid(), [{"row": number} for number in range(rows)]

    @step(outputs=["pids", "count"])
    def second(pid: int, large: Any) -> tuple[list[int], int]:
        import os

        return [pid, os.getpid()], len(large)

    pipeline = Pipeline("apart", context=context(rows=10)).add_step(first).add_step(second)
    result = pipeline.run({"rows": 20_000}, on=processes)
    assert result.success, result.error
    assert result["count"] == 20_000
    assert len({os.getpid(), *result["pids"]}) == 3
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("from the child\n", "and its stderr\n")
    lines = [(line.step, line.message) for line in processes.logs(result.run_id)]
    assert sorted(lines) == [("first", "and its stderr"), ("first", "from the child")]
    assert not processes.store.folder_of(result.run_id).exists()


def test_a_value_that_no_process_can_take(local: LocalOrchestrator, caplog: pytest.LogCaptureFixture) -> None:
    make = step(name="make", outputs=["lock"])(lambda: threading.Lock())
    result = Pipeline("stuck").add_step(make).add_step(step(name="use", timeout=240)(lambda lock: 1)).run(on=local)
    assert result.error is not None
    assert "step 'use' runs in its own process, but output 'lock' of step 'make' cannot be passed" in result.error
    assert "engine.py" not in caplog.text


def test_a_pipeline_timeout(local: LocalOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that jumps once the slow step is at work: processes take their time to start."""
    at_work = tmp_path / "at work"
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * at_work.exists(), time=time.time)
    monkeypatch.setattr(stopping, "time", clock)

    class Last(PipelineHook):
        seen: ClassVar[list[str]] = []

        def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
            self.seen.append(str(status))

    @step(outputs=["slow"])
    def slow(quick: float) -> float:
        at_work.touch()
        time.sleep(3000)
        return quick

    pipeline = Pipeline("late", timeout=900, hooks=[Last()])
    pipeline.add_step(wait_for(0, "quick")).add_step(slow)
    pipeline.add_step(step(name="after")(lambda slow: slow))
    result = pipeline.run(on=local)
    assert (result.status, result.error) == (
        TIMEOUT, "The run took longer than the pipeline's timeout of 15 min and was stopped.",
    )  # fmt: skip
    assert {name: (run.status, run.raw_status) for name, run in result.step_results.items()} == {
        "quick": (COMPLETED, "completed"), "slow": (CANCELLED, "timeout"), "after": (CANCELLED, "timeout"),
    }  # fmt: skip
    assert local.get_run(result.run_id).status is TIMEOUT
    assert Last.seen == ["TIMEOUT"]


def test_children_do_not_outlive_a_killed_submitted_run(local: LocalOrchestrator, tmp_path: Path) -> None:
    place = str(tmp_path / "pid")

    @step(timeout=600)
    def sleep() -> None:
        import os
        import time

        with Path(place).open("w") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(600)

    handle = Pipeline("orphans").add_step(sleep).submit(on=local)
    wait_until(lambda: Path(place).exists() and Path(place).read_text().endswith("\n"))
    child = psutil.Process(int(Path(place).read_text()))
    os.kill(local.store.get(handle.job_id).pid, signal.SIGKILL)
    child.wait(2400)
    wait_until(lambda: handle.status is FAILED)  # a child may be gone a moment before its parent's files are closed
    assert not local.store.folder_of(handle.job_id).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "file"))
    pipeline = Pipeline("homeless").add_step(step(name="one", outputs=["x"])(lambda: 1))
    for start in (pipeline.run, pipeline.submit):
        with pytest.raises(
            ConfigurationError, match=r"cannot be written to .*Set FLOWYML_HOME to a folder that you can"
        ):
            start(on=LocalOrchestrator(workers="processes"))


def test_a_user_without_a_home_gets_an_error_that_names_the_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the random user ids of some container platforms."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "FLOWYML_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)  # only root could become such a user, and tests run without it too
    with pytest.raises(ConfigurationError, match=r"no folder for its data: .* Set FLOWYML_HOME"):
        home()


def test_a_store_that_cannot_be_written_is_not_blamed_on_the_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = Pipeline("large").add_step(step(name="big", outputs=["x"])(lambda: "x" * 200_000)).bundle().write(tmp_path)
    command = [sys.executable, str(path), "step", "big", "--artifacts", "/proc/nope"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "output 'x' cannot be passed to other steps. Artifact /proc/nope/" in done.stderr
    assert "Check the artifact store, or set FLOWYML_ARTIFACTS to another one." in done.stderr
    assert "Return plain data" not in done.stderr


def given_a_lambda() -> Any:
    return [lambda: 1]


def test_a_worker_without_cloudpickle_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    path = Pipeline("by value").add_step(step(name="make", outputs=["x"])(given_a_lambda)).bundle().write(tmp_path)
    hidden = (
        "import runpy, sys; sys.modules['cloudpickle'] = None; sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", hidden, str(path), "step", "make", "--artifacts", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "needs cloudpickle, which is not installed here: pip install cloudpickle. Install it where" in done.stderr
    assert "FLOWYML_ARTIFACTS" not in done.stderr


class SetsUp(PipelineHook):
    """What steps find when the pipeline has started."""

    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Mapping[str, Any]) -> None:
        os.environ["SET_UP_BY_A_HOOK"] = run_id


def test_what_a_hook_sets_up_is_there_for_steps_in_processes(
    processes: LocalOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_UP_BY_A_HOOK", "before")
    seen = step(name="seen", outputs=["seen"])(lambda: os.environ["SET_UP_BY_A_HOOK"])
    pipeline = Pipeline("set up", hooks=[SetsUp()]).add_step(seen)
    for run_id in ("first", "second"):
        assert pipeline.run(on=processes, run_id=run_id)["seen"] == run_id


def test_a_process_that_a_thread_has_forked_delays_nothing(local: LocalOrchestrator) -> None:
    """It has a copy of all that is open, the way to the warm process included."""
    left: list[int] = []

    def forks() -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(3000)  # longer than a test may take
            os._exit(0)
        left.append(pid)
        return 1

    def apart(forked: int) -> int:
        return forked + 1

    pipeline = Pipeline("forked").add_step(step(name="forked", outputs=["forked"])(forks))
    pipeline.add_step(step(name="apart", outputs=["apart"], timeout=240)(apart))
    try:
        assert pipeline.run(on=local)["apart"] == 2
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
