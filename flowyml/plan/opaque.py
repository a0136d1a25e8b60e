"""Steps that are an engine's own: they have no function of the user's, and no other engine can run them."""

from __future__ import annotations

from flowyml.plan.model import Step

__all__ = ["operator_of"]


def operator_of(step: Step) -> tuple[str, str] | None:
    """The engine and the import path of the operator that a step is there; None for a function.

    It stands in the step's options, as all that is for one engine: ``{"airflow": {"operator": "…BashOperator"}}``.
    """
    for engine, options in step.options.items():
        if isinstance(path := options.get("operator"), str):
            return engine, path
    return None
