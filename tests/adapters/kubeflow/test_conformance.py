"""The conformance suite on KFP's official local runner, without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import OrchestratorConformance, RandomFlowConformance
from flowyml_kubeflow import KubeflowLocalOrchestrator


@pytest.mark.kubeflow
class TestSubprocessRunner(OrchestratorConformance, RandomFlowConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls) -> Callable[..., Orchestrator]:
        def make(**options: Any) -> Orchestrator:
            return KubeflowLocalOrchestrator(runner="subprocess", **options)

        return make
