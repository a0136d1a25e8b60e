"""A selection of the conformance suite on KFP's official local runner. The fake of KFP's API runs all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import (
    ArtifactConformance,
    CleanupConformance,
    ExecutionGroupConformance,
    FailureConformance,
    FanOutConformance,
    LifeConformance,
    RunConformance,
    SecretConformance,
)
from flowyml.testing.base import Conformance
from flowyml_kubeflow import KubeflowLocalOrchestrator

pytestmark = pytest.mark.kubeflow


class TestSubprocessRunner(Conformance):
    keep_secret, kept = SecretConformance.keep_secret, SecretConformance.kept
    needs_run_ids = LifeConformance.needs_run_ids
    has_started, has_stopped = FailureConformance.has_started, FailureConformance.has_stopped
    beats = FailureConformance.beats

    test_plain_steps = RunConformance.test_a_run_completes_and_gives_its_outputs
    test_logs = RunConformance.test_logs_hold_what_a_step_printed
    test_names = RunConformance.test_names_cannot_break_out
    test_failures = FailureConformance.test_a_failure_is_reported_and_stops_only_what_depends_on_it
    test_step_timeout = FailureConformance.test_a_step_timeout_stops_the_work
    test_pipeline_timeout = FailureConformance.test_a_pipeline_timeout_stops_the_work
    test_artifacts = ArtifactConformance.test_the_next_step_reads_files_and_folders
    test_secrets = SecretConformance.test_an_argument_and_a_variable_are_filled
    test_hooks = LifeConformance.test_hooks_see_a_run_that_fails
    test_run_id = LifeConformance.test_the_same_run_id_is_the_same_run
    test_failed_items = FanOutConformance.test_what_follows_a_failed_item_does_not_run
    test_clean_up = CleanupConformance.test_clean_up_after_a_failure
    test_groups = ExecutionGroupConformance.test_each_item_of_a_group_has_steps_of_its_own

    joins_beside_failures = False  # KFP starts nothing that waits for a task that failed

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls) -> Callable[..., Orchestrator]:
        def make(**options: Any) -> Orchestrator:
            return KubeflowLocalOrchestrator(runner="subprocess", **options)

        return make

    def test_cancel_stops_the_work(self, orchestrator: Orchestrator, folder: str) -> None:
        FailureConformance.test_cancel_stops_the_work(self, orchestrator, folder)  # type: ignore[arg-type]  # has its parts
        run = orchestrator.runs("conformance beating", limit=1)[0]
        assert run.error == "The run was cancelled."
        assert [step.error for step in orchestrator.step_runs(run.job_id)] == ["The run was cancelled."]

    def test_results_are_kept(self, orchestrator: Orchestrator, folder: str) -> None:
        @step(cache=True)
        def counts(ran: str) -> int:
            with Path(ran).open("a") as file:
                return file.write("x")

        made = Pipeline("conformance kept", context={"ran": f"{folder}/ran"}).add_step(counts)
        first, second = (self.finish(orchestrator.run_pipeline(made)) for _ in range(2))
        assert [run.cached_from for run in second.step_runs()] == [first.run_id]
        assert (second.status, second.outputs) == (ExecutionStatus.COMPLETED, {"counts": 1})
        assert (Path(folder) / "ran").read_text() == "x"
