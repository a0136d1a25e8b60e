"""Schedules that pass from one engine to another: the interface of the old side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule

__all__ = ["ForeignSchedule", "OldSchedule"]


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
    def runs(self, most: int) -> Mapping[datetime, Run]: ...
    def pause(self, paused: bool) -> None: ...
    def mark_as_run(self, time: datetime, note: str) -> None: ...
    def run_for(self, time: datetime) -> None: ...
