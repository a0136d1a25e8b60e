"""Scheduling: the part of an adapter that has an engine start a pipeline's runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flowyml.core.schedule import Schedule, ScheduleInfo
    from flowyml.plan.bundle import Bundle

__all__ = ["Scheduler"]


class Scheduler(Protocol):
    """The schedules that FlowyML created on one engine: at most one for each pipeline.

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
