"""Hand a DAG's own schedule to another engine and back: read its runs, pause it, mark times as run.

A time of the schedule is the moment when Airflow creates its run, which is the end of the data interval. It identifies
the interval whether the DAG's timetable dates a run by the start of the interval (``CronDataIntervalTimetable``) or by
its end (``CronTriggerTimetable``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flowyml.core.errors import ScheduleError
from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.handover import OldSchedule
from flowyml.orchestrators.http import one_spelling
from flowyml.orchestrators.workflows import Workflow
from flowyml_airflow.client import AirflowClient, ConflictError
from flowyml_airflow.names import TAG
from flowyml_airflow.reader import AirflowReader
from flowyml_airflow.status import DAG_RUN, moment

__all__ = ["DagSchedule", "cron_or_words", "runs_by_time", "workflows"]

_MARK = "flowyml_handed_over__"
_SEEN = 100


class DagSchedule:
    """The schedule of one DAG. Each call asks Airflow."""

    def __init__(self, client: AirflowClient, dag_id: str, reader: AirflowReader) -> None:
        self._client, self.name, self._reader = client, dag_id, reader
        self.place = one_spelling(client.transport.connection.url)

    def look(self) -> OldSchedule:
        """Read the schedule. Raises ``NotThereError``, and ``ScheduleError`` for a timetable other than cron.

        The API does not show the time zone of a timetable. If that differs from the DAG's, the times differ, too.
        """
        dag = self._client.dag(self.name)
        schedule = self._schedule_of(dag)
        dag_runs = self._client.runs([self.name], _SEEN)
        runs, following = _by_time(dag_runs, schedule), moment(_next(dag))
        self._check_times(schedule, following or max(_by_time(dag_runs, None), default=None))
        return OldSchedule(
            schedule=schedule,
            catch_up=bool(dag.get("catchup")),
            is_paused=bool(dag.get("is_paused")),
            is_busy=bool(self._client.unfinished([self.name])),
            last=max(runs, default=None),
            following=following,
            waiting=frozenset(time for time, run in runs.items() if run.get("state") in ("queued", "running")),
        )

    def _schedule_of(self, dag: Mapping[str, Any]) -> Schedule:
        words = cron_or_words(dag)
        if words is None:
            raise ScheduleError(f"The DAG {self.name!r} has no schedule to hand over. Deploy the pipeline instead.")
        try:
            return Schedule(cron=words, timezone=str(dag.get("timezone") or "UTC"))
        except ScheduleError as error:
            raise ScheduleError(
                f"The DAG {self.name!r} runs by {words!r}, but only a cron expression can be handed over."
            ) from error

    def _check_times(self, schedule: Schedule, time: datetime | None) -> None:
        """Refuse a schedule near a change of the clocks: engines disagree on a time that comes twice."""
        if time and not _is_due(time, schedule) and not _clocks_change(time, schedule.timezone):
            raise ScheduleError(
                f"The DAG {self.name!r} has a run at {time}, at which {schedule.cron!r} does not fire in its zone, "
                f"{schedule.timezone}. Its timetable has another zone: give the DAG's start_date the zone of the "
                f"timetable, or remove that of the timetable. If its schedule has just changed, wait for its next run."
            )

    def runs(self, limit: int) -> Mapping[datetime, Run]:
        """Return the newest runs of the schedule, by their time."""
        handed = None
        with suppress(ScheduleError):  # it has none any more
            handed = self._schedule_of(self._client.dag(self.name))
        return runs_by_time(self._reader, self._client.runs([self.name], limit), handed)

    def pause(self, paused: bool) -> None:
        """Pause or unpause the DAG."""
        self._client.pause(self.name, paused)

    def mark_as_run(self, time: datetime, note: str) -> None:
        """Create a successful run without work for this time, so that Airflow creates none.

        The DAG must be paused. A run that Airflow created after the pause, and that does not progress, is used instead.
        """
        there = _by_time(self._client.runs([self.name], _SEEN), self.look().schedule).get(time)
        run_id = there["dag_run_id"] if there else self._make(time)
        self._client.set_success(self.name, run_id)
        self._client.note(self.name, run_id, note)

    def run_for(self, time: datetime) -> None:
        """Have Airflow run this time itself when the DAG is unpaused."""
        self._make(time)

    def _make(self, time: datetime) -> str:
        run_id, start = f"{_MARK}{time.isoformat()}", self._start_of(time, self.look().schedule)
        with suppress(ConflictError):  # it is there already, from before this process was killed
            self._client.make_run(self.name, run_id, start, start, time)
        return run_id

    def _start_of(self, time: datetime, schedule: Schedule) -> datetime:
        """Return the start of the data interval of a run, which dates it.

        It is derived from the last run of the schedule, since the API does not show the timetable: the previous time, a
        fixed duration before, or the time itself.
        """
        for run in self._client.runs([self.name], _SEEN):
            start, end = moment(run.get("logical_date")), moment(run.get("data_interval_end"))
            if run.get("run_type") == "scheduled" and start and end:
                before = schedule.dates_at(time).data_interval_start
                is_time_before = _is_same(schedule.dates_at(end).data_interval_start, start)
                return before if before and is_time_before else time - (end - start)
        return time


def runs_by_time(
    reader: AirflowReader, runs: Iterable[Mapping[str, Any]], handed: Schedule | None = None
) -> dict[datetime, Run]:
    """Return the runs of a schedule among those of a DAG, by their time.

    They include runs for times of a schedule that was handed over and came back.
    """
    return {time: reader.record(run, whole=False) for time, run in _by_time(runs, handed).items()}


def _by_time(runs: Iterable[Mapping[str, Any]], handed: Schedule | None) -> dict[datetime, Mapping[str, Any]]:
    """Return the records of the runs, by time.

    A run that Airflow's scheduler created wins over one created for its time.
    """
    by_time: dict[datetime, Mapping[str, Any]] = {}
    for run in runs:
        time = _time(run)
        if time and run.get("run_type") == "scheduled":
            by_time[time] = run
        elif time and handed and _is_made_for(run, time, handed):
            by_time.setdefault(time, run)
    return by_time


def _is_made_for(run: Mapping[str, Any], time: datetime, handed: Schedule) -> bool:
    """Return whether ``DagSchedule`` created a run. A user who may trigger the DAG can choose id and interval, too."""
    mark, _, text = str(run["dag_run_id"]).partition(_MARK)
    try:
        is_named = not mark and datetime.fromisoformat(text) == time
    except ValueError:
        return False
    return is_named and time <= datetime.now(UTC) and _is_due(time, handed)


def _is_due(time: datetime, schedule: Schedule) -> bool:
    return _is_same(schedule.dates_at(time + timedelta(microseconds=1)).data_interval_start, time)


def _is_same(time: datetime | None, other: datetime) -> bool:
    """Return whether two times are equal.

    Compares in UTC, since Python calls times of two zones different in an hour that comes twice (source: PEP 495).
    """
    return time is not None and time.astimezone(UTC) == other.astimezone(UTC)


def _clocks_change(time: datetime, zone: str) -> bool:
    """Return whether the clocks change within a day of this time."""
    day, there = timedelta(days=1), ZoneInfo(zone)
    return (time - day).astimezone(there).utcoffset() != (time + day).astimezone(there).utcoffset()


def _next(dag: Mapping[str, Any]) -> str | None:
    following: str | None = dag.get("next_dagrun_run_after") or dag.get("next_dagrun_create_after")
    return following


def _time(run: Mapping[str, Any]) -> datetime | None:
    return moment(run.get("data_interval_end") or run.get("run_after"))


_PRESETS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *", "@yearly": "0 0 1 1 *", "@midnight": "0 0 * * *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_NONE = ("", "None", "Never, external triggers only")


def workflows(client: AirflowClient, last: int) -> list[Workflow]:
    """Return all DAGs that have a file, by id; the newest ``last`` runs of each are counted."""
    listed = [_workflow(client, dag, client.runs([dag["dag_id"]], last) if last else []) for dag in client.dags()]
    return sorted(listed, key=lambda workflow: workflow.name)


def cron_or_words(dag: Mapping[str, Any]) -> str | None:
    """Return the schedule of a DAG: a cron expression if possible, otherwise Airflow's own words.

    None without a schedule.
    """
    said: Any = dag.get("timetable_summary")
    interval = dag.get("schedule_interval")  # on 2
    if isinstance(interval, dict):
        said = _of_interval(interval) or dag.get("timetable_description")
    if said is None or said in _NONE:
        return None
    return _PRESETS.get(str(said), str(said))


def _of_interval(interval: Mapping[str, Any]) -> Any:
    """Describe Airflow 2's schedule in Airflow 3's words: version 2 describes none without a cron expression."""
    parts = {name: value for name, value in interval.items() if name != "__type" and value}
    match interval.get("__type"):
        case "CronExpression":
            return interval.get("value")
        case "TimeDelta":
            return str(timedelta(**parts))
        case "RelativeDelta":
            return f"relativedelta({', '.join(f'{name}={value}' for name, value in parts.items())})"
    return None


def _workflow(client: AirflowClient, dag: Mapping[str, Any], runs: list[dict[str, Any]]) -> Workflow:
    tags = tuple(tag["name"] for tag in dag.get("tags") or ())
    return Workflow(
        name=dag["dag_id"],
        schedule=cron_or_words(dag),
        is_paused=bool(dag.get("is_paused")),
        owners=tuple(dag.get("owners") or ()),
        tags=tags,
        file=str(dag.get("fileloc") or ""),
        url=client.dag_url(dag["dag_id"]),
        is_flowymls=TAG in tags,
        runs=Counter(DAG_RUN[run["state"]] for run in runs if run["state"] in DAG_RUN),
        last_run=moment(runs[0].get("logical_date") or runs[0].get("start_date")) if runs else None,
        next_run=moment(dag.get("next_dagrun_run_after") or dag.get("next_dagrun_create_after")),
    )
