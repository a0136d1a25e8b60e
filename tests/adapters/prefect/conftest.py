"""Orchestrators of the one real Prefect that all tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from flowyml.core.submission_result import SubmissionResult
from flowyml_prefect import PrefectOrchestrator, reader
from flowyml_prefect.automations import HEARTBEAT
from tests.adapters.prefect.samples import cleans_up, run_processes, sleeping, step_process
from tests.engines.prefect import PrefectServer
from tests.waiting import wait_until

MakeOrchestrator = Callable[..., PrefectOrchestrator]
Endings = Mapping[str, tuple[SubmissionResult, Path]]


@pytest.fixture(scope="session", autouse=True)
def _patient() -> Iterator[None]:
    """With what Prefect records of an ended run, also where a machine stalls; what is whole is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_LAG", "_LAG_OF_TASKS"):
            patch.setattr(reader, name, timedelta(minutes=10))
        yield


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
def abandoned(make_prefect: MakeOrchestrator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubmissionResult]:
    """A run whose keeper and flow are both killed, as when its machine stops.

    It is made before most tests and looked at after them: its first heartbeat takes half a minute, and Prefect a minute
    and a half more to notice.
    """
    folder = tmp_path_factory.mktemp("abandoned")
    orchestrator = make_prefect()
    handle = orchestrator.run_pipeline(sleeping(str(folder), 600))
    heartbeats = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{handle.job_id}"]}}

    def abandon() -> None:
        step_process(folder)
        wait_until(lambda: orchestrator.client.call("POST", "/events/filter", json={"filter": heartbeats})["events"])
        for process in run_processes(handle):
            process.kill()

    with ThreadPoolExecutor(1) as thread:
        abandoning = thread.submit(abandon)
        yield handle
        abandoning.result()


@pytest.fixture(scope="session")
def cleaning_up(make_prefect: MakeOrchestrator, tmp_path_factory: pytest.TempPathFactory) -> Endings:
    """Two runs that end while a step works and another one sleeps before its next attempt: by cancellation, and by a
    timeout. With the folders of their clean-up.

    They too are made before most tests, since their processes are given half a minute to end.
    """
    found = {}
    for ending, timeout in (("cancel", None), ("timeout", 90)):
        folder = tmp_path_factory.mktemp(ending)
        pipeline = cleans_up(f"prefect clean up after {ending}", str(folder), timeout)
        found[ending] = pipeline.submit(on=make_prefect()), folder
    for _, folder in found.values():
        wait_until((folder / "begun").exists)
    found["cancel"][0].cancel()
    return found
