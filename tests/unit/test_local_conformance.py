"""The local orchestrator keeps the promises that every orchestrator makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.local.schedule_server import serve_schedules
from flowyml.testing import (
    BranchConformance,
    CleanupConformance,
    ExecutionGroupConformance,
    FanOutConformance,
    FiringConformance,
    OrchestratorConformance,
    RandomFlowConformance,
    RetryConformance,
    RunIfConformance,
)


@pytest.mark.processes
class TestLocal(OrchestratorConformance):
    compiles_files = False
    step_timeout = 8

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Orchestrator]:
        store = tmp_path_factory.mktemp("store") / "runs.db"
        return lambda **options: LocalOrchestrator(store=store, **options)


@pytest.mark.processes
class TestControlFlowInProcesses(RandomFlowConformance, ExecutionGroupConformance):
    """Each step in a process of its own. A selection, for the same code decides what runs: what may differ is how
    values travel, and how a process fails, is tried again and is stopped.
    """

    test_items = FanOutConformance.test_each_item_has_a_record_with_its_index
    test_nested_items = FanOutConformance.test_a_loop_in_a_loop
    test_logs = FanOutConformance.test_lines_of_a_log_name_their_item
    test_limits = FanOutConformance.test_no_more_items_at_a_time_than_asked_for
    test_failed_items = FanOutConformance.test_what_follows_a_failed_item_does_not_run
    test_items_left_out = FanOutConformance.test_items_that_failed_are_left_out
    test_tried_again = FanOutConformance.test_each_item_is_tried_again_by_itself
    test_timeouts = FanOutConformance.test_each_item_has_a_timeout_of_its_own
    test_large_values = FanOutConformance.test_large_values_pass_through_a_loop
    test_hooks = FanOutConformance.test_hooks_see_each_item_and_nothing_that_is_skipped
    test_conditions = BranchConformance.test_a_condition
    test_conditions_that_raise = BranchConformance.test_a_condition_that_raises_fails_the_run
    test_joins = BranchConformance.test_a_join_gives_what_came_to_be
    test_handlers = RunIfConformance.test_what_handles_a_failure_and_what_follows_it_complete
    test_clean_up = CleanupConformance.test_clean_up_after_a_failure
    test_clean_up_after_a_timeout = CleanupConformance.test_clean_up_after_a_timeout
    test_clean_up_after_a_cancellation = CleanupConformance.test_clean_up_after_a_cancellation
    test_retries = RetryConformance.test_a_retry_runs_the_failed_items_of_a_loop

    step_timeout = 8
    has_tidied = CleanupConformance.has_tidied
    retried = RetryConformance.retried

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Orchestrator]:
        store = tmp_path_factory.mktemp("store") / "runs.db"
        return lambda **options: LocalOrchestrator(store=store, workers="processes", **options)


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*nothing will fire.*:UserWarning")  # its server has just begun
class TestFiring(FiringConformance):
    every = 1

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Orchestrator]]:
        store, stop = tmp_path_factory.mktemp("store") / "runs.db", Event()
        server = Thread(target=serve_schedules, args=(store, stop), kwargs={"poll_seconds": 0.1})
        server.start()
        yield lambda **options: LocalOrchestrator(store=store, **options)
        stop.set()
        server.join()
