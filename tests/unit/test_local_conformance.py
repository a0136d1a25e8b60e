"""The local orchestrator keeps the promises that every orchestrator makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.local.schedule_server import serve_schedules
from flowyml.testing import (
    ControlFlowConformance,
    ExecutionGroupConformance,
    FiringConformance,
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


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*nothing will fire.*:UserWarning")  # its server has just begun
class TestFiring(FiringConformance):
    every = 1

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Orchestrator]]:
        store, stop = tmp_path_factory.mktemp("store") / "runs.db", Event()
        server = Thread(target=serve_schedules, args=(store, stop), kwargs={"look_seconds": 0.1})
        server.start()
        yield lambda **options: LocalOrchestrator(store=store, **options)
        stop.set()
        server.join()
