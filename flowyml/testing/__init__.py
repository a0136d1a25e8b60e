"""The conformance kit: test an orchestrator with the suite of the built-in ones.

It needs pytest. In a test module of your adapter::

    from flowyml.testing import OrchestratorConformance

    class TestMyOrchestrator(OrchestratorConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def make_orchestrator(cls):
            return lambda **options: MyOrchestrator(url=..., **options)

If ``capabilities`` lack a feature, the suite tests that a pipeline with it is refused, and reports the test as an
expected failure with the reason. Nothing is skipped. The parts of the suite can also be subclassed one by one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowyml.testing.artifacts import ArtifactConformance
    from flowyml.testing.branches import BranchConformance
    from flowyml.testing.caching import CachingConformance
    from flowyml.testing.cleanup import CleanupConformance, RunIfConformance
    from flowyml.testing.deployments import DeploymentConformance, ScheduleConformance
    from flowyml.testing.failures import FailureConformance
    from flowyml.testing.firing import FiringConformance
    from flowyml.testing.lifecycle import LifeConformance
    from flowyml.testing.loops import FanOutConformance
    from flowyml.testing.nesting import SubPipelineConformance
    from flowyml.testing.random_flows import RandomFlowConformance
    from flowyml.testing.retries import ExecutionGroupConformance, RetryConformance
    from flowyml.testing.runs import RunConformance
    from flowyml.testing.secrets import SecretConformance
    from flowyml.testing.suite import ControlFlowConformance, OrchestratorConformance

__all__ = [
    "ArtifactConformance", "BranchConformance", "CachingConformance", "CleanupConformance", "ControlFlowConformance",
    "DeploymentConformance", "ExecutionGroupConformance", "FailureConformance", "FanOutConformance",
    "FiringConformance", "LifeConformance", "OrchestratorConformance", "RandomFlowConformance", "RetryConformance",
    "RunConformance", "RunIfConformance", "ScheduleConformance", "SecretConformance", "SubPipelineConformance",
]  # fmt: skip

_APART = {"FiringConformance": "firing", "RandomFlowConformance": "random_flows"}  # not part of the whole suite


def __getattr__(name: str) -> Any:
    """Import the suite on demand: workers import this package for its sample pipelines, and have no pytest."""
    if name in __all__:
        return getattr(import_module(f"flowyml.testing.{_APART.get(name, 'suite')}"), name)
    raise AttributeError(f"module 'flowyml.testing' has no attribute {name!r}")
