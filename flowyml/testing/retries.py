"""Retries of runs, and steps that share a process."""

from __future__ import annotations

from collections import Counter

import pytest

from flowyml.core.capabilities import Feature
from flowyml.core.errors import RetryRefusedError
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines_retries as pipelines
from flowyml.testing.base import CANCELLED, COMPLETED, FAILED, Conformance, Done, sample

__all__ = ["ExecutionGroupConformance", "RetryConformance"]


has_a_bug = sample(pipelines.has_a_bug, needs=[Feature.FAN_OUT])
items_fail_once = sample(pipelines.items_fail_once, needs=[Feature.FAN_OUT])
together = sample(pipelines.together, needs=[Feature.EXECUTION_GROUPS])
together_fails_once = sample(pipelines.together_fails_once, needs=[Feature.EXECUTION_GROUPS])


class RetryConformance(Conformance):
    """A retry runs the failed steps again, and no completed one."""

    @sample(pipelines.fails_once)
    def test_a_retry_goes_on_where_the_run_failed(self, orchestrator: Orchestrator, done: Done) -> None:
        handle = self.retried(orchestrator, done.run)
        assert handle.outputs == {"total": 6, "beside": 7}
        assert Counter(done.trace) == {"list": 1, "flaky": 2, "beside": 1}
        attempts = {run.name: run.attempt for run in handle.step_runs()}
        again = 2 if self.counts_retries else 1
        assert [attempts[name] for name in ("flaky", "list", "total")] == [again, 1, 1], attempts
        with pytest.raises(RetryRefusedError, match="completed"):
            handle.retry()

    @items_fail_once
    def test_a_retry_runs_the_failed_items_of_a_loop(self, orchestrator: Orchestrator, done: Done) -> None:
        handle = self.retried(orchestrator, done.run)
        assert handle.outputs == {"total": 3}
        assert Counter(done.trace) == {
            "first 0": 1, "first 1": 1, "first 2": 1, "flaky 0": 1, "flaky 1": 2, "flaky 2": 1,
        }  # fmt: skip

    @has_a_bug
    def test_what_completed_in_a_failed_run_is_read(self, orchestrator: Orchestrator, done: Done) -> None:
        self.needs(orchestrator, Feature.STEP_OUTPUTS, done.run.step_outputs)
        outputs = done.run.step_outputs()
        assert {label: [*given.values()] for label, given in outputs.items() if label != "beside"} == {
            "numbers": [[0, 1, 2, 3]], "list": [[0, 1, 2, 3]], "half[0]": [0.0], "half[1]": [0.5], "half[3]": [1.5],
            "prepared": [(0, 1, 2, 3)],
        }  # fmt: skip
        steps = done.run.result().step_results
        assert [*steps["half"].outputs.values()] == [[(0, 0.0), (1, 0.5), (3, 1.5)]]
        assert [*steps["prepared"].outputs.values()] == [(0, 1, 2, 3)]
        assert not steps["total"].outputs

    @has_a_bug
    def test_a_retry_with_new_code_takes_what_fits(self, orchestrator: Orchestrator, done: Done) -> None:
        """It is a run of its own, and says of each step which run computed its results."""
        old, fixed = done.run, pipelines.has_a_bug(str(done.folder), fixed=True)
        self.needs(orchestrator, Feature.RETRY_NEW_CODE, lambda: old.retry(with_new_code=fixed))
        new = self.finish(old.retry(with_new_code=fixed))
        assert new.status is COMPLETED, new.error
        assert new.run_id != old.run_id
        assert new.outputs == {"total": 3.0, "count": 8, "beside": 8}
        assert Counter(done.trace) == {
            "list": 1, "prepared": 1, "half 0": 1, "half 1": 1, "half 2": 2, "half 3": 1, "beside": 2,
        }  # fmt: skip
        taken = {run.label: run.cached_from for run in new.step_runs() if run.is_cached}
        labels = ("numbers", "list", "prepared", "half[0]", "half[1]", "half[3]")
        assert taken == dict.fromkeys(labels, old.run_id)
        assert old.status is FAILED
        with pytest.raises(RetryRefusedError, match="completed"):
            new.retry(with_new_code=fixed)

    @together_fails_once
    def test_a_step_of_a_group_fails_alone_and_runs_again(self, orchestrator: Orchestrator, done: Done) -> None:
        """The group runs again; a completed step of it may, too."""
        handle = done.run
        assert handle.status is FAILED
        assert "flaky" in (handle.error or "")
        assert "the first time" in (handle.error or "")
        ended = {run.name: run.status for run in handle.step_runs()}
        assert ended == {"first": COMPLETED, "flaky": FAILED, "third": COMPLETED, "after": CANCELLED}
        self.needs(orchestrator, Feature.RETRY_RUN, lambda: orchestrator.retry(handle.job_id))
        assert self.finish(handle.retry()).status is COMPLETED, handle.error
        assert handle.outputs == {"after": 1, "third": 1}

    def retried(self, orchestrator: Orchestrator, handle: SubmissionResult) -> SubmissionResult:
        """Retry a failed run, which then completes, under the same ids."""
        self.needs(orchestrator, Feature.RETRY_RUN, handle.retry)
        ids = handle.run_id, handle.job_id
        assert handle.status is FAILED
        assert self.finish(handle.retry()).status is COMPLETED, handle.error
        assert (handle.run_id, handle.job_id) == ids
        return handle


