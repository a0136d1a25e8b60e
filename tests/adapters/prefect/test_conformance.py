"""Prefect keeps the promises that every orchestrator makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.orchestrators.base import Orchestrator
from flowyml.plan.secrets import slug_of
from flowyml.testing import (
    ArtifactConformance,
    CachingConformance,
    ControlFlowConformance,
    DeploymentConformance,
    ExecutionGroupConformance,
    FailureConformance,
    LifeConformance,
    RandomFlowConformance,
    RetryConformance,
    RunConformance,
    ScheduleConformance,
    SecretConformance,
)
from tests.adapters.prefect.samples import save_secret
from tests.engines.prefect import PrefectServer

pytestmark = pytest.mark.prefect


@pytest.mark.usefixtures("abandoned")
class TestDetachedRuns(RunConformance, FailureConformance, LifeConformance):
    """Without a work pool. (The abandoned run waits beside them for its test among the faults.)"""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect


class TestArtifacts(ArtifactConformance):
    """Without a work pool."""

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


class TestCaching(CachingConformance):
    """Without a work pool."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect


class TestExecutionGroups(ExecutionGroupConformance):
    """Without a work pool."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect


class TestRetries(RetryConformance):
    """Without a work pool."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect


class TestSecrets(SecretConformance):
    """In Secret blocks."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect

    @pytest.fixture(scope="class")
    @classmethod
    def keep_secret(cls, prefect: PrefectServer) -> Callable[[str, str], None]:
        return lambda reference, value: save_secret(prefect, slug_of(reference), value)


class TestDeployments(DeploymentConformance, ScheduleConformance):
    """Deployments and schedules need a work pool, and no worker until they fire."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        make_prefect().client.ensure_process_pool("schedules")
        return lambda **options: make_prefect(work_pool="schedules", **options)
