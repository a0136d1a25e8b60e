"""Run pipelines on this machine: in the caller's process, or submitted to a process of their own."""

from flowyml.orchestrators.local.orchestrator import LocalOrchestrator

__all__ = ["LocalOrchestrator"]
