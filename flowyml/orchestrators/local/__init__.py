"""Run pipelines on this machine: in the caller's process, or in a separate one when submitted."""

from flowyml.orchestrators.local.orchestrator import LocalOrchestrator

__all__ = ["LocalOrchestrator"]
