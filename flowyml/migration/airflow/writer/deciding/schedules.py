"""The schedule of a pipeline, as FlowyML's own words have it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowyml.migration.airflow.model import DagModel
from flowyml.migration.airflow.writer.deciding.dates import zone_of
from flowyml.migration.airflow.writer.notes import Kind, Note

__all__ = ["Schedule", "schedule_of"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Fields of ``cron``, or the seconds between two runs; where a time zone is given, it is not UTC's."""

    cron: str = ""
    seconds: float = 0.0
    zone: str = ""
    start: datetime | None = None
    catch_up: bool = False
    shown: str = "None"


def schedule_of(dag: DagModel) -> tuple[Schedule | None, list[Note]]:
    """The schedule of a DAG, if it has one that FlowyML has too, and what became of it."""
    said = dag.schedule if dag.schedule_known else None
    if said == "None":
        return None, []
    kind, _, rest = (said or "").partition(":")
    zone = zone_of(dag)
    place = dag.schedule_argument.place if dag.schedule_argument else dag.place
    cron, seconds, shown = "", 0.0, ""
    if kind == "cron" and len(rest.split()) == 5 and zone:
        cron, shown = rest, f"cron:{rest} {zone}"
    elif kind == "delta":
        seconds = float(rest)
        shown = f"delta:{seconds}"
    else:
        wanted = said or "one that is not known"
        wanted += "" if zone else " in a time zone that is not known"
        return None, [
            Note(Kind.CHANGED, "schedule", place, f"FlowyML has no schedule like {wanted}",
                 "Schedule the pipeline by hand, or run it by a hook or an API call.")
        ]  # fmt: skip
    start = dag.start_date if isinstance(dag.start_date, datetime) else None
    made = Schedule(cron, seconds, zone if zone and zone != "UTC" else "", start, bool(dag.catchup), shown)
    why = "the module schedules the pipeline on Airflow when it is run as a script"
    return made, [Note(Kind.KEPT, "schedule", place, why)]
