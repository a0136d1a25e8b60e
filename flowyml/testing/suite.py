"""The requirements for every orchestrator, as tests. The package's docstring says how to use them."""

from __future__ import annotations

from flowyml.testing.artifacts import ArtifactConformance
from flowyml.testing.branches import BranchConformance
from flowyml.testing.caching import CachingConformance
from flowyml.testing.cleanup import CleanupConformance, RunIfConformance
from flowyml.testing.deployments import DeploymentConformance, ScheduleConformance
from flowyml.testing.failures import FailureConformance
from flowyml.testing.lifecycle import LifeConformance
from flowyml.testing.loops import FanOutConformance
from flowyml.testing.nesting import SubPipelineConformance
from flowyml.testing.retries import ExecutionGroupConformance, RetryConformance
from flowyml.testing.runs import RunConformance
from flowyml.testing.secrets import SecretConformance

__all__ = ["ControlFlowConformance", "OrchestratorConformance"]


class ControlFlowConformance(
    FanOutConformance, BranchConformance, RunIfConformance, CleanupConformance, SubPipelineConformance
):
    """Loops, branches, steps that run although a step failed, clean-up, and pipelines in pipelines."""


class OrchestratorConformance(
    RunConformance,
    FailureConformance,
    LifeConformance,
    ControlFlowConformance,
    ExecutionGroupConformance,
    RetryConformance,
    SecretConformance,
    CachingConformance,
    ArtifactConformance,
    DeploymentConformance,
    ScheduleConformance,
):
    """The whole suite. Subclass it and override the fixture ``make_orchestrator``."""
