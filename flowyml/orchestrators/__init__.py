"""The engines that run pipelines. These classes load on first use, so that importing one engine imports no other."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowyml.core.credentials import Auth
    from flowyml.core.tls import Tls
    from flowyml.orchestrators.base import Orchestrator
    from flowyml.orchestrators.local import LocalOrchestrator
    from flowyml.orchestrators.remote import RemoteOrchestrator

__all__ = ["Auth", "LocalOrchestrator", "Orchestrator", "RemoteOrchestrator", "Tls"]

_HOMES = {
    "Auth": "flowyml.core.credentials",
    "LocalOrchestrator": "flowyml.orchestrators.local",
    "Orchestrator": "flowyml.orchestrators.base",
    "RemoteOrchestrator": "flowyml.orchestrators.remote",
    "Tls": "flowyml.core.tls",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
