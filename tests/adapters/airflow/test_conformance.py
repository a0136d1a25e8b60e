"""The suite of every orchestrator, on a real Airflow 3.3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml.testing import OrchestratorConformance
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
        def make(**options: Any) -> AirflowOrchestrator:
            return AirflowOrchestrator(
                airflow3.url, username=airflow3.username, password=airflow3.password,
                dags_folder=airflow3.dags_folder, **options,
            )  # fmt: skip

        return make
