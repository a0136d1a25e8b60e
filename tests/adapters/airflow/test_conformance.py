"""The suite of every orchestrator, on a real Airflow 3.3; its control flow on a real Airflow 2.11 too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.testing import ControlFlowConformance, OrchestratorConformance
from flowyml_airflow import AirflowOrchestrator
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


class TestAirflow(OrchestratorConformance):
    """Nothing is left out."""

    run_ids_span_pipelines = False  # they are those of one DAG
    scheduling_again_resumes = True  # it deploys the DAG and unpauses it

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, airflow3: Airflow) -> Callable[..., AirflowOrchestrator]:
        return _maker(airflow3)


@pytest.mark.timeout(1200)
class TestControlFlowOnAirflow2(ControlFlowConformance):
    """With SQLite it runs one task at a time, each in some seconds."""

    run_timeout = 600.0

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, airflow2: Airflow) -> Callable[..., AirflowOrchestrator]:
        return _maker(airflow2)


def _maker(airflow: Airflow) -> Callable[..., AirflowOrchestrator]:
    def make(**options: Any) -> AirflowOrchestrator:
        return AirflowOrchestrator(
            airflow.url, username=airflow.username, password=airflow.password, dags_folder=airflow.dags_folder,
            **options,
        )  # fmt: skip

    return make
