"""The names of this package in a pod, for modules that make an orchestrator when they are loaded.

In a bundle this file can replace ``flowyml_kubeflow/__init__.py``: the pod then has no orchestrators.
"""

from __future__ import annotations

from flowyml.runtime.definition_parts import Engine

__all__ = ["KubeflowLocalOrchestrator", "KubeflowOrchestrator", "token_of"]

KubeflowLocalOrchestrator = KubeflowOrchestrator = token_of = Engine
