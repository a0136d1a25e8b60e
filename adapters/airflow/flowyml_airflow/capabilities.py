"""What Airflow can do. Imports no Airflow."""

from __future__ import annotations

from flowyml.core.capabilities import Capabilities, Feature, partly, yes

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    "airflow",
    dict.fromkeys(Feature, yes)
    | {
        Feature.RESOURCES_CPU_MEMORY: partly("Reserved by the KubernetesExecutor; other executors do not look at it."),
        Feature.RESOURCES_GPU: partly("Reserved by the KubernetesExecutor; other executors do not look at it."),
    },
)
