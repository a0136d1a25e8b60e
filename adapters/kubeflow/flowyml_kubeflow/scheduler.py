"""Schedules on a KFP, which are its recurring runs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flowyml.core.errors import EngineError, ParameterError, ScheduleNotFoundError, UnsupportedFeatureError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.http import NotFoundError
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.orchestrators.scheduler import Scheduler
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow import names
from flowyml_kubeflow.client import MAYBE_DONE, equals
from flowyml_kubeflow.deployer import LONGEST_DESCRIPTION, Pipelines, description, facts, one_at_a_time, origin_of
from flowyml_kubeflow.options import pipeline_options
from flowyml_kubeflow.parameters import arguments
from flowyml_kubeflow.schedule import kfp_cron, kfp_interval, kfp_start

__all__ = ["KubeflowScheduler"]

_PLANNED = 5
_KEEPS_RUNS = (2, 16)  # the first KFP that can delete a recurring run and keep its runs; source: KFP issue 12573
# Texts that KFP replaces in the parameters of scheduled runs. Sources: KFP, crd/pkg/util/parameter_formatter.go, and
# from 2.16 template/v2_template.go.
_REPLACED = re.compile(r"\[\[(RunUUID|Index|(Scheduled|Current)Time(\.[^\]]*)?)\]\]|\{\{\$\.[^}]*\}\}")
_ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


class KubeflowScheduler(Scheduler):
    """One recurring run for a pipeline; the schedule's id is its name, which survives every change."""

    def __init__(self, pipelines: Pipelines) -> None:
        self.pipelines = pipelines
        self.client = pipelines.client

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        """Create the recurring run of a schedule, or replace it: KFP cannot change one.

        A recurring run that is as requested stays; otherwise a new one is created inactive, the old one retired, and
        the new one activated. A paused one stays paused, unless ``force`` is set. Raises ``OwnershipError`` if the
        recurring run is of another project's pipeline.
        """
        name = names.pipeline(bundle.plan.name)
        with one_at_a_time(f"schedule {name}"):
            older = self.named(name)
            self._check_owner(older, bundle, force)
            for parameter, value in schedule.parameters.items():
                _check_kept(parameter, value)
            values = arguments(bundle.plan, schedule.parameters)
            version = self.pipelines.ensure_uploaded(bundle, values, owns=True, force=force)[0]
            body = self._recurring_run(bundle.plan, schedule, version, self._last_tick(schedule, older))
            kept = [item.recurring_run_id for item in older[:1] if _is_same(item, body)]
            current = kept[0] if kept else self._create_recurring_run(body, {item.recurring_run_id for item in older})
            paused = older[0].status == "DISABLED" if older else schedule.paused
            for item in older:
                if item.recurring_run_id != current:
                    self._retire(item.recurring_run_id)
            if force or not paused:
                self._switch(current, on=True)
        return self._info(self._one_recurring(name))

    def move(self, bundle: Bundle, *, force: bool) -> None:
        """Let the schedule of a pipeline, if it has one, run this version."""
        if schedule := self.check_move(bundle, force=force):
            self.create_schedule(bundle, schedule, force=force)

    def check_move(self, bundle: Bundle, *, force: bool) -> Schedule | None:
        """Change nothing, and raise if this version cannot use the schedule of its pipeline; return that schedule."""
        if not (older := self.named(names.pipeline(bundle.plan.name))):
            return None
        self._check_owner(older, bundle, force)
        schedule = self._info(older[0]).schedule
        known = {item.name for item in bundle.plan.parameters}
        if unknown := sorted(schedule.parameters.keys() - known):
            raise EngineError(
                f"The schedule of {bundle.plan.name!r} gives the parameter {unknown[0]!r}, which this version does "
                f"not take. The schedule keeps running the previous version: schedule the pipeline again."
            )
        return schedule

    def _check_owner(self, older: Sequence[Any], bundle: Bundle, force: bool) -> None:
        if older:
            origin = origin_of(self.pipelines.version_of(older[0]))
            what = f"the schedule {names.pipeline(bundle.plan.name)!r} on KFP"
            check_replaceable(origin, bundle.origin, what, force=force)

    def moved(self, plan: Plan) -> str:
        """Return the changes of ``move``, as a part of a unified diff; empty for a pipeline without a schedule."""
        if not (older := self.named(names.pipeline(plan.name))):
            return ""
        version = self.pipelines.version_of(older[0])
        before = f"version {version.display_name}" if version else "a version that was deleted"
        rule = self._info(older[0]).schedule
        return f"--- KFP/schedule\n+++ new/schedule\n@@ -1 +1 @@\n-{rule}: {before}\n+{rule}: this version\n"

    def _create_recurring_run(self, body: Any, known: set[str]) -> str:
        try:
            recurring_run = self.client.call_once("recurring_run_service_create_recurring_run", body)
            return str(recurring_run.recurring_run_id)
        except MAYBE_DONE:
            fresh = [item.recurring_run_id for item in self.named(body.display_name)]
            if new := [item for item in fresh if item not in known]:
                return str(new[0])
            raise

    def _recurring_run(self, plan: Plan, schedule: Schedule, version: Any, last: datetime | None) -> Any:
        kind = "V2beta1CronSchedule" if schedule.cron else "V2beta1PeriodicSchedule"
        rule = {"cron": kfp_cron(schedule)} if schedule.cron else {"interval_second": str(kfp_interval(schedule))}
        start = kfp_start(schedule, datetime.now(UTC), last)
        when = self.client.model(kind, start_time=start, end_time=schedule.end, **rule)
        trigger = {"cron_schedule" if schedule.cron else "periodic_schedule": when}
        values = {"parameters": arguments(plan, schedule.parameters)}
        return self.client.model("V2beta1RecurringRun",
            display_name=names.pipeline(plan.name), experiment_id=self.pipelines.experiment_id(), mode="DISABLE",
            description=_description(plan.name, schedule), pipeline_version_reference=version,
            runtime_config=self.client.model("V2beta1RuntimeConfig", **values),
            trigger=self.client.model("V2beta1Trigger", **trigger), no_catchup=not schedule.catch_up,
            service_account=self.pipelines.service_account,
            max_concurrency=str(pipeline_options(plan).get("max_concurrency", 1)),
        )  # fmt: skip

    def _last_tick(self, schedule: Schedule, older: Iterable[Any]) -> datetime | None:
        """Return the last time for which an older recurring run created a run: catching up continues after it."""
        if not schedule.catch_up:
            return None
        return max(
            (run.scheduled_at for item in older for run in self._runs_of(item.recurring_run_id) if run.scheduled_at),
            default=None,
        )

    def _runs_of(self, recurring_run_id: str) -> Iterable[Any]:
        return self.client.pages(
            "run_service_list_runs", "runs",
            filter=equals(recurring_run_id=recurring_run_id), **self.client.connection.scope,
        )  # fmt: skip

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        newest: dict[str, Any] = {}
        for item in self.named(None):
            newest.setdefault(item.display_name, item)
        infos = [self._info(item) for item in newest.values()]
        return [info for info in infos if pipeline is None or info.pipeline == pipeline]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._switch(self._one_recurring(schedule_id).recurring_run_id, on=False)
        return self._info(self._one_recurring(schedule_id))

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._switch(self._one_recurring(schedule_id).recurring_run_id, on=True)
        return self._info(self._one_recurring(schedule_id))

    def delete_schedule(self, schedule_id: str) -> None:
        """Delete the schedule. Raises ``EngineError`` if that would stop active runs, as on a KFP before 2.16."""
        self._one_recurring(schedule_id)
        for item in self.named(schedule_id):
            if running := self._would_stop(item.recurring_run_id):
                connection = self.client.connection
                known, unknown = ", or the kfp that is installed here, is", " does not say its release, so it counts as"
                raise EngineError(
                    f"KFP at {connection.where}{known if connection.release() else unknown} older than 2.16, where KFP "
                    f"stops the runs of a deleted schedule, such as {running[0]!r}, which is in progress. Pause "
                    f"schedule {schedule_id!r} and delete it when they have ended, or cancel them first."
                )
            self._delete(item.recurring_run_id)

    def _retire(self, recurring_run_id: str) -> None:
        """Delete a recurring run, or only disable it if its active runs would be stopped.

        A disabled one is deleted when the schedule is next created or deleted.
        """
        self._switch(recurring_run_id, on=False)
        if not self._would_stop(recurring_run_id):
            self._delete(recurring_run_id)

    def _would_stop(self, recurring_run_id: str) -> list[str]:
        """Return the active runs that end when the recurring run is deleted, which owns their workflows.

        Source: KFP, common/util/workflow.go; KFP issues 7421 and 12573.
        """
        if self._keeps_runs:
            return []
        return [str(run.run_id) for run in self._runs_of(recurring_run_id) if run.state not in _ENDED]

    @property
    def _keeps_runs(self) -> bool:
        """True if deleting a recurring run can keep its runs: KFP can, and so can the installed official client."""
        return self.client.connection.release() >= _KEEPS_RUNS and self.client.has_model(
            "V2beta1DeletePropagationPolicy"
        )

    def _delete(self, recurring_run_id: str) -> None:
        how = {"propagation_policy": "ORPHAN"} if self._keeps_runs else {}
        with contextlib.suppress(NotFoundError):
            self.client.call("recurring_run_service_delete_recurring_run", recurring_run_id, **how)

    def _switch(self, recurring_run_id: str, *, on: bool) -> None:
        """Enable or disable a recurring run. A repeated call does no harm, so it is repeated if its answer was lost."""
        operations = ("recurring_run_service_disable_recurring_run", "recurring_run_service_enable_recurring_run")
        self.client.call(operations[on], recurring_run_id)

    def named(self, name: str | None) -> list[Any]:
        """Return the recurring runs that FlowyML created, newest first."""
        query = {"filter": equals(display_name=name)} if name else {}
        listed = self.client.pages(
            "recurring_run_service_list_recurring_runs", "recurring_runs",
            **query, **self.client.connection.scope,
        )  # fmt: skip
        ours = [item for item in listed if "schedule" in facts(item.description) and name in (None, item.display_name)]
        return sorted(ours, key=lambda item: item.created_at, reverse=True)

    def _one_recurring(self, name: str) -> Any:
        if recurring_runs := self.named(name) if name else []:
            return recurring_runs[0]
        raise ScheduleNotFoundError(f"KFP at {self.client.connection.where} has no schedule {name!r}.")

    def _info(self, item: Any) -> ScheduleInfo:
        schedule = replace(
            Schedule.from_dict(facts(item.description)["schedule"]), parameters=self.pipelines.parameters_of(item)
        )
        paused = item.status == "DISABLED"
        planned = () if paused else tuple(_next_times(schedule, item))
        return ScheduleInfo(
            schedule_id=item.display_name,
            pipeline=self.pipelines.pipeline_of(item),
            schedule=schedule,
            paused=paused,
            next_runs=planned,
        )


