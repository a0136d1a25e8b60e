"""Orchestrators of the one real Prefect that all tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flowyml.core.submission_result import SubmissionResult
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.automations import HEARTBEAT
from tests.adapters.prefect.samples import run_processes, sleeping, step_process
from tests.engines.prefect import PrefectServer
from tests.waiting import wait_until

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


@pytest.fixture(scope="session")
def abandoned(make_prefect: MakeOrchestrator, tmp_path_factory: pytest.TempPathFactory) -> SubmissionResult:
    """A run whose keeper and flow are both killed, as when its machine stops.

    It is made before most tests and looked at after them, since Prefect takes a minute and a half to notice.
    """
    folder = tmp_path_factory.mktemp("abandoned")
    orchestrator = make_prefect()
    handle = orchestrator.run_pipeline(sleeping(str(folder), 600))
    step_process(folder)
    heartbeats = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{handle.job_id}"]}}
    wait_until(lambda: orchestrator.client.call("POST", "/events/filter", json={"filter": heartbeats})["events"])
    for process in run_processes(handle):
        process.kill()
    return handle
