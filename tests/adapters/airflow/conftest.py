"""One real Airflow 3 and one 2.11 for all tests here; a test that breaks its Airflow repairs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import airflow as engines

_AIRFLOW2 = pytest.StashKey[engines.Airflow]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what needs Airflow 2 alone, last what needs Airflow 3 alone: the two are up together for a while only."""
    items.sort(key=lambda item: (_uses(item, "airflow3"), _uses(item, "airflow2") != _uses(item, "airflow3")))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop Airflow 2 after the last test that needs it: a scheduler without work takes a tenth of a processor."""
    airflow = item.session.stash.get(_AIRFLOW2, None)
    if airflow and not (nextitem and _uses(nextitem, "airflow2")):
        airflow.kill_all()


def _uses(item: pytest.Item, engine: str) -> bool:
    """By the name of a fixture, or by a parameter that is looked up as one."""
    if not isinstance(item, pytest.Function):
        return False
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return engine in item.fixturenames or any(isinstance(value, str) and value == engine for value in given)


@pytest.fixture(scope="session")
def airflow3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    who = {"FLOWYML_AIRFLOW_USERNAME": engines.USERNAME, "FLOWYML_AIRFLOW_PASSWORD": engines.PASSWORD}  # on its workers
    with engines.airflow3(tmp_path_factory.mktemp("engine"), who) as airflow:
        yield airflow


@pytest.fixture(scope="session")
def airflow2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    with engines.airflow2(tmp_path_factory.mktemp("engine")) as airflow:
        request.session.stash[_AIRFLOW2] = airflow
        yield airflow