class ExecutionGroupConformance(Conformance):
    """Neighbouring steps share a process, but stay steps."""

    @sample(pipelines.together_held, needs=[Feature.EXECUTION_GROUPS, Feature.BRANCHES, Feature.RUN_IF])
    def test_a_group_begins_when_all_that_its_steps_wait_for_went_well(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert {name: (run.status, run.raw_status == "skipped") for name, run in done.steps.items()} == {
            "here": (COMPLETED, False), "failing": (FAILED, False),
            "one": (COMPLETED, True), "two": (COMPLETED, True),
            "skipped_first": (COMPLETED, True), "skipped_second": (COMPLETED, True),
            "failed_first": (CANCELLED, False), "failed_second": (CANCELLED, False),
            "skipped_handled": (COMPLETED, False), "failed_handled": (COMPLETED, False),
        }  # fmt: skip

    @together
    def test_steps_of_a_group_share_a_process_and_stay_steps(self, done: Done) -> None:
        assert done.outputs == {"sum": 7}
        (left, one), (right, other) = (line.split() for line in done.trace)
        assert (left, right, one) == ("left", "right", other)
        assert set(done.steps) == {"numbers", "left", "right", "measured", "add"}
        said = {(line.step, line.message) for line in done.run.logs() if line.message.endswith("was here")}
        assert said == {("left", "left was here"), ("right", "right was here")}

    @together
    def test_what_a_step_of_a_group_gave_is_listed(self, orchestrator: Orchestrator, done: Done) -> None:
        self.needs(orchestrator, Feature.ARTIFACTS, done.run.artifacts)
        (found,) = [artifact for artifact in done.run.artifacts() if artifact.step == "measured"]
        assert (found.type, found.name, dict(found.metadata)) == ("metrics", "measured", {"share": 0.25})

    @sample(
        pipelines.together_items, needs=[Feature.EXECUTION_GROUPS, Feature.FAN_OUT, Feature.STEP_RETRY], shares_run=True
    )
    def test_each_item_of_a_group_has_steps_of_its_own(self, done: Done) -> None:
        assert done.outputs == {"lefts": [(0, 0), (1, 1), (2, 2)], "rights": [(0, 10), (2, 12)]}
        processes: dict[tuple[str, str], str] = {}  # of the first attempt of each
        for name, item, process in (line.split() for line in done.trace):
            processes.setdefault((name, item), process)
        assert all(processes["left", item] == processes["right", item] for item in "012"), processes
        assert done.statuses("left") == dict.fromkeys(("left[0]", "left[1]", "left[2]"), COMPLETED)
        assert done.statuses("right") == {"right[0]": COMPLETED, "right[1]": FAILED, "right[2]": COMPLETED}
        failed = done.steps["right[1]"]
        assert (failed.attempt, failed.index) == (2, (1,))
        assert "no 1" in (failed.error or "")
        said = [line.label for line in done.log if line.message == "right of 1"]
        assert said == ["right[1]", "right[1]"]
