"""Orchestrators of the one real Prefect that all tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flowyml_prefect import PrefectOrchestrator
from tests.engines.prefect import PrefectServer

MakeOrchestrator = Callable[..., PrefectOrchestrator]


@pytest.fixture(scope="session")
def make_prefect(prefect: PrefectServer) -> Iterator[MakeOrchestrator]:
    """Makes orchestrators of the session's server, and closes their connections at the end."""
    made: list[PrefectOrchestrator] = []

    def make(**options: object) -> PrefectOrchestrator:
        made.append(PrefectOrchestrator(prefect.url, **options))  # type: ignore[arg-type]  # whatever a test wants
        return made[-1]

    yield make
    for orchestrator in made:
        orchestrator.close()


@pytest.fixture(scope="session")
def orchestrator(make_prefect: MakeOrchestrator) -> PrefectOrchestrator:
    return make_prefect()
