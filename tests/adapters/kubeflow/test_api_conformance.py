"""What every orchestrator promises, over KFP's API."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flowyml.core.errors import RetryRefusedError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import (
    BranchConformance,
    CleanupConformance,
    ExecutionGroupConformance,
    FailureConformance,
    FanOutConformance,
    LifeConformance,
    OrchestratorConformance,
    RandomFlowConformance,
    RetryConformance,
    RunConformance,
    RunIfConformance,
    SubPipelineConformance,
    pipelines,
    pipelines_cleanup,
)
from flowyml.testing.base import Conformance, Done, wait_until
from flowyml.testing.retries import items_fail_once, together_fails_once
from tests.engines.kubeflow_calls import OVER_THE_API

pytestmark = OVER_THE_API


class OnKubeflow(Conformance):
    """What holds for each release."""

    joins_beside_failures = False  # KFP starts nothing that waits for a task that failed
    counts_retries = False  # KFP forgets the pods that it runs again
    asks_the_cancelled = False  # KFP's launcher, which gets the signal, does not pass it on
    finds_missing_secrets = False  # they are in the cluster, which KFP's API shows nothing of
    steps_per_run = 40  # a workflow of KFP 2.17 has room for no more, where many of them are in loops

    @classmethod
    def engine_options(cls, folder: str) -> Mapping[str, Any]:
        """Values go to the store of a real server's tests, where this machine can read them."""
        store = os.environ.get("FLOWYML_TEST_KFP_STORE", f"{folder}/store")
        return {"kubeflow": {"env": {"FLOWYML_ARTIFACTS": store}}}

    @pytest.fixture(scope="class")
    @classmethod
    def new_folder(cls, new_shared: Callable[[], Path]) -> Callable[[], str]:
        return lambda: str(new_shared())


class TestConformanceOverTheApi(OnKubeflow, OrchestratorConformance, RandomFlowConformance):
    """The whole suite, on a real server or the fake, which is a stock KFP 2.17 unless FLOWYML_TEST_KFP_RELEASE says
    otherwise.
    """

    compile_options: ClassVar = {"artifacts": "s3://code", "release": "2.16"}  # with less room, files are refused

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, kfp_api: Any) -> Callable[..., Orchestrator]:
        make: Callable[..., Orchestrator] = kfp_api.orchestrator
        return make

    @items_fail_once
    def test_a_retry_runs_the_failed_items_of_a_loop(self, orchestrator: Orchestrator, done: Done) -> None:
        """Pods of loops succeed where their steps fail, and KFP retries only failed pods: it is refused."""
        with pytest.raises(RetryRefusedError, match="KFP retries only failed pods"):
            super().test_a_retry_runs_the_failed_items_of_a_loop(orchestrator, done)

    @together_fails_once
    def test_a_step_of_a_group_fails_alone_and_runs_again(self, orchestrator: Orchestrator, done: Done) -> None:
        """As those of loops, its pod succeeds: a retry is refused."""
        with pytest.raises(RetryRefusedError, match="KFP retries only failed pods"):
            super().test_a_step_of_a_group_fails_alone_and_runs_again(orchestrator, done)

    @pytest.mark.xfail(reason="KFP starts nothing more in a run that was stopped", strict=True)
    def test_clean_up_after_a_cancellation(self, orchestrator: Orchestrator, folder: str) -> None:
        handle = orchestrator.run_pipeline(pipelines_cleanup.tidied_late(folder))
        wait_until((Path(folder) / "beats").exists, "the step begins")
        assert handle.cancel() is True
        assert self.finish(handle).status is ExecutionStatus.CANCELLED
        assert (Path(folder) / "trace").exists()

    def test_next_runs_are_in_the_time_zone(self, orchestrator: Orchestrator) -> None:
        """Of a zone that keeps its offset; others are refused, with the reason."""
        schedule = Schedule.of("daily", 6, timezone="Asia/Kolkata")
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
        try:
            assert made.next_runs[0] == schedule.next_times()[0]
        finally:
            orchestrator.delete_schedule(made.schedule_id)
        with pytest.raises(UnsupportedFeatureError, match="changes its offset in the course of the year"):
            orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("daily", 6, timezone="America/New_York"))


class TestConformanceIn216(OnKubeflow):
    """A KFP up to 2.16 records one node of a task, and 2.17 one around its attempts: of all that is read from nodes, or
    that is run again by them, one test each. How KFP's releases differ besides, ``test_releases`` shows.
    """

    test_outputs = RunConformance.test_a_run_completes_and_gives_its_outputs
    test_states = RunConformance.test_step_statuses
    test_logs = RunConformance.test_logs_hold_what_a_step_printed
    test_failures = FailureConformance.test_a_failure_is_reported_and_stops_only_what_depends_on_it
    test_attempts = FailureConformance.test_retries_until_it_works
    test_step_timeout = FailureConformance.test_a_step_timeout_stops_the_work
    test_hooks = LifeConformance.test_hooks_see_a_run_that_fails
    test_retry = RetryConformance.test_a_retry_goes_on_where_the_run_failed
    test_items = FanOutConformance.test_each_item_of_a_loop_in_a_loop_has_a_record
    test_failed_items = FanOutConformance.test_what_follows_a_failed_item_does_not_run
    test_items_left_out = FanOutConformance.test_an_item_that_was_left_out_has_failed
    test_attempts_of_items = FanOutConformance.test_each_item_is_tried_again_by_itself
    test_branches = BranchConformance.test_branches_in_loops_and_loops_in_branches
    test_joins = BranchConformance.test_a_failure_in_the_taken_branch_fails_the_run_and_the_join
    test_handlers = RunIfConformance.test_what_handles_a_failure_and_what_follows_it_complete
    test_clean_up = CleanupConformance.test_clean_up_after_a_failure
    test_called_pipelines = SubPipelineConformance.test_steps_bear_the_names_of_the_pipelines_around_them
    test_groups = ExecutionGroupConformance.test_each_item_of_a_group_has_steps_of_its_own

    has_stopped, beats = FailureConformance.has_stopped, FailureConformance.beats
    retried = RetryConformance.retried

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, kfp_api: Any) -> Iterator[Callable[..., Orchestrator]]:
        if kfp_api.state is None:
            pytest.skip("a real server is of one release")
        kfp_api.state.version, before = "2.16.0", kfp_api.state.version
        yield kfp_api.orchestrator
        kfp_api.state.version = before
