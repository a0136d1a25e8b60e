"""Airflows for all tests here: a real 3 and a real 2.11, which a test leaves as it found them, and a frail 3.

What is mostly waiting, for an interval of a schedule or for Airflow to find that something died, begins before the
first test and goes on beside the others: see ``BESIDE``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from flowyml.core.submission_result import SubmissionResult
from tests.adapters.airflow.operating import orchestrator_of
from tests.adapters.airflow.stopping import stopping
from tests.engines import airflow as engines
from tests.engines.prefect import PrefectServer

_RUNNING = pytest.StashKey[dict[str, engines.Airflow]]()
BESIDE = ("cutovers", "shadows", "killed_supervisor", "late_runs")
FRAIL = {
    # Tokens end after 5 seconds, and 10 of grace.
    "AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME": "5",
    # A scheduler that died is found after seconds rather than, by default, up to 10 minutes.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    # An API server takes longer to start on a busy machine than a worker waits for it by default.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
    # A changed DAG is shown after a while, as by default.
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "15",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    # The parameters of a run reach its steps all the same: ``test_late_versions``.
    "AIRFLOW__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS": "False",
}


def _with_xcom_backend(folder: Path) -> dict[str, str]:
    """Settings that keep values of 100,000 bytes and more in a folder, and no XCom of any other test."""
    return {
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": (folder / "xcoms").as_uri(),
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "100000",
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what needs no Airflow, then what needs Airflow 2, then Airflow 3 alone, then the frail one.

    The two are up together for a while only. What goes on beside other tests is looked at as late as that permits.
    """
    engines_in_order = ("airflow2", "airflow3", "frail3")
    items.sort(
        key=lambda item: (
            next((engines_in_order.index(name) + 1 for name in engines_in_order if _uses(item, name)), 0),
            _goes_on_beside(item),
        )
    )


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Stop an Airflow after the last test that needs it: a scheduler without work takes a tenth of a processor."""
    for name, airflow in item.session.stash.get(_RUNNING, {}).items():
        if item is [each for each in item.session.items if _uses(each, name)][-1]:
            airflow.kill_all()


def _uses(item: pytest.Item, engine: str) -> bool:
    """By the name of a fixture, or by a parameter that is looked up as one."""
    if not isinstance(item, pytest.Function):
        return False
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return engine in item.fixturenames or any(isinstance(value, str) and value == engine for value in given)


def _goes_on_beside(item: pytest.Item) -> bool:
    return any(_uses(item, name) for name in BESIDE)


@pytest.fixture(scope="session")
def airflow3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    settings = {
        "FLOWYML_AIRFLOW_USERNAME": engines.USERNAME, "FLOWYML_AIRFLOW_PASSWORD": engines.PASSWORD,  # on its workers
        # A task that died is found after a minute rather than, by default, up to 5.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    }  # fmt: skip
    with engines.airflow3(tmp_path_factory.mktemp("engine"), settings) as airflow:
        request.session.stash.setdefault(_RUNNING, {})["airflow3"] = airflow
        yield airflow


@pytest.fixture(scope="session")
def airflow2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    folder = tmp_path_factory.mktemp("engine")
    settings = {**_with_xcom_backend(folder), "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "True"}
    with engines.airflow2(folder, settings) as airflow:
        request.session.stash.setdefault(_RUNNING, {})["airflow2"] = airflow
        yield airflow


@pytest.fixture(scope="session")
def frail3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    """The processes of this one are killed and started again. It comes last, when the other ones have ended."""
    folder = tmp_path_factory.mktemp("frail")
    with engines.airflow3(folder, {**FRAIL, **_with_xcom_backend(folder)}) as airflow:
        yield airflow


@pytest.fixture(scope="session", autouse=True)
def _what_goes_on_beside(request: pytest.FixtureRequest) -> None:
    """Begin what the selected tests will ask for."""
    for name in BESIDE:
        if any(_uses(item, name) for item in request.session.items):
            request.getfixturevalue(name)


@pytest.fixture(scope="session")
def beside() -> Iterator[ThreadPoolExecutor]:
    """Threads beside the one that runs the tests."""
    threads = ThreadPoolExecutor()
    yield threads
    threads.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def pool(prefect: PrefectServer) -> Iterator[str]:
    """A work pool of Prefect, with a worker."""
    with prefect.worker("moved"):
        yield "moved"


@pytest.fixture(scope="session")
def cutovers(
    beside: ThreadPoolExecutor, airflow3: engines.Airflow, airflow2: engines.Airflow, prefect: PrefectServer, pool: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Future[None]]:  # fmt: skip
    """The schedules of ``test_cutover`` on their way to another engine and back."""
    from tests.adapters.airflow.test_cutover import there_and_back

    folder = tmp_path_factory.mktemp("cutovers")
    ways = ((airflow3, "new"), (airflow3, "local"), (airflow2, "local"))
    return [beside.submit(there_and_back, airflow, to, prefect.url, pool, folder) for airflow, to in ways]


@pytest.fixture(scope="session")
def shadows(
    beside: ThreadPoolExecutor, airflow3: engines.Airflow, airflow2: engines.Airflow, prefect: PrefectServer, pool: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Future[None]]:  # fmt: skip
    """The DAGs of ``test_shadow``, each with a pipeline beside it."""
    from tests.adapters.airflow.test_shadow import side_by_side

    folder = tmp_path_factory.mktemp("shadows")
    return [beside.submit(side_by_side, airflow, prefect.url, pool, folder) for airflow in (airflow3, airflow2)]


@pytest.fixture(scope="session")
def killed_supervisor(
    beside: ThreadPoolExecutor, airflow3: engines.Airflow, tmp_path_factory: pytest.TempPathFactory
) -> Future[None]:
    """The run of ``test_worker_killed`` whose task Airflow has to give up."""
    from tests.adapters.airflow.test_worker_killed import the_next_attempt_is_alone

    return beside.submit(the_next_attempt_is_alone, airflow3, tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="session")
def late_runs(
    airflow3: engines.Airflow, airflow2: engines.Airflow, tmp_path_factory: pytest.TempPathFactory
) -> list[SubmissionResult]:
    """Runs of ``test_stopped`` that take longer than they may."""
    made, folder = stopping("stopped late", tidies=False, timeout=25), str(tmp_path_factory.mktemp("late"))
    return [orchestrator_of(each).run_pipeline(made, parameters={"folder": folder}) for each in (airflow3, airflow2)]
