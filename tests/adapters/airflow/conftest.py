"""One real Airflow 3 and one 2.11 for all tests here; a test that breaks its Airflow mends it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import airflow as engines


@pytest.fixture(scope="session")
def airflow3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    who = {"FLOWYML_AIRFLOW_USERNAME": engines.USERNAME, "FLOWYML_AIRFLOW_PASSWORD": engines.PASSWORD}  # on its workers
    with engines.airflow3(tmp_path_factory.mktemp("engine"), who) as airflow:
        yield airflow


@pytest.fixture(scope="session")
def airflow2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Airflow]:
    with engines.airflow2(tmp_path_factory.mktemp("engine")) as airflow:
        yield airflow
