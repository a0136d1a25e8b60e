"""Prefect keeps the promises that every orchestrator makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.core.submission_result import SubmissionResult
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

pytestmark = pytest.mark.prefect


@pytest.mark.usefixtures("abandoned", "cleaning_up")
class TestRuns(
    RunConformance,
    FailureConformance,
    LifeConformance,
    ArtifactConformance,
    ControlFlowConformance,
    RandomFlowConformance,
    CachingConformance,
    ExecutionGroupConformance,
    RetryConformance,
    SecretConformance,
):
    """Without a work pool, and with secrets in Secret blocks.

    They are one class, so that samples of all topics share runs. (Runs that take long to end do so beside them, for
    tests in other modules.)
    """

    steps_per_run = 300

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect

    @pytest.fixture(scope="class")
    @classmethod
    def keep_secret(cls, make_prefect: Callable[..., Any]) -> Callable[[str, str], None]:
        return lambda reference, value: save_secret(make_prefect().client, slug_of(reference), value)

    @classmethod
    def finish(cls, handle: SubmissionResult) -> SubmissionResult:
        """Until Prefect has recorded all task runs too: lines of a log are told apart by them."""
        handle = super().finish(handle)
        handle.step_runs()
        return handle


class TestDeployments(DeploymentConformance, ScheduleConformance):
    """Deployments and schedules need a work pool, and no worker until they fire."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        make_prefect().client.ensure_process_pool("schedules")
        return lambda **options: make_prefect(work_pool="schedules", **options)
