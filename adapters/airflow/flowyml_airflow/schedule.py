"""A schedule as the DAG file declares it, and as Airflow keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml_airflow.client import moment
from flowyml_airflow.compiler import version_tag
from flowyml_airflow.deployed import Deployed, has_schedule, is_untouched, tags_of
from flowyml_airflow.folder import Folder

__all__ = ["drift", "info", "since"]


def since(schedule: Schedule, before: Schedule | None) -> Schedule:
    """The schedule with a start: without one, Airflow would at once make up for the last time that has passed.

    A schedule that is declared again keeps its start, so that the DAG file stays the same.
    """
    if schedule.start is not None:
        return schedule
    if before is not None and before.start is not None and replace(schedule, start=before.start) == before:
        return before
    now = datetime.now(UTC).replace(microsecond=0)
    wait = timedelta(seconds=schedule.interval_seconds or 0)  # an interval begins with a run at its start
    return replace(schedule, start=now + wait)


def info(found: Deployed, folder: Folder | None = None) -> ScheduleInfo | None:
    """The schedule of a DAG; None when it has none, or none that FlowyML gave it."""
    schedule = found.schedule
    if schedule is None or not has_schedule(found.dag):
        return None
    following = moment(found.dag.get("next_dagrun_run_after") or found.dag.get("next_dagrun_create_after"))
    return ScheduleInfo(
        schedule_id=found.dag["dag_id"],
        pipeline=found.facts.get("pipeline", found.dag["dag_id"]),
        schedule=schedule,
        paused=bool(found.dag["is_paused"]),
        next_runs=(following,) if following else (),
        drift=tuple(drift(found, folder)),
    )


def drift(found: Deployed, folder: Folder | None) -> Iterator[str]:
    """What was changed by hand, behind FlowyML's back."""
    filename = str(found.dag.get("relative_fileloc") or found.dag["fileloc"]).rpartition("/")[2]
    if not is_untouched(found.source) or version_tag(found.facts.get("version", "")) not in tags_of(found.dag):
        yield f"{filename} was changed by hand: deploy again, or put the change into the pipeline."
    elif folder is not None and folder.read(filename) not in (None, found.source.encode()):
        yield f"{filename} in the DAGs folder is not what Airflow has read."
    ours, paused = found.client.pause_we_set(found.dag["dag_id"]), bool(found.dag["is_paused"])
    if ours is not None and ours != paused:
        yield f"it was {'paused' if paused else 'resumed'} behind FlowyML's back: in Airflow's UI, API or command line."
