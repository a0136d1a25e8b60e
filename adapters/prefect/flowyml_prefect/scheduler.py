"""Schedules on a Prefect server, which belong to its deployments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import OwnershipError, ScheduleError, ScheduleNotFoundError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.http import ConflictError, NotFoundError
from flowyml.orchestrators.scheduler import Scheduler
from flowyml_prefect.client import not_an_id, unknown
from flowyml_prefect.deployer import PrefectDeployer
from flowyml_prefect.names import deployment_name, flow_name
from flowyml_prefect.parameters import given_parameters
from flowyml_prefect.records import FlowRun, as_id
from flowyml_prefect.schedule import (
    MADE_UP,
    SET,
    as_set,
    from_prefect,
    is_active,
    own_schedule,
    schedule_info,
    to_prefect,
    was_edited,
)
from flowyml_prefect.server import POOL, ensure_worker

if TYPE_CHECKING:
    from flowyml.plan.bundle import Bundle

__all__ = ["PrefectScheduler"]

_SHOWN = 10
"""The number of planned runs of a schedule that are listed."""


class PrefectScheduler(Scheduler):
    """One schedule for a pipeline. Its id is that of the deployment, which survives every change.

    ``is_embedded`` is True for a server that FlowyML started: its work pool is created if it is missing.
    """

    def __init__(self, deployer: PrefectDeployer, *, is_embedded: bool) -> None:
        self.deployer = deployer
        self.client = deployer.client
        self.is_embedded = is_embedded

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        """Deploy the pipeline and schedule it, or change its schedule.

        Raises ``OwnershipError`` if the schedule was changed by hand, unless ``force`` is set, and ``ScheduleError``
        without a work pool.
        """
        target = replace(self.deployer.target, pool=self._pool(bundle.plan.name))
        body = {**to_prefect(schedule), "parameters": given_parameters(schedule.parameters)}
        if not force:
            self._check_unedited(bundle.plan.name, target.pool, body)
        deployed = self.deployer.deploy(bundle, force=force, target=target)
        try:
            self._save(deployed.id, body, schedule.paused)
        except ConflictError:  # created since the look-up, by another process or by a call whose answer was lost
            self._save(deployed.id, body, schedule.paused)
        self._note(deployed.id)
        return self._info(deployed.id)

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        flow = None if pipeline is None else flow_name(pipeline)
        deployments = [plain for plain in self.client.deployments(flow) if own_schedule(plain)]
        active = [plain["id"] for plain in deployments if is_active(plain)]
        planned = self.client.planned(active, _SHOWN)
        return [schedule_info(plain, planned.get(plain["id"], [])[:_SHOWN]) for plain in deployments]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._switch(schedule_id, active=False)

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._switch(schedule_id, active=True)

    def _switch(self, schedule_id: str, *, active: bool) -> ScheduleInfo:
        schedule = self._own(schedule_id)
        # A change without parameters would drop the present ones; source: Prefect 3.9, update_deployment_schedule.
        body = {"active": active, "parameters": schedule.get("parameters") or {}}
        self.client.save_schedule(schedule["deployment_id"], body, schedule["id"])
        return self._info(schedule["deployment_id"])

    def delete_schedule(self, schedule_id: str) -> None:
        """Delete a schedule; the deployment stays."""
        schedule = self._own(schedule_id)
        self.client.delete_schedule(schedule["deployment_id"], schedule["id"])

    def run_missed(self, schedule_id: str, time: datetime) -> FlowRun:
        """Create the run of a missed time. It is late from the start, so it runs at once.

        Prefect creates only one run for an idempotency key.
        """
        schedule = self._own(schedule_id)
        deployment = self.client.deployment_by_id(schedule["deployment_id"])
        due = time.astimezone(UTC).isoformat()
        request = {
            "name": f"{deployment['name']} for {due}",
            "idempotency_key": f"flowyml schedule {due}",
            "parameters": schedule.get("parameters") or {},
            "enforce_parameter_schema": False,
            "tags": [MADE_UP],
            "labels": {**(deployment.get("labels") or {}), MADE_UP: due},
            "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": due}},
        }
        return self.client.create_run(deployment["id"], request)

    def _pool(self, pipeline: str) -> str:
        """Return the pool whose workers execute the runs of a schedule."""
        if self.deployer.target.pool is not None:
            return self.deployer.target.pool
        if not self.is_embedded:
            raise ScheduleError(
                f"The schedule of {pipeline!r} needs a work pool, whose workers run it. Pass work_pool=…; "
                f"`prefect work-pool create NAME --type process` makes one, `prefect worker start --pool NAME` "
                f"serves it."
            )
        self.client.ensure_process_pool(POOL)
        ensure_worker()
        return POOL

    def _check_unedited(self, pipeline: str, pool: str | None, body: Mapping[str, Any]) -> None:
        """Raise ``OwnershipError`` if the schedule was changed by hand, unless it already is as requested."""
        deployment = self.client.deployment(flow_name(pipeline), deployment_name(pipeline, pool))
        if deployment is None or not was_edited(deployment):
            return
        there = own_schedule(deployment)
        if there is not None and from_prefect(there) != from_prefect(body):
            raise OwnershipError(
                f"The schedule of {pipeline!r} on Prefect was changed by hand since FlowyML set it: it is "
                f"{from_prefect(there)}, and the change would be lost. Put it into the pipeline's schedule, or use "
                f"--force (force=True) to replace it."
            )

    def _note(self, deployment_id: str) -> None:
        """Record on the deployment how its schedule was set, so that a change by hand is detected."""
        deployment = self.client.deployment_by_id(deployment_id)
        schema, schedule = dict(deployment.get("parameter_openapi_schema") or {}), own_schedule(deployment)
        if schedule is not None and schema.get(SET) != as_set(schedule):
            self.client.update_deployment(
                deployment_id, {"parameter_openapi_schema": {**schema, SET: as_set(schedule)}}
            )
            if schedule["active"]:
                self.client.plan_runs(deployment_id)

    def _save(self, deployment_id: str, body: Mapping[str, Any], paused: bool) -> None:
        """Save a schedule, a new one ``paused`` or active; an existing one stays as it was, but for its timing."""
        existing = own_schedule(self.client.deployment_by_id(deployment_id))
        active = existing["active"] if existing else not paused
        self.client.save_schedule(deployment_id, {**body, "active": active}, existing["id"] if existing else None)

    def _info(self, deployment_id: str) -> ScheduleInfo:
        planned = self.client.planned([deployment_id], _SHOWN)
        return schedule_info(self.client.deployment_by_id(deployment_id), planned[deployment_id][:_SHOWN])

    def _own(self, schedule_id: str) -> Mapping[str, Any]:
        """Return the Prefect schedule of a deployment. Raises ``ScheduleNotFoundError``."""
        deployment_id = as_id(schedule_id)
        if deployment_id is None:
            listing = self.client.command("schedule list")
            raise ScheduleNotFoundError(not_an_id(self.client, "schedule", schedule_id, listing))
        try:
            schedule = own_schedule(self.client.deployment_by_id(deployment_id))
        except NotFoundError:
            schedule = None
        if schedule is None:
            raise ScheduleNotFoundError(unknown(self.client, "schedule", schedule_id))
        return schedule
