"""The options of a step under ``local``: ``@step(local={"share": True})``."""

from __future__ import annotations

from collections.abc import Mapping

from flowyml.core.errors import UnknownOptionError
from flowyml.orchestrators.base import of_step
from flowyml.orchestrators.options import Check, check_options
from flowyml.plan.model import Plan

__all__ = ["STEP_OPTIONS", "check_plan", "sharing_steps"]

STEP_OPTIONS: Mapping[str, Check] = {"share": ("True or False", lambda value: isinstance(value, bool))}


def check_plan(plan: Plan) -> None:
    """Raise ``UnknownOptionError`` for an option that the local orchestrator lacks."""
    if plan.options.get("local"):
        raise UnknownOptionError(f"Pipeline {plan.name!r}: local={{…}} is for steps; a pipeline has no such options.")
    for step in plan:
        with of_step(step.name):
            check_options("local", f"step {step.name!r}", step.options.get("local", {}), STEP_OPTIONS)


def sharing_steps(plan: Plan) -> frozenset[str]:
    """Return the names of steps whose consumers all share the same output objects."""
    return frozenset(step.name for step in plan if step.options.get("local", {}).get("share"))
