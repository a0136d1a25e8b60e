"""FlowyML on Kubeflow Pipelines 2: ``KubeflowOrchestrator``. Importing this package imports nothing of KFP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["KubeflowOrchestrator"]

if TYPE_CHECKING:
    from flowyml_kubeflow.orchestrator import KubeflowOrchestrator


def __getattr__(name: str) -> Any:
    if name == "KubeflowOrchestrator":
        from flowyml_kubeflow.orchestrator import KubeflowOrchestrator

        return KubeflowOrchestrator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
