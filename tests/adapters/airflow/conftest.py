"""Airflows for all tests here: a real 3 and a real 2.11, which a test leaves as it found them, and a frail 3.

A test that mostly waits (for an interval of a schedule, or until Airflow finds that something died) is marked
``beside``: it begins with the first test that needs an Airflow, in a thread, and its turn is to wait for its end. Its
fixtures are those of the session, and a folder as ``tmp_path``. The others change the environment meanwhile.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from inspect import signature
from pathlib import Path

import pytest

from tests.engines import airflow as engines
from tests.engines.prefect import PrefectServer
from tests.waiting import wait_until

_RUNNING = pytest.StashKey[dict[str, engines.Airflow]]()
_BEGUN = pytest.StashKey[Future[None]]()
_IN_ORDER = ("airflow2", "airflow3", "frail3")
_LONG = 6  # of those beside others take minutes, for schedules that fire every second minute
FRAIL = {
    # Tokens end after 5 seconds, and 10 of grace.
    "AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME": "5",
    # A scheduler that died is found after seconds rather than, by default, up to 10 minutes.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    # An API server takes longer to start on a busy machine than a worker waits for it by default.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "20",
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


def _with_repository(folder: Path) -> dict[str, str]:
    """Settings of a second folder of DAGs, in a git repository with one empty commit: ``test_git_bundle``."""
    checkout, bare = folder / "first", folder / "repository.git"
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (
        ("init", "-q", "-b", "main", checkout),
        ("-C", checkout, *author, "commit", "-q", "--allow-empty", "-m", "Begin"),
        ("clone", "-q", "--bare", checkout, bare),
    ):
        subprocess.run(["git", *command], check=True)
    bundles = [
        {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
        {
            "name": "repository",
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {"repo_url": str(bare), "tracking_ref": "main", "subdir": "dags", "refresh_interval": 5},
        },
    ]
    return {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(folder / "bundles"),
    }


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "beside: begins with the first test of an Airflow, in a thread")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what needs no Airflow, then what needs Airflow 2, then Airflow 3 alone, then the frail one.

    The two are up together for a while only. What goes on beside other tests is looked at as late as that permits.
    """
    items.sort(
        key=lambda item: (
            next((place for place, name in enumerate(_IN_ORDER, 1) if _uses(item, name)), 0),
            item.get_closest_marker("beside") is not None,
        )
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    begun = pyfuncitem.stash.get(_BEGUN, None)
    if begun is None:
        return None
    begun.result()
    return True


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Stop an Airflow after the last test that needs it: a scheduler without work takes a twentieth of a processor."""
    for name, airflow in item.session.stash.get(_RUNNING, {}).items():
        if item is [each for each in item.session.items if _uses(each, name)][-1]:
            airflow.kill_all()


def _uses(item: pytest.Item, engine: str) -> bool:
    """By the name of a fixture, or by a parameter that is looked up as one."""
    if not isinstance(item, pytest.Function):
        return False
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return engine in item.fixturenames or any(isinstance(value, str) and value == engine for value in given)


@pytest.fixture(scope="session")
def airflow3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    folder = tmp_path_factory.mktemp("engine")
    settings = {
        **_with_repository(folder),
        "FLOWYML_AIRFLOW_USERNAME": engines.USERNAME, "FLOWYML_AIRFLOW_PASSWORD": engines.PASSWORD,  # on its workers
        # A task that died is found after a minute rather than, by default, up to 5.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__CORE__PARALLELISM": "6",  # some of the tests beside others hold a slot for long
    }  # fmt: skip
    with engines.airflow3(folder, settings) as airflow:
        request.session.stash.setdefault(_RUNNING, {})["airflow3"] = airflow
        yield airflow


@pytest.fixture(scope="session")
def airflow2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    folder = tmp_path_factory.mktemp("engine")
    settings = {**_with_xcom_backend(folder), "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "True"}
    with engines.airflow2(folder, settings) as airflow:
        request.session.stash.setdefault(_RUNNING, {})["airflow2"] = airflow
        yield airflow


@pytest.fixture(params=["airflow3", "airflow2"])
def airflow(request: pytest.FixtureRequest) -> engines.Airflow:
    """Each of the two."""
    found: engines.Airflow = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def frail3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    """The processes of this one are killed and started again. It comes last, when the other ones have ended."""
    folder = tmp_path_factory.mktemp("frail")
    with engines.airflow3(folder, {**FRAIL, **_with_xcom_backend(folder)}) as airflow:
        yield airflow


@pytest.fixture
def named(airflow3: engines.Airflow, monkeypatch: pytest.MonkeyPatch) -> engines.Airflow:
    """The Airflow that the environment names, here and on the workers that are started from here."""
    for name, value in airflow3.login.items():
        monkeypatch.setenv(name, value)
    return airflow3


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of its Airflow's logs with a failed test: the reason may stand only there."""
    report = yield
    for name, airflow in item.session.stash.get(_RUNNING, {}).items():
        if report.failed and _uses(item, name):
            report.sections += [(f"{name}: {each}", airflow.log(each)[-1500:]) for each in airflow.processes]
    return report


@pytest.fixture(autouse=True)
def _begin_beside(request: pytest.FixtureRequest) -> None:
    """Not before: tests without an Airflow change the environment and the working directory as they like.

    A server that ended by itself is starting again, for some seconds: one test fails for it, not all that follow.
    """
    names = [name for name in _IN_ORDER if _uses(request.node, name)]
    if names:
        request.getfixturevalue("_beside")
    for name in names:
        wait_until(request.getfixturevalue(name).health)


@pytest.fixture(scope="session")
def _beside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Begin the selected tests that are marked so, each with its fixtures."""
    items = [item for item in request.session.items if item.get_closest_marker("beside")]
    with ThreadPoolExecutor(_LONG + 3) as threads:
        for item in items:
            assert isinstance(item, pytest.Function)
            given = dict(item.callspec.params) if hasattr(item, "callspec") else {}
            for name in signature(item.function).parameters:
                if name == "tmp_path":
                    given[name] = tmp_path_factory.mktemp("beside")
                elif given.get(name, name) in (*_IN_ORDER, "prefect", "pool"):
                    given[name] = request.getfixturevalue(given.get(name, name))
            item.stash[_BEGUN] = threads.submit(item.function, **given)
        yield
        threads.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def pool(prefect: PrefectServer) -> Iterator[str]:
    """A work pool of Prefect, with a worker."""
    with prefect.worker("moved"):
        yield "moved"
