"""Canonical JSON back to a plan, with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from flowyml.core.errors import PlanError
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.model import (
    SCHEMA_VERSION,
    Constant,
    FromParameter,
    FromStep,
    Input,
    Parameter,
    PipelineOutput,
    Plan,
    Source,
    Step,
)

__all__ = ["decode"]

_SOURCES: Mapping[str, type[FromStep | FromParameter | Constant]] = {
    cls.KIND: cls for cls in (FromStep, FromParameter, Constant)
}


def decode(data: bytes | str) -> Plan:
    """Read what ``Plan.canonical`` gave. Raises ``PlanError`` for anything else, and for a newer schema."""
    try:
        plain = json.loads(data)
        version = plain["schema_version"]
        if version > SCHEMA_VERSION:
            raise PlanError(f"This plan has schema {version}; this FlowyML reads up to {SCHEMA_VERSION}. Upgrade it.")
        return Plan(**{
            **plain,
            "steps": tuple(map(_step, plain["steps"])),
            "parameters": tuple(Parameter(**item) for item in plain.get("parameters", ())),
            "outputs": tuple(
                PipelineOutput(item["name"], FromStep(item["source"]["step"], item["source"]["output"]))
                for item in plain.get("outputs", ())
            ),
            **_tuples(plain, "hooks", "tags"),
        })  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"This is no plan of FlowyML: {error!r}") from error


def _step(plain: Mapping[str, Any]) -> Step:
    return Step(**{
        **plain,
        "inputs": tuple(Input(**{**item, "source": _source(item["source"])}) for item in plain.get("inputs", ())),
        "retry": OrchestratorRetryPolicy(**plain["retry"]) if "retry" in plain else None,
        "resources": ResourceRequirements(**plain["resources"]) if "resources" in plain else None,
        **_tuples(plain, "outputs", "after", "tags"),
    })  # fmt: skip


def _source(plain: Mapping[str, Any]) -> Source:
    values = dict(plain)
    make: Callable[..., Source] = _SOURCES[values.pop("kind")]
    return make(**values)


def _tuples(plain: Mapping[str, Any], *names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(plain[name]) for name in names if name in plain}
