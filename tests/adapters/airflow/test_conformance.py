"""The suite of every orchestrator, on a real Airflow 3.3; ``test_conformance2`` runs a part of it on 2.11."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowyml.testing import OrchestratorConformance
from flowyml_airflow import AirflowOrchestrator
from tests.adapters.airflow.operating import set_connection
from tests.adapters.airflow.suite import OnAirflow, maker
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


class TestAirflow(OnAirflow, OrchestratorConformance):
    """Nothing is left out."""

    run_ids_span_pipelines = False  # they are those of one DAG

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, airflow3: Airflow) -> Callable[..., AirflowOrchestrator]:
        return maker(airflow3)

    @pytest.fixture(scope="class")
    @classmethod
    def keep_secret(cls, airflow3: Airflow) -> Callable[[str, str], None]:
        """The password of a connection."""

        def keep(reference: str, value: str) -> None:
            set_connection(airflow3, reference.partition("/")[0], conn_type="generic", password=value)

        return keep