def _check_kept(name: str, value: Any) -> None:
    """Raise ``ParameterError`` if KFP would change the value of a schedule's parameter."""
    if replaced := _REPLACED.search(json.dumps(value)):
        raise ParameterError(
            f"Parameter {name!r} of the schedule holds {replaced[0]!r}, which KFP replaces in scheduled runs. "
            f"Write it in another way, or let a step put it together."
        )


def _description(pipeline: str, schedule: Schedule) -> str:
    """Return the fields that KFP lacks, as a description; the parameters are in the recurring run's own field."""
    plain = replace(schedule, parameters={}).to_dict()
    for facts_ in ({"pipeline": pipeline, "schedule": plain}, {"schedule": plain}):
        if len(text := description(facts_)) <= LONGEST_DESCRIPTION:
            return text
    raise UnsupportedFeatureError(
        f"KFP stores {LONGEST_DESCRIPTION} characters of a schedule, but this one has more: {schedule}. Shorten it."
    )


def _is_same(item: Any, body: Any) -> bool:
    """Return whether a recurring run is as requested. Its times follow from the schedule in its description."""
    reference, version = item.pipeline_version_reference, body.pipeline_version_reference
    parameters = (item.runtime_config.parameters or {}) if item.runtime_config else {}
    return bool(
        reference is not None
        and reference.pipeline_version_id == version.pipeline_version_id
        and parameters == body.runtime_config.parameters
        and (item.description, item.experiment_id) == (body.description, body.experiment_id)
        and body.service_account in (None, item.service_account)
        and str(item.max_concurrency) == body.max_concurrency
    )


def _next_times(schedule: Schedule, item: Any) -> list[datetime]:
    """Return the next times of a recurring run.

    KFP counts an interval from the start or, without one, from the creation of the recurring run; and it first waits
    for one interval. Source: KFP, ``PeriodicSchedule.GetNextScheduledTime``.
    """
    if schedule.interval_seconds is None:
        return schedule.next_times(_PLANNED)
    every = timedelta(seconds=schedule.interval_seconds)
    anchor, now = item.trigger.periodic_schedule.start_time or item.created_at, datetime.now(UTC)
    first = max(1, (now - anchor) // every + 1)
    times = [(anchor + every * (first + n)).astimezone(ZoneInfo(schedule.timezone)) for n in range(_PLANNED)]
    return [time for time in times if schedule.end is None or time <= schedule.end]
