"""Prefect keeps the promises that every orchestrator makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowyml.orchestrators.base import Orchestrator
from flowyml.testing.suite import FailureConformance, LifeConformance, RunConformance, ScheduleConformance
from tests.engines.prefect import PrefectServer

pytestmark = pytest.mark.prefect


class TestDetachedRuns(RunConformance, FailureConformance, LifeConformance):
    """Without a work pool."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        return make_prefect


class TestSchedules(ScheduleConformance):
    """Schedules need a work pool, and no worker until they fire."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, make_prefect: Callable[..., Any]) -> Callable[..., Orchestrator]:
        make_prefect().client.ensure_process_pool("schedules")
        return lambda **options: make_prefect(work_pool="schedules", **options)


class TestWorkers:
    """The same promises through a worker, as far as another way of executing could break them."""

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, prefect: PrefectServer, make_prefect: Callable[..., Any]) -> Iterator[Orchestrator]:
        made = make_prefect(work_pool="workers")
        made.client.ensure_process_pool("workers")
        with prefect.worker("workers"):
            yield made
