"""FlowyML on Prefect 3: ``PrefectOrchestrator``. Importing this package imports neither Prefect nor httpx."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["PrefectOrchestrator"]

if TYPE_CHECKING:
    from flowyml_prefect.orchestrator import PrefectOrchestrator


def __getattr__(name: str) -> Any:
    if name == "PrefectOrchestrator":
        return import_module("flowyml_prefect.orchestrator").PrefectOrchestrator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
