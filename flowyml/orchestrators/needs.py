"""The features that a plan needs from an engine, and the parts that need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowyml.core.capabilities import Feature
from flowyml.plan.groups import Branch, Cleanup, Group, Loop, Section
from flowyml.plan.model import Plan, Step

if TYPE_CHECKING:
    from flowyml.core.schedule import Schedule

__all__ = ["Need", "first_of_each", "needs_of", "schedule_needs"]

_FEATURES_OF_GROUPS: Mapping[type[Group], Feature] = {
    Loop: Feature.FAN_OUT,
    Branch: Feature.BRANCHES,
    Cleanup: Feature.CLEANUP,
    Section: Feature.SUB_PIPELINES,
}


@dataclass(frozen=True, slots=True)
class Need:
    """A feature that a plan uses.

    ``subject`` begins a sentence; ``steps`` are those that need it, empty for the whole run; ``instead`` suggests an
    alternative.
    """

    feature: Feature
    subject: str
    steps: tuple[str, ...] = ()
    instead: str = ""


def needs_of(plan: Plan) -> Iterator[Need]:
    """Yield everything that a plan needs: for the run, then for each group, then for each step."""
    pipeline = f"pipeline {plan.name!r}"
    if plan.timeout_seconds is not None:
        yield Need(Feature.PIPELINE_TIMEOUT, f"{pipeline} asks for timeout={plan.timeout_seconds:g}")
    if plan.hooks:
        yield Need(Feature.HOOKS, f"{pipeline} has hooks")
    if plan.parameters:
        yield Need(Feature.PARAMETERS, f"{pipeline} has parameters")
    for group in plan.groups:
        members = tuple(plan.structure.members(group.name))
        yield Need(_FEATURES_OF_GROUPS[type(group)], f"{pipeline} has {group.name!r}", members)
        if isinstance(group, Loop) and group.max_parallel is not None:
            yield Need(Feature.MAX_PARALLEL, f"loop {group.name!r} has max_parallel={group.max_parallel}", members)
    if operators := {step.name: found[1] for step in plan if (found := step.operator)}:
        yield _of_operators(operators)
    for step in plan:
        for feature, what in _step_needs(plan, step):
            yield Need(feature, f"step {step.name!r} asks for {what}", (step.name,))


def _of_operators(operators: Mapping[str, str]) -> Need:
    """Return the need of steps that are an engine's own operators, with a replacement for each."""
    from flowyml.orchestrators.replacements import replacement  # stays at home: no pod makes such a step

    descriptions = [f"{name!r} is {path.rpartition('.')[2]} ({replacement(path)})" for name, path in operators.items()]
    listed = "; ".join(descriptions)
    return Need(Feature.OPERATORS, f"step {listed}", tuple(operators), f"What could replace each: {listed}.")


def first_of_each(plan: Plan) -> dict[Feature, str]:
    """Return the features that a plan uses, each with the first part that needs it."""
    needs: dict[Feature, str] = {}
    for need in needs_of(plan):
        needs.setdefault(need.feature, need.subject)
    return needs


def _step_needs(plan: Plan, step: Step) -> Iterator[tuple[Feature, str]]:
    if step.run_if != "all_success" and not plan.structure.is_cleanup(step.group):
        yield Feature.RUN_IF, f"run_if={step.run_if!r}"
    if step.execution_group:
        yield Feature.EXECUTION_GROUPS, f"execution_group={step.execution_group!r}"
    if step.caching:
        yield Feature.CACHING, "cache=…"
    if step.secrets:
        yield Feature.SECRETS, f"secret {next(iter(step.secrets.values()))!r}"
    if step.retry and step.retry.max_attempts > 1:
        yield Feature.STEP_RETRY, f"{step.retry.max_attempts} attempts"
        if step.retry.retryable_errors is not None:
            yield Feature.RETRYABLE_ERRORS, "retryable_errors"
    if step.timeout_seconds is not None:
        yield Feature.STEP_TIMEOUT, f"timeout={step.timeout_seconds:g}"
    if step.resources and (step.resources.cpu or step.resources.memory):
        yield Feature.RESOURCES_CPU_MEMORY, "cpu or memory"
    if step.resources and step.resources.gpu:
        yield Feature.RESOURCES_GPU, f"gpu={step.resources.gpu}"


def schedule_needs(plan: Plan, schedule: Schedule) -> dict[Feature, str]:
    """Return the features that a schedule of a plan uses, each with the reason."""
    subject = f"the schedule of {plan.name!r} is"
    needs = {Feature.SCHEDULE_CRON if schedule.cron else Feature.SCHEDULE_INTERVAL: f"{subject} {schedule}"}
    if schedule.timezone != "UTC":
        needs[Feature.SCHEDULE_TIMEZONE] = f"{subject} in {schedule.timezone}"
    if schedule.catch_up:
        needs[Feature.SCHEDULE_CATCH_UP] = f"{subject} one with catch-up"
    if schedule.paused:
        needs[Feature.SCHEDULE_PAUSE] = f"{subject} paused at first"
    return needs
