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
    """How a schedule stands. ``last`` is the last of its times that has a run; ``is_busy`` while a run goes on.

    ``waiting`` are the times of runs that have not ended, which stand still while it is paused; ``following`` is the
    time that the engine has in mind for the next run, which may have passed, and which it makes once it is unpaused.
    """

    schedule: Schedule
    catch_up: bool
    is_paused: bool
    is_busy: bool
    last: datetime | None
    waiting: frozenset[datetime] = frozenset()
    following: datetime | None = None


class ForeignSchedule(Protocol):
    """A schedule that others made, and that can be handed over. ``place`` names its engine, the same however given."""

    name: str
    place: str

    def look(self) -> OldSchedule: ...
    def runs(self, most: int) -> Mapping[datetime, Run]: ...
    def pause(self, paused: bool) -> None: ...
    def mark_as_run(self, time: datetime, note: str) -> None: ...
    def run_for(self, time: datetime) -> None: ...
