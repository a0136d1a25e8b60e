"""FlowyML on Airflow: ``AirflowOrchestrator``, and ``external_dag`` for DAGs that exist already.

Importing this package imports neither Airflow, nor its client, nor httpx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["AirflowOrchestrator", "external_dag"]

if TYPE_CHECKING:
    from flowyml_airflow.external import external_dag
    from flowyml_airflow.orchestrator import AirflowOrchestrator


def __getattr__(name: str) -> Any:
    if name == "AirflowOrchestrator":
        from flowyml_airflow.orchestrator import AirflowOrchestrator

        return AirflowOrchestrator
    if name == "external_dag":
        from flowyml_airflow.external import external_dag

        return external_dag
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
