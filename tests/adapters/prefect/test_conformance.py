"""Prefect keeps the promises that every orchestrator makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import (
    ControlFlowConformance,
    DeploymentConformance,
    FailureConformance,
    LifeConformance,
    RandomFlowConformance,
    RunConformance,
    ScheduleConformance,
)

pytestmark = pytest.mark.prefect


@pytest.mark.usefixtures("abandoned")
class TestDetachedRuns(RunConformance, FailureConformance, LifeConformance):
    """Without a work pool. (The abandoned run waits beside them for its test among the faults.)"""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect


class TestControlFlow(ControlFlowConformance, RandomFlowConformance):
    """Without a work pool."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect


class TestDeployments(DeploymentConformance, ScheduleConformance):
    """Deployments and schedules need a work pool, and no worker until they fire."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        make_prefect().client.ensure_process_pool("schedules")
        return lambda **options: make_prefect(work_pool="schedules", **options)
