"""What the conformance tests of both Airflows share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowyml.core.submission_result import SubmissionResult
from flowyml.testing.base import Conformance
from flowyml_airflow import AirflowOrchestrator
from tests.engines.airflow import Airflow

__all__ = ["OnAirflow", "maker"]

_REFUSED = {
    **dict.fromkeys(
        ("conformance rows", "conformance nested rows", "conformance rows without list"),
        "does not expand a task group within an expanded one",
    ),
    "conformance tidied late": "runs no teardown when a run has taken too long",
}


class OnAirflow(Conformance):
    """What holds for each Airflow."""

    refused = _REFUSED
    limits_each_step = True  # max_active_tis_per_dagrun is a task's own

    @classmethod
    def finish(cls, handle: SubmissionResult) -> SubmissionResult:
        """Ask now and then: each question takes a good part of what a step takes of a processor."""
        return handle.wait_for_completion(timeout=cls.run_timeout, poll_interval=1)


def maker(airflow: Airflow) -> Callable[..., AirflowOrchestrator]:
    """What makes orchestrators for an Airflow."""

    def make(**options: Any) -> AirflowOrchestrator:
        return AirflowOrchestrator(
            airflow.url, dags_folder=airflow.dags_folder, **{"auth": (airflow.username, airflow.password), **options},
        )  # fmt: skip

    return make
