"""Schedules on a KFP, which are its recurring runs."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flowyml.core.errors import ScheduleNotFoundError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow import names
from flowyml_kubeflow.client import AmbiguousError, NotFoundError, equals
from flowyml_kubeflow.options import pipeline_options
from flowyml_kubeflow.pipelines import Pipelines, about, arguments, facts, one_at_a_time
from flowyml_kubeflow.schedule import kfp_cron, kfp_interval

__all__ = ["RecurringRuns"]

_PLANNED = 5


class RecurringRuns:
    """One recurring run for a pipeline; the schedule's id is its name, which survives every change."""

    def __init__(self, pipelines: Pipelines) -> None:
        self.pipelines = pipelines
        self.client = pipelines.client

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        """KFP cannot change a recurring run. So a new one is made, asleep, the old one deleted, the new one woken."""
        plan = bundle.plan
        body = self._recurring_run(plan, schedule, self.pipelines.deployed(bundle)[0])
        name = names.pipeline(plan.name)
        with one_at_a_time(f"schedule {name}"):
            older = self.named(name)
            made = self._new_recurring(body, {item.recurring_run_id for item in older})
            for item in older:
                self._delete(item.recurring_run_id)
            self._switch(made, on=True)
        return self._info(self._one_recurring(name))

    def _new_recurring(self, body: Any, known: set[str]) -> str:
        try:
            made = self.client.write(
                lambda api: api._recurring_run_api.recurring_run_service_create_recurring_run(
                    body, **self.client.limits
                )
            )
            return str(made.recurring_run_id)
        except AmbiguousError:
            fresh = [item.recurring_run_id for item in self.named(body.display_name)]
            if new := [item for item in fresh if item not in known]:
                return str(new[0])
            raise

    def _recurring_run(self, plan: Plan, schedule: Schedule, version: Any) -> Any:
        kind = "V2beta1CronSchedule" if schedule.cron else "V2beta1PeriodicSchedule"
        rule = {"cron": kfp_cron(schedule)} if schedule.cron else {"interval_second": str(kfp_interval(schedule))}
        when = self.pipelines.model(kind)(start_time=schedule.start, end_time=schedule.end, **rule)
        trigger = {"cron_schedule" if schedule.cron else "periodic_schedule": when}
        values = {"parameters": arguments(plan, schedule.parameters)}
        return self.pipelines.model("V2beta1RecurringRun")(
            display_name=names.pipeline(plan.name), experiment_id=self.pipelines.experiment_id(), mode="DISABLE",
            description=about({"pipeline": plan.name, "schedule": schedule.to_dict()}),
            pipeline_version_reference=version, runtime_config=self.pipelines.model("V2beta1RuntimeConfig")(**values),
            trigger=self.pipelines.model("V2beta1Trigger")(**trigger), no_catchup=not schedule.catch_up,
            max_concurrency=str(pipeline_options(plan).get("max_concurrency", 1)),
        )  # fmt: skip

    def schedules(self, pipeline: str | None) -> list[ScheduleInfo]:
        found = [self._info(item) for item in self.named(None)]
        return [info for info in found if pipeline is None or info.pipeline == pipeline]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._switch(self._one_recurring(schedule_id).recurring_run_id, on=False)
        return self._info(self._one_recurring(schedule_id))

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._switch(self._one_recurring(schedule_id).recurring_run_id, on=True)
        return self._info(self._one_recurring(schedule_id))

    def delete_schedule(self, schedule_id: str) -> None:
        self._one_recurring(schedule_id)
        for item in self.named(schedule_id):
            self._delete(item.recurring_run_id)

    def _delete(self, recurring_run_id: str) -> None:
        with contextlib.suppress(NotFoundError):
            self.client.read(
                lambda api: api._recurring_run_api.recurring_run_service_delete_recurring_run(
                    recurring_run_id, **self.client.limits
                )
            )

    def _switch(self, recurring_run_id: str, *, on: bool) -> None:
        """The same twice is the same, so a lost answer hurts nobody."""
        verb = "enable" if on else "disable"
        self.client.read(
            lambda api: getattr(api._recurring_run_api, f"recurring_run_service_{verb}_recurring_run")(
                recurring_run_id, **self.client.limits
            )
        )

    def named(self, name: str | None) -> list[Any]:
        """Those that FlowyML made, newest first."""
        wanted = {"filter": equals(display_name=name)} if name else {}
        found = self.client.pages(
            lambda api: api._recurring_run_api.recurring_run_service_list_recurring_runs, "recurring_runs",
            **wanted, **self.pipelines.scope,
        )  # fmt: skip
        ours = [item for item in found if "schedule" in facts(item.description) and name in (None, item.display_name)]
        return sorted(ours, key=lambda item: item.created_at, reverse=True)

    def _one_recurring(self, name: str) -> Any:
        if found := self.named(name) if name else []:
            return found[0]
        raise ScheduleNotFoundError(f"KFP at {self.client.url} has no schedule {name!r}.")

    def _info(self, item: Any) -> ScheduleInfo:
        told = facts(item.description)
        schedule = Schedule.from_dict(told["schedule"])
        paused = item.status == "DISABLED"
        planned = () if paused else tuple(_next_times(schedule, item.created_at))
        return ScheduleInfo(
            schedule_id=item.display_name,
            pipeline=told["pipeline"],
            schedule=schedule,
            paused=paused,
            next_runs=planned,
        )


def _next_times(schedule: Schedule, created: datetime) -> list[datetime]:
    """KFP counts an interval from the start or, without one, from when the recurring run was made; and it first waits
    for one interval. Source: KFP, ``PeriodicSchedule.GetNextScheduledTime``."""
    if schedule.interval_seconds is None:
        return schedule.next_times(_PLANNED)
    every = timedelta(seconds=schedule.interval_seconds)
    anchor, now = schedule.start or created, datetime.now(UTC)
    first = max(1, (now - anchor) // every + 1)
    times = [(anchor + every * (first + n)).astimezone(ZoneInfo(schedule.timezone)) for n in range(_PLANNED)]
    return [time for time in times if schedule.end is None or time <= schedule.end]
