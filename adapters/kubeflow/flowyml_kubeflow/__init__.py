"""Kubeflow Pipelines 2: ``KubeflowOrchestrator`` for a cluster, ``KubeflowLocalOrchestrator`` for this machine.

``token_of`` is for credentials that are objects of ``kfp.client``.

Importing this package imports nothing of KFP.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["KubeflowLocalOrchestrator", "KubeflowOrchestrator", "token_of"]

_MODULES = {
    "KubeflowOrchestrator": "orchestrator",
    "KubeflowLocalOrchestrator": "local.orchestrator",
    "token_of": "connection",
}

if TYPE_CHECKING:
    from flowyml_kubeflow.connection import token_of
    from flowyml_kubeflow.local.orchestrator import KubeflowLocalOrchestrator
    from flowyml_kubeflow.orchestrator import KubeflowOrchestrator


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
