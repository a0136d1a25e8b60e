"""FlowyML on Airflow: ``AirflowOrchestrator``, and ``external_dag`` and ``run_dag`` for DAGs that exist already.

``airflow_operator`` is for steps that are operators of Airflow's own, ``imported`` and ``xcom`` for their arguments.

Importing this package imports neither Airflow, nor its client, nor httpx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["AirflowOrchestrator", "airflow_operator", "external_dag", "imported", "run_dag", "xcom"]

_MODULES = {
    "AirflowOrchestrator": "orchestrator",
    "airflow_operator": "operators",
    "external_dag": "external",
    "imported": "operators",
    "run_dag": "external",
    "xcom": "operators",
}

if TYPE_CHECKING:
    from flowyml_airflow.external import external_dag, run_dag
    from flowyml_airflow.operators import airflow_operator, imported, xcom
    from flowyml_airflow.orchestrator import AirflowOrchestrator


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
