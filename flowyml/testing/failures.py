"""Runs that fail, retry, take too long, or are stopped."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from flowyml.core.capabilities import Feature
from flowyml.core.errors import WaitTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines
from flowyml.testing.base import CANCELLED, COMPLETED, FAILED, TIMEOUT, Conformance, Done, sample, wait_until

__all__ = ["FailureConformance"]


def _policy(attempts: int, *only: str) -> OrchestratorRetryPolicy:
    return OrchestratorRetryPolicy(
        max_attempts=attempts, initial_delay_seconds=0.1, retryable_errors=list(only) or None
    )


class FailureConformance(Conformance):
    """Runs that fail, retry, time out, or are stopped."""

    @sample(pipelines.failing)
    def test_a_failure_is_reported_and_stops_only_what_depends_on_it(self, done: Done) -> None:
        handle = done.run
        assert handle.status is FAILED
        assert "step 'broken': ValueError: the number 13 is not lucky" in str(handle.error)
        assert "step 'unlucky': KeyError: 'nor is this one'" in str(handle.error)
        assert handle.step_statuses() == {
            "broken": FAILED, "after_broken": CANCELLED, "unlucky": FAILED,
            "healthy": COMPLETED, "after_healthy": COMPLETED,
        }  # fmt: skip
        assert handle.outputs == {}
        assert not handle.result().success
        log = "\n".join(line.message for line in handle.logs() if line.step == "broken")
        assert "Traceback (most recent call last)" in log
        assert "site-packages" not in log  # nothing of the engine's own

    @sample(lambda folder: pipelines.flaky(folder, _policy(3), failures=2), needs=[Feature.STEP_RETRY])
    def test_retries_until_it_works(self, done: Done) -> None:
        assert done.outputs == {"attempt": 3}
        assert [run.attempt for run in done.run.step_runs()] == [3]

    @sample(
        lambda folder: pipelines.flaky(folder, _policy(3, "Connection"), failures=9, error="ValueError"),
        needs=[Feature.STEP_RETRY, Feature.RETRYABLE_ERRORS],
    )
    def test_only_errors_that_are_worth_it_are_retried(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert (done.folder / "attempts").read_text() == "x"

    @sample(
        lambda folder: pipelines.flaky(folder, None, failures=1),
        needs=[Feature.STEP_RETRY],
        options={"retry_policy": _policy(2)},
    )
    def test_the_orchestrators_policy_covers_steps_without_one(self, done: Done) -> None:
        assert done.run.outputs == {"attempt": 2}

    @sample(
        partial(pipelines.beating, name="conformance step timeout"),
        needs=[Feature.STEP_TIMEOUT],
        settings=["step_timeout"],
    )
    def test_a_step_timeout_stops_the_work(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert done.statuses("beat") == {"beat": TIMEOUT}
        self.has_stopped(done.folder)
        assert (done.folder / "tidied").exists(), "it was asked to stop before it was killed"

    @sample(
        lambda folder: pipelines.beating(folder, name="conformance timeout", timeout=4),
        needs=[Feature.PIPELINE_TIMEOUT],
    )
    def test_a_pipeline_timeout_stops_the_work(self, done: Done) -> None:
        assert done.record.status is TIMEOUT
        assert "was cancelled" not in str(done.steps["beat"].error), "its run took too long"
        self.has_stopped(done.folder)

    def test_cancel_stops_the_work(self, orchestrator: Orchestrator, folder: str) -> None:
        self.needs(orchestrator, Feature.CANCEL, lambda: orchestrator.cancel("no-such-run"))
        handle = orchestrator.run_pipeline(pipelines.beating(folder))
        self.has_started(folder)
        assert handle.status is ExecutionStatus.RUNNING
        assert handle.cancel() is True
        assert self.finish(handle).status is CANCELLED
        self.has_stopped(Path(folder))
        assert (Path(folder) / "tidied").exists() or not self.asks_the_cancelled, "asked to stop before it was killed"
        assert handle.step_statuses() == {"beat": CANCELLED}

    def test_waiting_ends_and_the_run_goes_on(self, orchestrator: Orchestrator, folder: str) -> None:
        started = time.monotonic()
        handle = orchestrator.run_pipeline(pipelines.beating(folder))
        assert time.monotonic() - started < 110, "submitting must not wait for the run, which takes two minutes"
        try:
            with pytest.raises(WaitTimeoutError, match="It goes on"):
                handle.wait_for_completion(timeout=0.5, poll_interval=0.1)
            assert not handle.status.is_terminal
            self.has_started(folder)
        finally:
            handle.cancel()
            self.finish(handle)

    def beats(self, folder: Path) -> int:
        path = folder / "beats"
        return len(path.read_text()) if path.exists() else 0

    def has_started(self, folder: str) -> None:
        wait_until(lambda: self.beats(Path(folder)) > 0, "the step begins")

    def has_stopped(self, folder: Path) -> None:
        """Wait until half a second passes without a beat, of which there are ten a second."""

        def is_still() -> bool:
            count = self.beats(folder)
            time.sleep(0.5)
            return self.beats(folder) == count

        wait_until(is_still, "the step stops")
