"""The logical dates of Airflow's runs, and the differences in a pipeline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from enum import Enum

from flowyml.migration.airflow.model import DagModel, Reference, Symbolic
from flowyml.migration.airflow.writer.notes import Kind, Note

__all__ = ["Dated", "asks_for_dates", "dated", "notes_of_dates", "timetable_of", "zone_of"]

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
    given = {each.name: each.value for each in table.arguments} if table else {}
    zone = given.get("timezone", given.get("1", dag.timezone))
    return zone if isinstance(zone, str) else None


def timetable_of(dag: DagModel) -> Reference | None:
    """Return the timetable in the DAG's schedule argument."""
    given = dag.schedule_value
    given = given.default if isinstance(given, Symbolic) else given
    return given if isinstance(given, Reference) else None


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
