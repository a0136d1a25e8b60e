"""Decode canonical JSON to a plan, with only the standard library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flowyml.core.errors import PlanError
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.conditions import AllOf, AnyOf, Compare, IsTrue, Not
from flowyml.plan.groups import Branch, Cleanup, Group, Loop, Section
from flowyml.plan.model import SCHEMA_VERSION, Caching, Input, Parameter, PipelineOutput, Plan, Step
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep

__all__ = ["decode"]

_KINDS: Mapping[str, type] = {
    cls.KIND: cls
    for cls in (
        *(FromStep, FromParameter, Constant, FromItem, FromEither),
        *(Compare, IsTrue, Not, AllOf, AnyOf),
        *(Loop, Branch, Section, Cleanup),
    )
}


def decode(data: bytes | str) -> Plan:
    """Read the output of ``Plan.canonical``. Raises ``PlanError`` for anything else, and for a newer schema."""
    try:
        plain = json.loads(data)
        version = plain["schema_version"]
        if version > SCHEMA_VERSION:
            raise PlanError(
                f"This plan has schema {version}; this FlowyML reads up to {SCHEMA_VERSION}. Upgrade FlowyML."
            )
        return Plan(**{
            **plain,
            "steps": tuple(map(_step, plain["steps"])),
            "parameters": tuple(Parameter(**item) for item in plain.get("parameters", ())),
            "outputs": tuple(
                PipelineOutput(item["name"], _made(item["source"])) for item in plain.get("outputs", ())
            ),
            "groups": tuple(map(_group, plain.get("groups", ()))),
            **_tuples(plain, "hooks", "tags"),
        })  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"This is not a FlowyML plan: {error!r}") from error


def _step(plain: Mapping[str, Any]) -> Step:
    return Step(**{
        **plain,
        "inputs": _inputs(plain.get("inputs", ())),
        "retry": OrchestratorRetryPolicy(**plain["retry"]) if "retry" in plain else None,
        "resources": ResourceRequirements(**plain["resources"]) if "resources" in plain else None,
        "caching": _caching(plain["caching"]) if "caching" in plain else None,
        **_tuples(plain, "outputs", "after", "tags"),
    })  # fmt: skip


def _caching(plain: Mapping[str, Any]) -> Caching:
    return Caching(**{**plain, **_tuples(plain, "arguments", "environment", "packages", "paths")})


def _inputs(plain: Sequence[Mapping[str, Any]]) -> tuple[Input, ...]:
    return tuple(Input(**{**item, "source": _made(item["source"])}) for item in plain)


def _group(plain: Mapping[str, Any]) -> Group:
    over = {"over": _inputs(plain["over"])} if "over" in plain else {}
    condition = {"condition": _made(plain["condition"])} if "condition" in plain else {}
    group: Group = _KINDS[plain["kind"]](**{**_without_kind(plain), **over, **condition})
    return group


def _made(plain: Mapping[str, Any]) -> Any:
    """Return a source or a condition, with its parts. A constant's value is the user's, whatever it looks like."""
    cls = _KINDS[plain["kind"]]
    if cls is Constant:
        return Constant(plain["value"])
    return cls(**{name: _part(value) for name, value in _without_kind(plain).items()})


def _part(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_made, value))
    return _made(value) if isinstance(value, Mapping) else value


def _without_kind(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != "kind"}


def _tuples(plain: Mapping[str, Any], *names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(plain[name]) for name in names if name in plain}
