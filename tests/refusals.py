"""Pipelines that an engine refuses by what it declares: there is nothing to compile, and no golden file."""

from __future__ import annotations

import pytest

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.needs import first_of_each
from flowyml.plan.model import Plan

__all__ = ["lacks_of", "xfail_if_refused"]


def lacks_of(plan: Plan, engine: type[Orchestrator]) -> tuple[str, ...]:
    """What the engine lacks for a plan, a sentence each."""
    try:
        engine.capabilities.require(first_of_each(plan))
    except UnsupportedFeatureError as error:
        return error.lacks
    return ()


def xfail_if_refused(plan: Plan, engine: type[Orchestrator]) -> None:
    """End a test about what is compiled where the engine refuses the plan, with its reason."""
    if lacks := lacks_of(plan, engine):
        pytest.xfail(lacks[0])
