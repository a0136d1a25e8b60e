"""The suite of every orchestrator on a real Airflow 2.11: of what may differ by version."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowyml.testing import (
    BranchConformance,
    CleanupConformance,
    ExecutionGroupConformance,
    FailureConformance,
    FanOutConformance,
    LifeConformance,
    RetryConformance,
    RunIfConformance,
    SubPipelineConformance,
)
from flowyml_airflow import AirflowOrchestrator
from tests.adapters.airflow.suite import OnAirflow, maker
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


class TestAirflow2(OnAirflow):
    """What may differ by version, since Airflow itself decides it: mapped tasks, task groups, branches and trigger
    rules, teardown tasks, its exceptions that end retries, timeouts, and the callbacks of a run's end. What the worker
    does alone (values, secrets, caching, artifacts) is the same code on both.
    """

    test_blocks = FanOutConformance.test_several_steps_for_each_item
    test_empty_blocks = FanOutConformance.test_every_step_of_a_loop_over_nothing_completes
    test_failed_items = FanOutConformance.test_what_follows_a_failed_item_does_not_run
    test_lists_of_failed_loops = FanOutConformance.test_what_takes_the_list_of_a_loop_that_failed_does_not_run
    test_joins = BranchConformance.test_a_failure_in_the_taken_branch_fails_the_run_and_the_join
    test_neighbours = BranchConformance.test_a_join_of_two_choices_has_what_one_of_them_gave_though_the_other_failed
    test_groups = ExecutionGroupConformance.test_each_item_of_a_group_has_steps_of_its_own
    test_skips = BranchConformance.test_a_skip_beside_a_failure_is_still_a_skip
    test_handlers = RunIfConformance.test_what_handles_a_failure_and_what_follows_it_complete
    test_verdicts = RunIfConformance.test_a_failure_that_was_handled_still_fails_the_run
    test_clean_up = CleanupConformance.test_clean_up_after_a_failure
    test_failed_clean_up = CleanupConformance.test_a_clean_up_that_fails_does_not_hide_why_the_run_failed
    test_nested = SubPipelineConformance.test_a_failure_in_such_a_pipeline_stops_what_depends_on_it
    test_final_errors = FailureConformance.test_only_errors_that_are_worth_it_are_retried
    test_new_code = RetryConformance.test_a_retry_with_new_code_takes_what_fits
    test_timeouts = FailureConformance.test_a_step_timeout_stops_the_work
    has_stopped, beats = FailureConformance.has_stopped, FailureConformance.beats
    test_hooks = LifeConformance.test_hooks_see_a_run_that_fails

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, airflow2: Airflow) -> Callable[..., AirflowOrchestrator]:
        return maker(airflow2)
