"""Runs that are run again, and steps that share a process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from flowyml import Pipeline
from flowyml.core.capabilities import Feature
from flowyml.core.errors import RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines_again as pipelines
from flowyml.testing.base import Conformance, Done, sample

__all__ = ["ExecutionGroupConformance", "RetryConformance"]

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


class RetryConformance(Conformance):
    """What failed of a run runs again, and nothing that completed."""

    def test_a_retry_goes_on_where_the_run_failed(self, orchestrator: Orchestrator, folder: str) -> None:
        handle = self.retried(orchestrator, pipelines.fails_once(folder))
        assert handle.outputs == {"total": 6, "beside": 7}
        assert Counter((Path(folder) / "trace").read_text().splitlines()) == {"list": 1, "flaky": 2, "beside": 1}
        attempts = {run.name: run.attempt for run in handle.step_runs()}
        again = 2 if self.counts_retries else 1
        assert [attempts[name] for name in ("flaky", "list", "total")] == [again, 1, 1], attempts
        with pytest.raises(RetryRefusedError, match="completed"):
            handle.retry()

    def test_a_retry_runs_the_failed_items_of_a_loop(self, orchestrator: Orchestrator, folder: str) -> None:
        self.needs(orchestrator, Feature.FAN_OUT, lambda: orchestrator.plan(pipelines.items_fail_once(folder)))
        handle = self.retried(orchestrator, pipelines.items_fail_once(folder))
        assert handle.outputs == {"total": 3}
        assert Counter((Path(folder) / "trace").read_text().splitlines()) == {
            "first 0": 1, "first 1": 1, "first 2": 1, "flaky 0": 1, "flaky 1": 2, "flaky 2": 1,
        }  # fmt: skip

    def retried(self, orchestrator: Orchestrator, pipeline: Pipeline) -> SubmissionResult:
        """A run that failed, and completed when it was retried, under the same ids."""
        self.needs(orchestrator, Feature.RETRY_RUN, lambda: orchestrator.retry("any"))
        handle = orchestrator.run_pipeline(pipeline)
        ids = handle.run_id, handle.job_id
        assert self.finish(handle).status is FAILED
        assert self.finish(handle.retry()).status is COMPLETED, handle.error
        assert (handle.run_id, handle.job_id) == ids
        return handle


class ExecutionGroupConformance(Conformance):
    """Neighbouring steps share a process, and stay steps."""

    @sample(pipelines.together, needs=[Feature.EXECUTION_GROUPS])
    def test_steps_of_a_group_share_a_process_and_stay_steps(self, done: Done) -> None:
        assert done.run.status is COMPLETED, done.run.error
        assert done.outputs == {"sum": 7}
        (left, one), (right, other) = (line.split() for line in done.trace)
        assert (left, right, one) == ("left", "right", other)
        assert set(done.steps) == {"numbers", "left", "right", "add"}
        said = {(line.step, line.message) for line in done.run.logs() if line.message.endswith("was here")}
        assert said == {("left", "left was here"), ("right", "right was here")}
