"""Schedules on Airflow, which are in the DAG files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flowyml.core.errors import ScheduleNotFoundError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.scheduler import Scheduler, declared_schedule
from flowyml.plan.bundle import Bundle
from flowyml_airflow.client import usable_id
from flowyml_airflow.deployed_dag import Deployed, check_resumable, has_schedule, is_untouched
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.folder import Folder
from flowyml_airflow.names import TAG, dag_id
from flowyml_airflow.parameters import check_carried
from flowyml_airflow.status import moment

__all__ = ["AirflowScheduler", "schedule_info"]


@dataclass(frozen=True)
class AirflowScheduler(Scheduler):
    """One schedule for a pipeline. Its id is that of the DAG."""

    deployer: AirflowDeployer

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        deployer, client = self.deployer, self.deployer.client()
        check_carried(schedule.parameters, client.integers)
        deployed = deployer.found(dag_id(bundle.plan.name))
        before = deployer.schedule(bundle.plan.name, deployed)
        is_declared = schedule == declared_schedule(bundle.plan)
        compiled = deployer.compiled(bundle, schedule if is_declared else since(schedule, before))
        paused = schedule.paused
        if deployed and before:
            paused = not force and deployed.dag["is_paused"] and bool(client.pause_we_set(compiled.dag_id))
        if deployed and not force and not paused:
            check_resumable(deployed)
        deployer.write(compiled, deployed, force=force)
        client.pause(compiled.dag_id, paused)
        return self._info(compiled.dag_id)

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        client = self.deployer.client()
        if pipeline is None:
            scheduled = [Deployed(dag, client) for dag in client.dags(TAG) if has_schedule(dag)]
        else:
            scheduled = [one] if (one := self.deployer.found(dag_id(pipeline))) else []
        return [info for item in scheduled if (info := schedule_info(item, self.deployer.folder))]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._switch(schedule_id, paused=True)

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._switch(schedule_id, paused=False)

    def _switch(self, schedule_id: str, *, paused: bool) -> ScheduleInfo:
        self._info(schedule_id)
        self.deployer.client().pause(schedule_id, paused)
        return self._info(schedule_id)

    def delete_schedule(self, schedule_id: str) -> None:
        """Deploy the DAG again without a schedule. The DAG, its runs, and the rest of its file stay.

        If FlowyML has paused the schedule, the DAG is resumed: otherwise it would stay paused, and runs would be
        refused.
        """
        self._info(schedule_id)
        deployed, client = self.deployer.existing(schedule_id), self.deployer.client()
        options: dict[str, Any] = {name: deployed.facts.get(name) for name in ("python", "artifacts", "artifact_links")}
        deployer = replace(self.deployer, **options)
        deployer.write(deployer.compiled(deployer.deployed_bundle(deployed), None), deployed)
        if deployed.dag["is_paused"] and client.pause_we_set(schedule_id):
            client.pause(schedule_id, False)

    def _info(self, schedule_id: str) -> ScheduleInfo:
        deployed = self.deployer.found(schedule_id) if usable_id(schedule_id) else None
        info = schedule_info(deployed, self.deployer.folder) if deployed else None
        if info is None:
            client = self.deployer.client()
            raise ScheduleNotFoundError(
                f"Airflow at {client.transport.connection.url} has no schedule {schedule_id!r} of FlowyML. "
                f"See `{client.command('schedule list')}`."
            )
        return info


def since(schedule: Schedule, before: Schedule | None) -> Schedule:
    """Give a schedule without a start the current time as its start: Airflow would run the last missed time at once.

    A schedule that is declared again keeps its start, so that the DAG file stays the same.
    """
    if schedule.start is not None:
        return schedule
    if before is not None and before.start is not None and replace(schedule, start=before.start) == before:
        return before
    now = datetime.now(UTC).replace(microsecond=0)
    wait = timedelta(seconds=schedule.interval_seconds or 0)  # an interval begins with a run at its start
    return replace(schedule, start=now + wait)


def schedule_info(deployed: Deployed, folder: Folder | None = None) -> ScheduleInfo | None:
    """Return the schedule of a DAG; None if it has none, or FlowyML did not set it."""
    schedule = deployed.schedule
    if schedule is None or not has_schedule(deployed.dag):
        return None
    following = moment(deployed.dag.get("next_dagrun_run_after") or deployed.dag.get("next_dagrun_create_after"))
    return ScheduleInfo(
        schedule_id=deployed.dag["dag_id"],
        pipeline=deployed.facts.get("pipeline", deployed.dag["dag_id"]),
        schedule=schedule,
        paused=bool(deployed.dag["is_paused"]),
        next_runs=(following,) if following else (),
        drift=tuple(drift(deployed, folder)),
    )


def drift(deployed: Deployed, folder: Folder | None) -> Iterator[str]:
    """Yield the changes that were made outside of FlowyML, by hand or by Airflow itself."""
    filename = str(deployed.dag.get("relative_fileloc") or deployed.dag["fileloc"]).rpartition("/")[2]
    if not is_untouched(deployed.source) or not deployed.has_parsed(deployed.facts.get("version", "")):
        yield f"{filename} was changed by hand: deploy again, or put the change into the pipeline."
    elif folder is not None and folder.read(filename) not in (None, deployed.source.encode()):
        yield f"{filename} in the DAGs folder is not what Airflow has read."
    ours, paused = deployed.client.pause_we_set(deployed.dag["dag_id"]), bool(deployed.dag["is_paused"])
    if ours is not None and ours != paused:
        itself = ", or by Airflow itself, after max_consecutive_failed_dag_runs" if paused else ""
        how = f"in Airflow's UI, API or command line{itself}"
        yield f"it was {'paused' if paused else 'resumed'} outside FlowyML: {how}."
