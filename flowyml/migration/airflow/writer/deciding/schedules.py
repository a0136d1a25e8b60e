"""The schedule of a pipeline, in FlowyML's words, and the logical dates of Airflow's runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

from flowyml.core.errors import ScheduleError
from flowyml.core.schedule import Schedule
from flowyml.migration.airflow.model import AssetRef, DagModel, Reference, Symbolic, values_in
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import Unwritable

_DATES = re.compile(
    r"\b(ds|ts|ds_nodash|ts_nodash\w*|logical_date|execution_date|data_interval_(start|end)|dag_run|"
    r"(next|prev|yesterday|tomorrow)_(ds|execution)\w*)\b"
)


class Dated(Enum):
    """The logical date that Airflow gives a DAG's runs.

    ``MOMENT``: the time of the run, which is also both ends of its interval, as without a schedule. ``START``: the
    start of its interval, the previous scheduled time. ``EITHER``: the one in Airflow 3, the other in Airflow 2 (and in
    Airflow 3 with ``create_cron_data_intervals``). ``SHIFTED``: the time of the run minus an interval in the
    timetable's arguments. ``OTHER``: FlowyML has no such schedule. Source: airflow.timetables.
    """

    MOMENT = "moment"
    START = "start"
    EITHER = "either"
    SHIFTED = "shifted"
    OTHER = "other"


def dated(dag: DagModel) -> Dated:
    """Return the kind of logical date of a DAG's runs."""
    if dag.schedule == "None":
        return Dated.MOMENT
    if (dag.schedule or "").partition(":")[0] not in ("cron", "delta"):
        return Dated.OTHER
    table = timetable_of(dag)
    name = table.import_path.rpartition(".")[2] if table else ""
    if name.endswith("DataIntervalTimetable"):
        return Dated.START
    if table is None or not name.endswith("Timetable"):
        return Dated.EITHER
    spans = [each.value for each in table.arguments if each.name == "interval"]
    return Dated.SHIFTED if any(span != timedelta() for span in spans) else Dated.MOMENT


def zone_of(dag: DagModel) -> str | None:
    """Return the time zone of a DAG's schedule: that of its timetable, else the DAG's. None if it is unknown."""
    table = timetable_of(dag)
    arguments = {each.name: each.value for each in table.arguments} if table else {}
    zone = arguments.get("timezone", arguments.get("1", dag.timezone))
    return zone if isinstance(zone, str) else None


def timetable_of(dag: DagModel) -> Reference | None:
    """Return the timetable in the DAG's schedule argument."""
    value = dag.schedule_value
    value = value.default if isinstance(value, Symbolic) else value
    return value if isinstance(value, Reference) else None


def asks_for_dates(text: str) -> bool:
    """Return whether a template or the text of a function names one of Airflow's dates that depend on the timetable."""
    return bool(_DATES.search(text))


def notes_of_dates(dag: DagModel, names: Sequence[str], by_operators: bool) -> Iterator[Note]:
    """Yield notes on differences of the logical date, in parameters and in operators."""
    place = dag.schedule_argument.place if dag.schedule_argument else dag.place
    shown, how = ", ".join(names), dated(dag)
    if names and how is Dated.START:
        yield Note(
            Kind.CHANGED, shown, place, "it is the start of the run's interval, as with the DAG's timetable; a "
            "manual run has none", "Pass it to a manual run as a parameter.",
        )  # fmt: skip
    if names and how is Dated.EITHER:
        yield Note(
            Kind.CHANGED, shown, place, "it is the time of the run, as on Airflow 3; on Airflow 2 this is the "
            "previous scheduled time", "If the DAG ran on Airflow 2, make DATA_INTERVAL_START its default.",
        )  # fmt: skip
    if names and how is Dated.SHIFTED:
        yield Note(
            Kind.CHANGED, shown, place, "it is the time of the run, but the DAG's timetable uses the start of an "
            "interval of its own", "Subtract the interval.",
        )  # fmt: skip
    if by_operators and how in (Dated.START, Dated.EITHER, Dated.SHIFTED):
        yield Note(
            Kind.CHANGED, "dates that operators ask for", place, "they are the time of the run, "
            + ("as on Airflow 3; on Airflow 2 this is the previous scheduled time" if how is Dated.EITHER
               else "but the DAG's timetable uses the start of an interval"),
            "Compare the results of the operators.",
        )  # fmt: skip


