"""The suite of every orchestrator, on a real Airflow 3.3; its control flow on a real Airflow 2.11 too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.testing import (
    BranchConformance,
    CachingConformance,
    CleanupConformance,
    ExecutionGroupConformance,
    FanOutConformance,
    OrchestratorConformance,
    RunIfConformance,
    SubPipelineConformance,
)
from flowyml.testing.base import Conformance
from flowyml_airflow import AirflowOrchestrator
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


_REFUSED = {
    **dict.fromkeys(
        ("conformance rows", "conformance nested rows", "conformance rows without list"),
        "does not expand a task group within an expanded one",
    ),
    "conformance tidied late": "runs no teardown when a run has taken too long",
}


class TestAirflow(OrchestratorConformance):
    """Nothing is left out."""

    refused = _REFUSED
    run_ids_span_pipelines = False  # they are those of one DAG
    scheduling_again_resumes = True  # it deploys the DAG and unpauses it
    limits_each_step = True  # max_active_tis_per_dagrun is a task's own

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, airflow3: Airflow) -> Callable[..., AirflowOrchestrator]:
        return _maker(airflow3)

    @pytest.fixture(scope="class")
    @classmethod
    def keep_secret(cls, airflow3: Airflow) -> Callable[[str, str], None]:
        """The password of a connection."""

        def keep(reference: str, value: str) -> None:
            name = reference.partition("/")[0]
            airflow3.command(
                "connections", "add", name, "--conn-type", "generic", "--conn-password", value, check=False
            )  # there since the last try

        return keep


class TestCachingOnAirflow2(CachingConformance):
    """Two runs or three, of some seconds a task."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, airflow2: Airflow) -> Callable[..., AirflowOrchestrator]:
        return _maker(airflow2)


class TestControlFlowOnAirflow2(Conformance):
    """A selection: with SQLite it runs one task at a time, each in some seconds."""

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
    test_by_names = SubPipelineConformance.test_the_branch_that_is_taken_by_names

    refused = _REFUSED
    limits_each_step = True

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, airflow2: Airflow) -> Callable[..., AirflowOrchestrator]:
        return _maker(airflow2)


def _maker(airflow: Airflow) -> Callable[..., AirflowOrchestrator]:
    def make(**options: Any) -> AirflowOrchestrator:
        return AirflowOrchestrator(
            airflow.url, username=airflow.username, password=airflow.password, dags_folder=airflow.dags_folder,
            **options,
        )  # fmt: skip

    return make
