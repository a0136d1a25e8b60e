"""Schedules that pass from one engine to another: the methods that cut-over needs of both engines.

An adapter may have any of the methods of ``Handover``, beside those of ``Orchestrator``. The functions here call them,
and raise ``UnsupportedFeatureError`` for an engine without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, cast

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.workflows import Workflow

if TYPE_CHECKING:
    from flowyml.orchestrators.base import Orchestrator

__all__ = [
    "ForeignSchedule", "Handover", "OldSchedule", "can_run_missed", "check_fires", "foreign_schedule", "run_missed",
    "scheduled_runs", "workflows",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSchedule:
    """The state of a schedule. ``last`` is the last of its times that has a run; ``is_busy`` is true while a run is in
    progress.

    ``waiting`` are the times of runs that have not ended, which do not progress while it is paused; ``following`` is
    the planned time of the next run, possibly in the past, which the engine creates when it is unpaused.
    """

    schedule: Schedule
    catch_up: bool
    is_paused: bool
    is_busy: bool
    last: datetime | None
    waiting: frozenset[datetime] = frozenset()
    following: datetime | None = None


class ForeignSchedule(Protocol):
    """A schedule of another tool that can be handed over. ``place`` is the address of its engine in one spelling."""

    name: str
    place: str

    def look(self) -> OldSchedule: ...
    def runs(self, limit: int) -> Mapping[datetime, Run]: ...
    def pause(self, paused: bool) -> None: ...
    def mark_as_run(self, time: datetime, note: str) -> None: ...
    def run_for(self, time: datetime) -> None: ...


class Handover(Protocol):
    """The methods of an adapter from which schedules are taken over, and of one that takes them over."""

    def foreign_schedule(self, name: str) -> ForeignSchedule:
        """Return the schedule of something that FlowyML did not make, to hand it to another engine."""

    def workflows(self, *, last: int = 25) -> list[Workflow]:
        """List all workflows of the engine, FlowyML's or not, with the outcomes of the ``last`` runs of each."""

    def check_fires(self) -> None:
        """Raise ``ScheduleError`` if nothing would start the runs of a schedule now.

        Engines that start them by themselves do not have this.
        """

    def run_missed(self, schedule_id: str, time: datetime) -> SubmissionResult:
        """Run what a schedule runs for one of its times; the same time again returns the same run."""

    def scheduled_runs(self, pipeline: str, *, limit: int = 100) -> Mapping[datetime, Run]:
        """Return the newest runs that a pipeline's schedule, or ``run_missed``, has started, by scheduled time."""


def foreign_schedule(engine: Orchestrator, name: str) -> ForeignSchedule:
    """Return the schedule of something that FlowyML did not make."""
    side = _with("foreign_schedule", engine, "handing over schedules that FlowyML did not make")
    return side.foreign_schedule(name)


def workflows(engine: Orchestrator, *, last: int) -> list[Workflow]:
    """List all workflows of an engine, with the outcomes of the ``last`` runs of each."""
    return _with("workflows", engine, "listing what FlowyML did not deploy").workflows(last=last)


def check_fires(engine: Orchestrator) -> None:
    """Raise ``ScheduleError`` if nothing would start the runs of a schedule now."""
    getattr(engine, "check_fires", lambda: None)()


def can_run_missed(engine: Orchestrator) -> bool:
    """Return whether an engine can run past times of a schedule."""
    return hasattr(engine, "run_missed")


def run_missed(engine: Orchestrator, schedule_id: str, time: datetime) -> SubmissionResult:
    """Run what a schedule runs for one of its times, unless that time has a run."""
    return _with("run_missed", engine, "runs for times that a schedule has missed").run_missed(schedule_id, time)


def scheduled_runs(engine: Orchestrator, pipeline: str, *, limit: int) -> Mapping[datetime, Run]:
    """Return the newest runs of a pipeline's schedule, keyed by scheduled time."""
    side = _with("scheduled_runs", engine, "reporting the scheduled time of a run")
    return side.scheduled_runs(pipeline, limit=limit)


def _with(method: str, engine: Orchestrator, what: str) -> Handover:
    if not hasattr(engine, method):
        raise UnsupportedFeatureError(
            f"{engine.name!r} does not support {what}. `flowyml backends` shows what an engine can do."
        )
    return cast(Handover, engine)