def schedule_of(dag: DagModel) -> tuple[Schedule | None, Any, list[Note]]:
    """Return the schedule of a DAG as FlowyML's, if possible, else as Airflow's own; and notes.

    For the form of Airflow's own see flowyml_airflow.options.
    """
    said = dag.schedule if dag.schedule_known else None
    if said == "None":
        if not dag.schedule_omitted:
            return None, None, []
        return None, None, [
            Note(Kind.CHANGED, "schedule", dag.place, "the file has none, as on Airflow 3; Airflow 2 runs such a DAG "
                 "once a day", "If the DAG ran on Airflow 2, schedule the pipeline daily.")
        ]  # fmt: skip
    kind, _, rest = (said or "").partition(":")
    zone = zone_of(dag)
    place = dag.schedule_argument.place if dag.schedule_argument else dag.place
    table = timetable_of(dag)
    unnamed = zone is not None and zone[0] in "+-"
    start = _start(dag.start_date)
    made = None
    with suppress(ScheduleError):
        options: dict[str, Any] = {"start": start, "end": _end(dag), "catch_up": bool(start and dag.catchup)}
        if kind == "cron" and zone and not unnamed:
            made = Schedule(cron=" ".join(rest.split()), timezone=zone, **options)
        elif kind == "delta":
            named = zone if zone and not unnamed else "UTC"
            made = Schedule(interval_seconds=float(rest), timezone=named, **options)
    if made is None:
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
    if table and table.import_path.endswith(".CronPartitionTimetable"):
        return made, None, [
            Note(Kind.CHANGED, "schedule", place, "the times are kept, but the runs have no partition key",
                 "Pass the key to the runs as a parameter, or make it of LOGICAL_DATE.")
        ]  # fmt: skip
    why = "the pipeline declares it: flowyml deploy sets it"
    return made, None, [Note(Kind.KEPT, "schedule", place, why), *_unknown_start(dag, made)]


def _start(value: Any) -> datetime | None:
    """Return the start of a schedule, in UTC unless the file names a zone; None if the file does not say it."""
    if isinstance(value, str):  # which Airflow takes too
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _end(dag: DagModel) -> datetime | None:
    """Return the end of a schedule: in the DAG's time zone, unless the file names another."""
    end = next((each.value for each in dag.arguments if each.name == "end_date"), None)
    if not isinstance(end, datetime) or end.tzinfo:
        return end if isinstance(end, datetime) else None
    with suppress(LookupError, TypeError, ValueError):
        return end.replace(tzinfo=ZoneInfo(dag.timezone or ""))
    return None


def lost_of_schedule(dag: DagModel, made: Schedule | None) -> Iterator[Note]:
    """Yield notes on the DAG's end if no schedule has it, and on parts of the assets that a pipeline does not name."""
    for each in dag.arguments:
        if each.name == "end_date" and each.value is not None and (made is None or made.end is None):
            yield Note(Kind.CHANGED, "end_date of the DAG", each.place, "it is not the end of a schedule of the "
                       "pipeline", "Give end= to the schedule, or stop the runs by hand.")  # fmt: skip
    pairs = [(each, dag.schedule_argument) for each in values_in(dag.schedule_value)]
    pairs += [(each, of) for task in dag.tasks for of in task.arguments for each in values_in(of.value)]
    for value, argument in pairs:
        for asset in _flat(value):
            if asset.more and argument is not None:
                yield Note(Kind.CHANGED, f"{', '.join(asset.more)} of the asset {asset}", argument.place, "an asset "
                           "has its name and URI here", "Add it to the asset where another DAG names it.")  # fmt: skip


def _flat(asset: Any) -> Iterator[AssetRef]:
    if isinstance(asset, AssetRef):
        yield from (asset, *(each for part in asset.parts for each in _flat(part)))


def _unknown_start(dag: DagModel, made: Schedule) -> Iterator[Note]:
    """Yield notes on what the schedule loses."""
    if made.start is None and (dag.start_date is not None or dag.catchup):
        what = "the intervals begin at another moment, " if made.interval_seconds else ""
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
    value = dag.schedule_value
    try:
        if isinstance(value, AssetRef) and value.parts:
            return _asset(value)
        return [_asset(each) for each in (value if isinstance(value, list | tuple | set) else [value])]
    except Unwritable:
        return None


def _asset(value: Any) -> Any:
    """Return an asset in Airflow's own form. Raises ``Unwritable`` for one that a pipeline cannot name."""
    if not isinstance(value, AssetRef) or any("{" in each for each in (value.name, value.uri)):
        raise Unwritable
    match value.kind:
        case "all" | "any":
            return {value.kind: [_asset(each) for each in value.parts]}
        case "alias":
            return {"alias": value.name}
        case "asset" if value.name and value.uri and value.name != value.uri:
            return {"name": value.name, "uri": value.uri}
        case "asset":
            return value.name or value.uri
    raise Unwritable
