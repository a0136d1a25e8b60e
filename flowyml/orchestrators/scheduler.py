"""Scheduling: the part of an adapter that has an engine start a pipeline's runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

from flowyml.core.errors import PlanError
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.needs import schedule_needs

if TYPE_CHECKING:
    from flowyml.core.schedule import ScheduleInfo
    from flowyml.orchestrators.base import Orchestrator
    from flowyml.plan.bundle import Bundle
    from flowyml.plan.model import Plan

__all__ = ["Scheduler", "declared_schedule", "schedule_to_set"]


class Scheduler(Protocol):
    """The schedules that FlowyML created on one engine: at most one for each pipeline.

    A schedule that is set again changes its times, not its state: a paused one stays paused, unless ``force`` is given.
    Only a new one with ``Schedule.paused`` begins paused.

    Methods that take a ``schedule_id`` raise ``ScheduleNotFoundError``.
    """

    @abstractmethod
    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        """Create or update the schedule of the bundle's pipeline, by the same rule as ``Deployer.deploy``."""

    @abstractmethod
    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        """Return the schedules of a pipeline, or all."""

    @abstractmethod
    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Pause a schedule."""

    @abstractmethod
    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Resume a paused schedule."""

    @abstractmethod
    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a schedule."""


def declared_schedule(plan: Plan) -> Schedule | None:
    """Return the schedule that a pipeline declares: ``Pipeline(…, schedule=…)``. Raises ``PlanError``."""
    try:
        return Schedule.from_dict(plan.schedule) if plan.schedule else None
    except (TypeError, ValueError) as error:  # a plan from a file, which people or another release wrote
        raise PlanError(f"The schedule in the plan of {plan.name!r} cannot be read: {error}") from error


def schedule_to_set(engine: Orchestrator, plan: Plan) -> Schedule | None:
    """Return the schedule that a deployment has to set; None if none is declared, or the engine has it already.

    Raises ``UnsupportedFeatureError``, and ``ScheduleError`` for one that has ended.
    """
    schedule = declared_schedule(plan)
    if schedule is None:
        return None
    engine.capabilities.require(schedule_needs(plan, schedule))
    if schedule in [info.schedule for info in engine.schedules(plan.name)]:
        return None
    schedule.check_future()
    return schedule
