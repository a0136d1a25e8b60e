"""Schedules of a local store, which `flowyml schedule serve` fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.local.schedules import ScheduleStore, warn_unless_served
from flowyml.orchestrators.scheduler import Scheduler
from flowyml.plan.bundle import Bundle

__all__ = ["LocalScheduler"]


@dataclass(frozen=True)
class LocalScheduler(Scheduler):
    """The schedules of one store. Their runs have the code of ``write_bundle`` and the orchestrator ``described``."""

    store: ScheduleStore
    write_bundle: Callable[[Bundle], Path]
    described: Callable[[], bytes]

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        """Store the schedule of the pipeline, in place of an existing one. Warns if no process serves schedules."""
        path, orchestrator = str(self.write_bundle(bundle)), self.described()
        stored = self.store.put(bundle.plan.name, path, orchestrator, schedule, origin=bundle.origin, force=force)
        warn_unless_served(self.store)
        return stored.info

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        return [item.info for item in self.store.all(pipeline)]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self.store.pause(schedule_id, True).info

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Resume the schedule from now on; times that came while it was paused are not run."""
        return self.store.pause(schedule_id, False).info

    def delete_schedule(self, schedule_id: str) -> None:
        self.store.delete(schedule_id)
