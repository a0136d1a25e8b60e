"""Submitted runs that are cancelled, killed or interrupted: nothing of them goes on, and the record says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import Pipeline, cleanup, pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.process_identity import this_process
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import detached
from flowyml.orchestrators.local.store import Ending
from tests.unit.local_runs import CANCELLED, FAILED, beating, process_id
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("by", ["the signal", "the record"])
def test_what_stops_a_run_ends_its_process_and_what_that_started(
    local: LocalOrchestrator, tmp_path: Path, by: str
) -> None:
    """On a busy machine, the run may read in its record that it is cancelled before the signal comes."""
    place = str(tmp_path)

    @step
    def sleep() -> None:
        import pathlib
        import subprocess
        import time

        program = subprocess.Popen(["sleep", "300"])
        (pathlib.Path(place) / "pid").write_text(f"{program.pid}\n")
        while program.poll() is None:
            time.sleep(0.05)

    handle = Pipeline("sleeping").add_step(sleep).submit(on=local)
    program = process_id(tmp_path)
    row = local.store.get(handle.job_id)
    assert handle.status is ExecutionStatus.RUNNING
    assert is_running(row.pid)
    assert handle.cancel() if by == "the signal" else local.store.request_cancel(handle.job_id)
    assert handle.wait_for_completion(timeout=2400).status is CANCELLED
    assert handle.step_statuses() == {"sleep": CANCELLED}
    wait_until(lambda: not is_running(program) and not is_running(row.pid))
    assert handle.cancel() is False


class SlowToArrive(LocalOrchestrator):
    """Takes its time in the process of a run, before that has begun."""

    folder = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        (Path(self.folder) / "arriving").touch()
        time.sleep(300)


def test_a_run_that_is_cancelled_while_its_process_starts(local: LocalOrchestrator, tmp_path: Path) -> None:
    @step
    def never() -> None: ...

    slow = SlowToArrive(store=local.store.path)
    slow.folder = str(tmp_path)
    handle = Pipeline("never").add_step(never).submit(on=slow)
    wait_until((tmp_path / "arriving").exists)
    assert handle.cancel() is True
    assert handle.status is CANCELLED, handle.error


def test_sigterm_is_a_cancellation_and_fires_the_last_hook(local: LocalOrchestrator, tmp_path: Path) -> None:
    place = str(tmp_path)

    class Farewell(PipelineHook):
        def on_pipeline_end(self, pipeline_name: str, run_id: str, status: Any, duration: float) -> None:
            import pathlib

            (pathlib.Path(place) / "farewell").write_text(str(status))

    pipeline = beating(tmp_path)
    pipeline.hooks = (Farewell(),)
    handle = pipeline.submit(on=local)
    os.kill(process_id(tmp_path), signal.SIGTERM)
    handle.wait_for_completion(timeout=2400, poll_interval=0.05)
    assert handle.status is CANCELLED
    assert handle.step_statuses() == {"beat": CANCELLED, "after": CANCELLED}
    assert wait_until(lambda: (tmp_path / "farewell").exists() and (tmp_path / "farewell").read_text()) == "CANCELLED"


def test_a_step_stuck_in_a_thread_ends_with_the_process(
    local: LocalOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, so that one of them runs in a helper's thread, where no signal interrupts a sleep.

    The run is not measured by coverage: on CPython 3.11 no traced thread begins a call while an exception waits for
    one that sleeps. Such a process cannot end itself; the canceller then does it, after 10 s.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    place = str(tmp_path)

    def stuck(name: str) -> Any:
        def sleep() -> None:
            import pathlib
            import time

            (pathlib.Path(place) / name).write_text("")
            time.sleep(3000)  # longer than a test may take

        return step(name=name)(sleep)

    handle = Pipeline("stuck").add_step(stuck("a")).add_step(stuck("b")).submit(on=local)
    wait_until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    pid = local.store.get(handle.job_id).pid
    assert handle.cancel()
    assert handle.status is CANCELLED
    assert set(handle.step_statuses().values()) == {CANCELLED}
    wait_until(lambda: not is_running(pid))


def test_steps_that_clean_up_after_a_cancellation_are_waited_for(local: LocalOrchestrator, tmp_path: Path) -> None:
    place = str(tmp_path)

    @step
    def wait() -> None:
        import pathlib
        import time

        (pathlib.Path(place) / "waiting").touch()
        time.sleep(300)

    @step
    def tidy() -> None:
        import pathlib
        import time

        (pathlib.Path(place) / "tidying").touch()
        while not (pathlib.Path(place) / "go on").exists():
            time.sleep(0.02)
        (pathlib.Path(place) / "tidied").touch()

    @pipeline
    def cleans_up() -> None:
        wait()
        with cleanup():
            tidy()

    handle = cleans_up.submit(on=local)
    wait_until((tmp_path / "waiting").exists)
    assert handle.cancel() is True
    wait_until((tmp_path / "tidying").exists)
    assert (handle.status, handle.raw_status) == (ExecutionStatus.RUNNING, "cleaning_up")
    assert handle.cancel() is True, "asking once more changes nothing"
    assert (handle.status, handle.raw_status) == (ExecutionStatus.RUNNING, "cleaning_up")
    (tmp_path / "go on").touch()
    assert handle.wait_for_completion(timeout=2400, poll_interval=0.05).status is CANCELLED
    assert handle.step_statuses() == {"wait": CANCELLED, "tidy": ExecutionStatus.COMPLETED}
    assert (tmp_path / "tidied").exists()


def test_a_killed_process_does_not_stay_running(local: LocalOrchestrator, tmp_path: Path) -> None:
    handle = beating(tmp_path).submit(on=local)
    wait_until(lambda: handle.step_statuses()["beat"] is ExecutionStatus.RUNNING)
    os.kill(process_id(tmp_path), signal.SIGKILL)
    handle.wait_for_completion(timeout=2400, poll_interval=0.05)
    assert (handle.status, handle.raw_status) == (FAILED, "crashed")
    assert handle.error is not None
    assert "died in the middle of the run" in handle.error
    assert handle.error.endswith(f"`flowyml retry {handle.job_id}` continues it.")
    assert handle.step_statuses() == {"beat": FAILED, "after": CANCELLED}
    assert local.runs()[0].raw_status == "crashed"


def test_a_killed_blocking_run_does_not_stay_running(tmp_path: Path) -> None:
    script = tmp_path / "blocking.py"
    script.write_text(
        textwrap.dedent(f"""
        import time
        from flowyml import Pipeline, step
        from flowyml.orchestrators import LocalOrchestrator

        @step
        def wait():
            time.sleep(600)

        Pipeline("blocking").add_step(wait).run(on=LocalOrchestrator(store={str(tmp_path / "runs.db")!r}), run_id="b")
        """)
    )
    local = LocalOrchestrator(store=tmp_path / "runs.db")
    process = subprocess.Popen([sys.executable, str(script)])
    wait_until(lambda: local.store.find("b") and local.step_runs("b")[0].status is ExecutionStatus.RUNNING)
    process.kill()
    process.wait()
    crashed = local.get_run("b")
    assert crashed.raw_status == "crashed"
    assert crashed.error is not None
    assert crashed.error.endswith("Run it under a new run id."), "its code is kept only once it has ended"


def test_the_last_words_of_a_crashed_process(local: LocalOrchestrator) -> None:
    @step
    def abort() -> None:
        import os

        os.write(2, b"free(): invalid pointer\n")
        os.abort()

    handle = Pipeline("aborting").add_step(abort).submit(on=local)
    handle.wait_for_completion(timeout=2400, poll_interval=0.05)
    assert (handle.status, handle.raw_status) == (FAILED, "crashed")
    assert handle.error is not None
    assert handle.error.endswith("Its last output: free(): invalid pointer")
    assert [line.message for line in handle.logs()] == ["free(): invalid pointer"]
    assert not local.store.folder_of(handle.job_id).exists()


def test_a_run_that_is_cancelled_before_its_process_is_known(local: LocalOrchestrator) -> None:
    """The record then still names the process that submits, which must not be hurt."""
    local.store.add("early", "p", ["a"], {}, this_process(), detached=True)
    assert local.cancel("early")
    assert local.get_run("early").status is ExecutionStatus.QUEUED
    assert local.store.begin("early", this_process()) is False


def test_a_run_that_is_stopped_has_its_time_although_the_machine_stalls(
    local: LocalOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process stands still meanwhile, as the one that waits for it does."""
    hours, naps = count(step=3600), list[float]()

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            local.store.finish("slow", Ending("CANCELLED", "cancelled"))

    assert local.store.add("slow", "p", ["a"], {}, this_process(), detached=True)
    monkeypatch.setattr(detached, "time", SimpleNamespace(monotonic=lambda: next(hours), sleep=nap))
    assert detached._ends(local.store, "slow", 10)
