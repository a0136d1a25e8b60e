"""A compiled pipeline: frozen, plain data, the same bytes for the same pipeline.

The classes are standard-library dataclasses, since workers that have only Python read them, too. ``canonical`` is their
JSON, and ``flowyml.plan.codec`` reads it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from flowyml.core.errors import DefinitionError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.canonical import canonical_json
from flowyml.plan.groups import Group, Groups, Section
from flowyml.plan.secrets import check_distinct
from flowyml.plan.steps import RUN_IF, Caching, Input, Step
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source

__all__ = [
    "FLAT_SCHEMA_VERSION",
    "RUN_IF",
    "SCHEMA_VERSION",
    "Caching",
    "Constant",
    "FromEither",
    "FromItem",
    "FromParameter",
    "FromStep",
    "Input",
    "Parameter",
    "PipelineOutput",
    "Plan",
    "Source",
    "Step",
]

SCHEMA_VERSION = 2
"""The newest schema that this FlowyML reads."""

FLAT_SCHEMA_VERSION = 1
"""The schema of a plan without control flow, secrets, execution groups, caching and schedule, whose bytes stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of the run. ``schema`` is JSON Schema; without a default each run must pass a value."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    required: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class PipelineOutput:
    """The pipeline's output ``name`` is an output of a step, or of the one of several that ran."""

    name: str
    source: FromStep | FromEither


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A compiled pipeline. ``steps`` are in topological order; hooks are named here and travel in the bundle.

    ``options`` are for single engines, by the engine's name. ``schedule`` is the declared one as
    ``Schedule.to_dict`` writes it, since workers read plans and not schedules; empty without one.
    """

    name: str
    steps: tuple[Step, ...]
    parameters: tuple[Parameter, ...] = ()
    outputs: tuple[PipelineOutput, ...] = ()
    hooks: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    schedule: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = FLAT_SCHEMA_VERSION

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """The steps by name."""
        return {step.name: step for step in self.steps}

    @property
    def step_outputs(self) -> tuple[tuple[str, FromStep], ...]:
        """Names and sources of the outputs that come from one step: all of them, without branches."""
        return tuple((item.name, item.source) for item in self.outputs if isinstance(item.source, FromStep))

    @property
    def has_control_flow(self) -> bool:
        """True if more than the order of its steps decides which of them run, and how often."""
        grouped = any(not isinstance(group, Section) for group in self.groups)
        return grouped or any(step.run_if != "all_success" for step in self.steps)

    @cached_property
    def structure(self) -> Groups:
        """The positions of the steps in the groups."""
        return Groups(self.groups, self.steps)

    @cached_property
    def downstream(self) -> Mapping[str, tuple[str, ...]]:
        """For each step, the steps that wait for it, directly or through their groups."""
        following: dict[str, list[str]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            for name in self.structure.upstream(step):
                following[name].append(step.name)
        return {name: tuple(names) for name, names in following.items()}

    @cached_property
    def canonical(self) -> bytes:
        """Canonical JSON: sorted keys, no white space, UTF-8."""
        return canonical_json(self, schema_version=self.schema_version)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``canonical``, in hexadecimal."""
        import hashlib

        return hashlib.sha256(self.canonical).hexdigest()

    def with_secret_names(self, names: Mapping[str, str]) -> Plan:
        """Return the same plan with the names of secrets in one target's store.

        Raises ``DefinitionError`` for two that a store could not tell apart.
        """
        if not any(step.secrets for step in self.steps):
            return self
        steps = (
            replace(step, secrets={key: names.get(name, name) for key, name in step.secrets.items()})
            if step.secrets
            else step
            for step in self.steps
        )
        renamed = replace(self, steps=tuple(steps))
        check_distinct(name for step in renamed.steps for name in step.secrets.values())
        return renamed

    def with_refresh(self, refresh: bool | str | Iterable[str]) -> Plan:
        """Return a copy in which cached steps run again and save new results: all of them, or the named ones.

        Raises ``DefinitionError`` for a name that is not a cached step's.
        """
        if refresh is False:
            return self
        if isinstance(refresh, bool):
            chosen = [step.name for step in self if step.caching]
        else:
            chosen = [refresh] if isinstance(refresh, str) else list(refresh)
        for name in chosen:
            if name not in self.by_name or self.by_name[name].caching is None:
                cached = ", ".join(step.name for step in self if step.caching) or "none"
                raise DefinitionError(
                    f"Pipeline {self.name!r}: refresh names {name!r}, which is not a cached step. Those are: {cached}."
                )
        steps = tuple(
            replace(step, caching=replace(step.caching, refresh=True)) if step.caching and step.name in chosen else step
            for step in self
        )
        return replace(self, steps=steps)

    def with_retry_policy(self, policy: OrchestratorRetryPolicy | None) -> Plan:
        """Return the same plan; steps without their own policy get this one."""
        if policy is None:
            return self
        return replace(self, steps=tuple(s if s.retry else replace(s, retry=policy) for s in self.steps))

    def with_retry_delays(self, usual: float, least: float) -> Plan:
        """Return the same plan: ``usual`` seconds before retries that have no delay, and at least ``least`` before all.

        The usual delay does not grow.
        """
        if not usual and not least:
            return self
        policies = {step.name: step.retry.with_delays(usual, least) for step in self if step.retry}
        return replace(self, steps=tuple(replace(s, retry=policies.get(s.name)) for s in self.steps))
