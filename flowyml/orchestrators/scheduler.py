"""Scheduling: the part of an adapter that has an engine start a pipeline's runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

from flowyml.core.errors import PlanError
from flowyml.core.schedule import Schedule

if TYPE_CHECKING:
    from flowyml.core.schedule import ScheduleInfo
    from flowyml.plan.bundle import Bundle
    from flowyml.plan.model import Plan

__all__ = ["Scheduler", "declared_schedule"]


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
