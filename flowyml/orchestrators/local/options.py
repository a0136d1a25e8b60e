"""The options of a step under ``local``: ``@step(local={"share": True, "reuse_process": True})``."""

from __future__ import annotations

from collections.abc import Mapping

from flowyml.core.errors import UnknownOptionError
from flowyml.orchestrators.base import about_step
from flowyml.orchestrators.options import Check, check_options
from flowyml.plan.model import Plan, Step

__all__ = ["STEP_OPTIONS", "check_plan", "reuses_process", "sharing_steps"]

_FLAG: Check = ("True or False", lambda value: isinstance(value, bool))
STEP_OPTIONS: Mapping[str, Check] = {"share": _FLAG, "reuse_process": _FLAG}


def check_plan(plan: Plan) -> None:
    """Raise ``UnknownOptionError`` for an option that the local orchestrator lacks."""
    if plan.options.get("local"):
        raise UnknownOptionError(f"Pipeline {plan.name!r}: local={{…}} is for steps; a pipeline has no such options.")
    for step in plan:
        with about_step(step.name):
            check_options("local", f"step {step.name!r}", step.options.get("local", {}), STEP_OPTIONS)


def reuses_process(step: Step) -> bool:
    """Return whether the items of a step, which is in a loop, run in processes that they share.

    Those of a cached step do not: a result must not depend on what other items have left in its process.
    """
    return step.caching is None and bool(step.options.get("local", {}).get("reuse_process"))


def sharing_steps(plan: Plan) -> frozenset[str]:
    """Return the names of steps whose consumers all share the same output objects."""
    return frozenset(step.name for step in plan if step.options.get("local", {}).get("share"))
