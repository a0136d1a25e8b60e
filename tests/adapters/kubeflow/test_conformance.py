"""The conformance suite on KFP's official local runner, without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import OrchestratorConformance
from flowyml_kubeflow import KubeflowLocalOrchestrator


@pytest.mark.kubeflow
class TestSubprocessRunner(OrchestratorConformance):
    joins_beside_failures = False  # KFP starts nothing that waits for a task that failed
    compiles_files = shows_differences = False

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls) -> Callable[..., Orchestrator]:
        def make(**options: Any) -> Orchestrator:
            return KubeflowLocalOrchestrator(runner="subprocess", **options)

        return make

    def test_cancel_stops_the_work(self, orchestrator: Orchestrator, folder: str) -> None:
        super().test_cancel_stops_the_work(orchestrator, folder)
        run = orchestrator.runs("conformance beating", limit=1)[0]
        assert run.error == "The run was cancelled."
        assert [step.error for step in orchestrator.step_runs(run.job_id)] == ["The run was cancelled."]
