"""What a step may be given under ``local``: ``@step(local={"share": True})``."""

from __future__ import annotations

from flowyml.core.errors import UnknownOptionError
from flowyml.core.near_names import did_you_mean
from flowyml.orchestrators.base import of_step
from flowyml.plan.model import Plan

__all__ = ["STEP_OPTIONS", "check_options", "sharing_steps"]

STEP_OPTIONS = ("share",)


def check_options(plan: Plan) -> None:
    """Raise ``UnknownOptionError`` for an option that the local orchestrator does not have."""
    if plan.options.get("local"):
        raise UnknownOptionError(f"Pipeline {plan.name!r}: local={{…}} is for steps; a pipeline has no such options.")
    for step in plan:
        for name, value in step.options.get("local", {}).items():
            with of_step(step.name):
                if name not in STEP_OPTIONS:
                    raise UnknownOptionError(
                        f"step {step.name!r}: local has no option {name!r}.{did_you_mean(name, STEP_OPTIONS)} "
                        f"Known: {', '.join(STEP_OPTIONS)}."
                    )
                if not isinstance(value, bool):
                    raise UnknownOptionError(f"step {step.name!r}: local share={value!r:.80} is not True or False.")


def sharing_steps(plan: Plan) -> frozenset[str]:
    """The steps whose outputs all that take them get as one object, by name."""
    return frozenset(step.name for step in plan if step.options.get("local", {}).get("share"))
