"""Check whether an engine can run a pipeline, and which steps rule it out. No engine is contacted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flowyml.core.capabilities import Capabilities, Feature, Level
from flowyml.core.errors import (
    ConfigurationError,
    DefinitionError,
    FlowymlError,
    NoFileFormatError,
    UnsupportedFeatureError,
)
from flowyml.orchestrators import registry
from flowyml.orchestrators.base import Orchestrator, RunnablePipeline
from flowyml.orchestrators.config import Target
from flowyml.orchestrators.needs import needs_of
from flowyml.orchestrators.targets import construct
from flowyml.plan.model import Plan

__all__ = ["Lack", "Verdict", "verdict"]

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Lack:
    """A feature that an engine lacks, or has only within limits, and the steps that need it; none: the whole pipeline.

    ``feature`` is None for a finding of the engine's compiler alone.
    """

    feature: Feature | None
    steps: tuple[str, ...]
    reason: str

    @property
    def title(self) -> str:
        """The feature in words."""
        return self.feature.value if self.feature else ""

    @property
    def steps_shown(self) -> str:
        """The first steps by name, and the number of the others."""
        more = len(self.steps) - _MOST_NAMED
        return ", ".join([*self.steps[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The check of one target. ``limits`` do not rule it out; with a ``problem`` the result is unknown."""

    name: str
    engine: str
    lacks: tuple[Lack, ...] = ()
    limits: tuple[Lack, ...] = ()
    install: str | None = None
    problem: str | None = None

    @property
    def can_run(self) -> bool:
        """True if the engine can run the pipeline."""
        return not self.lacks and self.problem is None


def verdict(found: Target, pipeline: RunnablePipeline, plan: Plan) -> Verdict:
    """Check by the capabilities of the engine, then by its compiler, which needs neither the engine nor its client."""
    if found.fault:
        return Verdict(found.name, found.engine, problem=found.fault)
    try:
        factory = registry.load(found.engine)
    except FlowymlError as error:
        return Verdict(found.name, found.engine, problem=str(error))
    install, can = registry.missing(factory), getattr(factory, "capabilities", None)
    try:
        orchestrator = None if install else construct(factory, found, {})
    except ConfigurationError as error:
        if can is None:
            return Verdict(found.name, found.engine, problem=str(error))
        orchestrator = None  # for example without an address: then only capabilities are checked
    except Exception as error:  # a third party's
        problem = str(error) if isinstance(error, FlowymlError) else f"{type(error).__name__}: {error}"
        return Verdict(found.name, found.engine, problem=problem)
    can = orchestrator.capabilities if orchestrator else can
    assert can is not None
    lacks = tuple(_of_level(can, plan, Level.NO)) or tuple(_found_by_compiler(orchestrator, pipeline))
    return Verdict(found.name, found.engine, lacks, tuple(_of_level(can, plan, Level.PARTLY)), install)


def _of_level(can: Capabilities, plan: Plan, level: Level) -> Iterator[Lack]:
    steps: dict[Feature, dict[str, None]] = {}
    hints: dict[Feature, str] = {}
    for need in needs_of(plan):
        if can[need.feature].level is level:
            steps.setdefault(need.feature, {}).update(dict.fromkeys(need.steps))
            hints.setdefault(need.feature, need.instead)
    for feature, names in steps.items():
        yield Lack(feature, tuple(names), " ".join(filter(None, [can[feature].sentence, hints[feature]])))


def _found_by_compiler(orchestrator: Orchestrator | None, pipeline: RunnablePipeline) -> Iterator[Lack]:
    if orchestrator is None:
        return
    try:
        orchestrator.plan(pipeline)
        orchestrator.compile_pipeline(pipeline)
    except NoFileFormatError:
        return
    except (DefinitionError, UnsupportedFeatureError) as error:
        step = getattr(error, "step", None)
        yield Lack(None, (step,) if step else (), str(error))
