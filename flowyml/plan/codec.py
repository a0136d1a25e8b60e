"""Plan to canonical JSON and back, with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
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

__all__ = ["decode", "encode"]

_SOURCES: Mapping[str, type[FromStep | FromParameter | Constant]] = {
    "step": FromStep,
    "parameter": FromParameter,
    "constant": Constant,
}
_SOURCE_KIND: Mapping[type, str] = {cls: kind for kind, cls in _SOURCES.items()}


def encode(plan: Plan) -> bytes:
    """Canonical JSON. A field that has its default is left out, so that a later field changes no older digest."""
    text = json.dumps(
        {**_plain(plan), "schema_version": plan.schema_version},
        sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False,
    )  # fmt: skip
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes | str) -> Plan:
    """Read what ``encode`` wrote. Raises ``PlanError`` for anything else, and for a newer schema."""
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


def _plain(value: Any) -> Any:
    cls: type = type(value)
    if not is_dataclass(cls):
        return value
    plain: dict[str, Any] = {}
    for name, default in _fields(cls):
        part = getattr(value, name)
        if part == default and type(part) is type(default):
            continue
        plain[name] = [_plain(p) for p in part] if isinstance(part, tuple) else _plain(part)
    if kind := _SOURCE_KIND.get(cls):
        plain["kind"] = kind
    return plain


@cache
def _fields(cls: type) -> tuple[tuple[str, Any], ...]:
    """The names of a class's fields with their defaults."""
    return tuple(
        (item.name, item.default_factory() if item.default_factory is not MISSING else item.default)
        for item in fields(cls)
    )


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
