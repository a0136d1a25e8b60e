"""Run pipelines on this machine: in the caller's process, or submitted to a process of their own."""

from flowyml.orchestrators.local.orchestrator import LocalOrchestrator
from flowyml.orchestrators.local.schedules import serve_schedules

__all__ = ["LocalOrchestrator", "serve_schedules"]
