"""What a pipeline's things are called in Prefect: its flow, its deployments and its artifacts."""

from __future__ import annotations

from flowyml.plan.names import slug

__all__ = ["deployment_name", "flow_name", "outputs_key", "plan_key"]

_BANNED_IN_NAMES = frozenset("/%&<>")  # source: prefect.types.names


def flow_name(pipeline: str) -> str:
    """The name of the flow in Prefect: the pipeline's own, unless Prefect forbids one of its characters."""
    return slug(pipeline) if _BANNED_IN_NAMES & set(pipeline) else pipeline


def outputs_key(pipeline: str) -> str:
    """The key of the artifact that holds the outputs of a run."""
    return f"{slug(pipeline)}-outputs"


def plan_key(pipeline: str) -> str:
    """The key of the artifacts that hold the steps of each deployed version."""
    return f"{slug(pipeline)}-plan"


def deployment_name(pipeline: str, pool: str | None) -> str:
    """The pipeline's name; a work pool makes it another deployment."""
    name = flow_name(pipeline)
    return name if pool is None else f"{name} on {pool}"
