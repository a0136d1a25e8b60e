"""A DAG and a target for its schedule as a cutover sees them, and its records: all at hours of one day."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from flowyml import Pipeline, step
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.migration.airflow.cutover import Cutover, Record
from flowyml.orchestrators.handover import OldSchedule

HOURLY = Schedule(cron="0 * * * *")


@step
def nothing() -> None: ...


PIPELINE = cast("Any", Pipeline("x").add_step(nothing))


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


class Old:
    """A DAG that has run all until ``last``, and notes what is done to it."""

    name, place = "daily", "airflow"

    def __init__(
        self, *, is_paused: bool = True, last: int | datetime = 3, catch_up: bool = True,
        waiting: Collection[datetime] = (), following: datetime | None = None,
    ) -> None:  # fmt: skip
        self.seen = OldSchedule(
            schedule=HOURLY, catch_up=catch_up, is_paused=is_paused, is_busy=False, waiting=frozenset(waiting),
            last=at(last) if isinstance(last, int) else last, following=following,
        )  # fmt: skip
        self.marked: list[int] = []
        self.to_run: list[int] = []

    @property
    def is_paused(self) -> bool:
        return self.seen.is_paused

    def look(self) -> OldSchedule:
        return self.seen

    def pause(self, paused: bool) -> None:
        self.seen = replace(self.seen, is_paused=paused)

    def mark_as_run(self, time: datetime, note: str) -> None:
        self.marked.append(time.hour)

    def run_for(self, time: datetime) -> None:
        self.to_run.append(time.hour)

    def runs(self, most: int) -> Mapping[datetime, Run]:
        return {at(hour): _run(f"old {hour}") for hour in range(1, 9)}


class New:
    """A target with schedules, by their first hour, and runs for these times."""

    name, target = "prefect", None

    def __init__(
        self, *starts: int, paused: bool = False, ran: Collection[datetime] = (), tells: bool = True,
        can_run_missed: bool = True,
    ) -> None:  # fmt: skip
        self.paused, self.ran, self.tells = paused, ran, tells
        if can_run_missed:
            self.run_missed = lambda schedule_id, time: None
        self.there = [self._info(replace(HOURLY, start=at(start)), f"from-{start}") for start in starts]
        self.made: list[datetime | None] = []

    def _info(self, schedule: Schedule, name: str) -> ScheduleInfo:
        return ScheduleInfo(schedule_id=name, pipeline="x", schedule=schedule, paused=self.paused)

    @property
    def names(self) -> list[str]:
        return [each.schedule_id for each in self.there]

    def schedules(self, pipeline: str) -> list[ScheduleInfo]:
        return list(self.there)

    def plan(self, pipeline: object) -> None: ...

    def deploy(self, bundle: object) -> None: ...

    def check_fires(self) -> None: ...

    def schedule_pipeline(self, pipeline: object, schedule: Schedule) -> None:
        self.there = [self._info(schedule, "made")]
        self.made.append(schedule.start)

    def delete_schedule(self, schedule_id: str) -> None:
        self.there = [each for each in self.there if each.schedule_id != schedule_id]

    def scheduled_runs(self, pipeline: str, *, limit: int) -> Mapping[datetime, Run]:
        if not self.tells:
            raise UnsupportedFeatureError("It does not tell.")
        return {time: _run(f"new {time.hour}") for time in self.ran}


def _run(job: str) -> Run:
    return Run(job_id=job, run_id=job, pipeline="x", status=ExecutionStatus.COMPLETED, raw_status="success")


def record(phase: str, new: str = "prefect", **known: int | datetime) -> Record:
    """One of ``daily`` that was begun at two o'clock, with what else is known, as hours or times."""
    times = {name: (at(time) if isinstance(time, int) else time).isoformat() for name, time in known.items()}
    return Record(
        dag="daily", old="airflow", new=new, file="x.py", pipeline="x", phase=phase,
        **{"begun": at(2).isoformat(), **times},
    )  # fmt: skip


def work(old: Old, known: Record) -> Any:
    """What takes any target, also one that is made up."""
    return Cutover(cast("Any", old), known, print)
