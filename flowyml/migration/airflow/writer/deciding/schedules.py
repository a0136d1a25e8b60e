"""The schedule of a pipeline, in FlowyML's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowyml.migration.airflow.model import AssetRef, DagModel
from flowyml.migration.airflow.writer.deciding.dates import timetable_of, zone_of
from flowyml.migration.airflow.writer.notes import Kind, Note

__all__ = ["Schedule", "schedule_of"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Fields of ``cron``, or the seconds between two runs; the time zone is UTC unless given."""

    cron: str = ""
    seconds: float = 0.0
    zone: str = ""
    start: datetime | None = None
    catch_up: bool = False
    shown: str = "None"


def schedule_of(dag: DagModel) -> tuple[Schedule | None, Any, list[Note]]:
    """Return the schedule of a DAG as FlowyML's, if possible, else as Airflow's own; and notes.

    For the form of Airflow's own see flowyml_airflow.options.
    """
    said = dag.schedule if dag.schedule_known else None
    if said == "None":
        return None, None, list(_omitted(dag))
    kind, _, rest = (said or "").partition(":")
    zone = zone_of(dag)
    place = dag.schedule_argument.place if dag.schedule_argument else dag.place
    cron, seconds, shown = "", 0.0, ""
    table = timetable_of(dag)
    unnamed = zone is not None and zone[0] in "+-"
    if kind == "cron" and len(rest.split()) == 5 and zone and not unnamed:
        cron, shown = " ".join(rest.split()), f"cron:{rest} {zone}"
    elif kind == "delta":
        seconds = float(rest)
        shown = f"delta:{seconds}"
    else:
        if (own := _own(dag)) is not None:
            return None, own, [
                Note(Kind.CHANGED, "schedule", place, "only Airflow has it: it is in airflow={…}, and means the same "
                     "there", "On another engine, schedule the pipeline by cron, or run it by a hook or an API call."),
                *_start_of_own(dag),
            ]  # fmt: skip
        whole = table is not None and kind in ("dataset", "timetable")  # assets may be a part of it
        wanted = " ".join(table.source.split()) if table and whole else said or "one that is unknown"
        wanted += f" in a time zone without a name, {zone}" if unnamed else ""
        wanted += "" if zone else " in a time zone that is unknown"
        return None, None, [
            Note(Kind.CHANGED, "schedule", place, f"FlowyML has no schedule like {wanted}",
                 "Schedule the pipeline by hand, or run it by a hook or an API call.")
        ]  # fmt: skip
    start = _start(dag.start_date)
    if start and start.tzinfo is None and zone != "UTC":
        start = start.replace(tzinfo=UTC)  # as for Airflow; a schedule takes it in its own zone
    made = Schedule(cron, seconds, zone if zone and zone != "UTC" else "", start, bool(dag.catchup), shown)
    if table and table.import_path.endswith(".CronPartitionTimetable"):
        return made, None, [
            Note(Kind.CHANGED, "schedule", place, "the times are kept, but the runs have no partition key",
                 "Pass the key to the runs as a parameter, or make it of LOGICAL_DATE.")
        ]  # fmt: skip
    why = "the module schedules the pipeline on Airflow when it is run as a script"
    return made, None, [Note(Kind.KEPT, "schedule", place, why), *_unknown_start(dag, made)]


def _omitted(dag: DagModel) -> Iterator[Note]:
    if dag.schedule_omitted:
        yield Note(
            Kind.CHANGED, "schedule", dag.place, "the file has none, as on Airflow 3; Airflow 2 runs such a DAG once a "
            "day", "If the DAG ran on Airflow 2, schedule the pipeline daily.",
        )  # fmt: skip


def _start(given: Any) -> datetime | None:
    """Return the start of a schedule, if the file says it; Airflow also takes a text."""
    if isinstance(given, str):
        with suppress(ValueError):
            return datetime.fromisoformat(given)
    return given if isinstance(given, datetime) else None


def _unknown_start(dag: DagModel, made: Schedule) -> Iterator[Note]:
    """Yield notes on what the schedule loses."""
    if dag.start_date is not None and made.start is None:
        what = "the intervals begin at another moment, " if made.seconds else ""
        yield Note(
            Kind.CHANGED, "start_date", dag.place, f"it is not in the file as a date: {what}and nothing before the "
            "schedule's creation is caught up", "Give start= to the schedule.",
        )  # fmt: skip
    if dag.catchup is None:
        yield Note(
            Kind.CHANGED, "catchup", dag.place, "it is off, as on Airflow 3; Airflow 2 catches up unless a file or its "
            "configuration says otherwise", "If the DAG ran on Airflow 2, give catch_up=True to the schedule.",
        )  # fmt: skip


def _start_of_own(dag: DagModel) -> Iterator[Note]:
    """Yield a note on the start of ``@once`` and ``@continuous``, which dates their first run."""
    if dag.start_date is not None and dag.schedule in ("@once", "@continuous"):
        yield Note(
            Kind.CHANGED, "start_date", dag.place, "a pipeline with a schedule of Airflow's own has no start: its DAG "
            "starts on 2020-01-01, by which its first run is dated", "Run it when it should start.",
        )  # fmt: skip


def _own(dag: DagModel) -> Any:
    if dag.schedule in ("@once", "@continuous"):
        return dag.schedule
    given = dag.schedule_value
    try:
        if isinstance(given, AssetRef) and given.parts:
            return _asset(given)
        return [_asset(each) for each in (given if isinstance(given, list | tuple | set) else [given])]
    except _UnknownError:
        return None


class _UnknownError(Exception):
    """An asset that a pipeline cannot name."""


def _asset(given: Any) -> Any:
    if not isinstance(given, AssetRef) or any("{" in each for each in (given.name, given.uri)):
        raise _UnknownError
    match given.kind:
        case "all" | "any":
            return {given.kind: [_asset(each) for each in given.parts]}
        case "alias":
            return {"alias": given.name}
        case "asset" if given.name and given.uri and given.name != given.uri:
            return {"name": given.name, "uri": given.uri}
        case "asset":
            return given.name or given.uri
    raise _UnknownError
