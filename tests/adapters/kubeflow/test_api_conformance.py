"""What every orchestrator promises, over KFP's API."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.errors import RetryRefusedError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import (
    OrchestratorConformance,
    RandomFlowConformance,
    pipelines,
    pipelines_cleanup,
)
from flowyml.testing.base import Done, wait_until
from flowyml.testing.retries import items_fail_once, together_fails_once
from tests.engines.kubeflow_calls import OVER_THE_API

pytestmark = OVER_THE_API


class OverTheApi(OrchestratorConformance):
    """The whole suite, on every release."""

    joins_beside_failures = False  # KFP starts nothing that waits for a task that failed
    counts_retries = False  # KFP forgets the pods that it runs again
    asks_the_cancelled = False  # KFP's launcher, which gets the signal, does not pass it on
    finds_missing_secrets = False  # they are in the cluster, which KFP's API shows nothing of
    steps_per_run = 40  # a workflow of KFP 2.17 has room for no more, where many of them are in loops

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

    @classmethod
    def engine_options(cls, folder: str) -> Mapping[str, Any]:
        """Values go to the store of a real server's tests, where this machine can read them."""
        store = os.environ.get("FLOWYML_TEST_KFP_STORE", f"{folder}/store")
        return {"kubeflow": {"env": {"FLOWYML_ARTIFACTS": store}}}

    @pytest.fixture(scope="class")
    @classmethod
    def new_folder(cls, new_shared: Callable[[], Path]) -> Callable[[], str]:
        return lambda: str(new_shared())

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, kfp_api: Any) -> Callable[..., Orchestrator]:
        make: Callable[..., Orchestrator] = kfp_api.orchestrator
        return make

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


class TestConformanceOverTheApi(OverTheApi, RandomFlowConformance):
    """On a real server, or the fake in the mode of a stock KFP 2.17."""


class TestConformanceIn216(OverTheApi):
    """The same on a KFP up to 2.16, where a task has one node."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, kfp_api: Any) -> Iterator[Callable[..., Orchestrator]]:
        if kfp_api.state is None:
            pytest.skip("a real server is of one release")
        kfp_api.state.version, before = "2.16.0", kfp_api.state.version
        yield kfp_api.orchestrator
        kfp_api.state.version = before
