"""The names of ``flowyml.orchestrators`` on a worker, for modules that make an orchestrator when they are loaded.

In a bundle this file can replace ``flowyml/orchestrators/__init__.py``: the worker then has no orchestrators.
"""

from __future__ import annotations

from flowyml.runtime.definition_parts import Engine

__all__ = ["Auth", "LocalOrchestrator", "Orchestrator", "RemoteOrchestrator", "Tls"]

Auth = LocalOrchestrator = Orchestrator = RemoteOrchestrator = Tls = Engine
