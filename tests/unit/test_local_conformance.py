"""The local orchestrator keeps the promises that every orchestrator makes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import (
    ControlFlowConformance,
    ExecutionGroupConformance,
    OrchestratorConformance,
    RandomFlowConformance,
    RetryConformance,
)


@pytest.mark.processes
class TestLocal(OrchestratorConformance):
    compiles_files = False

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Orchestrator]:
        store = tmp_path_factory.mktemp("store") / "runs.db"
        return lambda **options: LocalOrchestrator(store=store, **options)


@pytest.mark.processes
class TestControlFlowInProcesses(
    ControlFlowConformance, RandomFlowConformance, RetryConformance, ExecutionGroupConformance
):
    """Each step in a process of its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Orchestrator]:
        store = tmp_path_factory.mktemp("store") / "runs.db"
        return lambda **options: LocalOrchestrator(store=store, workers="processes", **options)
