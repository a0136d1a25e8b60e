"""A DAG's own schedule, which is handed to another engine, and back: what it has run, pausing, and marking as run.

A time on the schedule is that at which Airflow makes its run: the end of the data interval. It names the interval
whether the DAG's timetable dates a run by the start of the interval (``CronDataIntervalTimetable``) or by its end
(``CronTriggerTimetable``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from flowyml.core.errors import ScheduleError
from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.handover import OldSchedule
from flowyml_airflow.client import AirflowClient, ConflictError
from flowyml_airflow.reading import RunReader
from flowyml_airflow.status import moment
from flowyml_airflow.workflows import cron_or_words

__all__ = ["DagSchedule", "runs_by_time"]

_MARK = "flowyml_handed_over__"
_SEEN = 100


class DagSchedule:
    """The schedule of one DAG. Each call asks Airflow."""

    def __init__(self, client: AirflowClient, dag_id: str, reader: RunReader) -> None:
        self._client, self.name, self._reader = client, dag_id, reader

    def look(self) -> OldSchedule:
        """How it stands. Raises ``NotThereError``, and ``ScheduleError`` for a timetable other than cron."""
        dag = self._client.dag(self.name)
        words = cron_or_words(dag)
        if words is None:
            raise ScheduleError(f"The DAG {self.name!r} has no schedule: there is nothing to hand over.")
        try:
            schedule = Schedule(cron=words, timezone=str(dag.get("timezone") or "UTC"))
        except ScheduleError as error:
            raise ScheduleError(
                f"The DAG {self.name!r} runs by {words!r}, and only a cron expression can be handed over."
            ) from error
        runs = filter(_is_of_schedule, self._client.runs([self.name], _SEEN))
        return OldSchedule(
            schedule=schedule,
            catch_up=bool(dag.get("catchup")),
            is_paused=bool(dag.get("is_paused")),
            is_busy=self._client.is_busy([self.name]),
            last=max((time for run in runs if (time := _time(run))), default=None),
        )

    def runs(self, most: int) -> Mapping[datetime, Run]:
        """The newest runs of the schedule, by their time."""
        return runs_by_time(self._reader, self._client.runs([self.name], most))

    def pause(self, paused: bool) -> None:
        """Pause or unpause the DAG."""
        self._client.pause(self.name, paused)

    def mark_as_run(self, time: datetime, note: str) -> None:
        """Have a run in Airflow for this time that ended well and did nothing, so that Airflow makes none.

        The DAG must be paused.
        """
        run_id = self._make(time)
        self._client.set_success(self.name, run_id)
        self._client.note(self.name, run_id, note)

    def run_for(self, time: datetime) -> None:
        """Have Airflow run this time itself, when the DAG is unpaused."""
        self._make(time)

    def _make(self, time: datetime) -> str:
        schedule = self.look().schedule
        start = schedule.dates_at(time).data_interval_start
        run_id = f"{_MARK}{time.isoformat()}"
        logical = start if self._is_dated_by_start() and start else time
        with suppress(ConflictError):  # it is there already, from before this process was killed
            self._client.make_run(self.name, run_id, logical, start or time, time)
        return run_id

    def _is_dated_by_start(self) -> bool:
        """By its last run of the schedule, since the API does not give the timetable."""
        for run in self._client.runs([self.name], _SEEN):
            if run.get("run_type") == "scheduled":
                return moment(run.get("logical_date")) != moment(run.get("data_interval_end"))
        return False


def runs_by_time(reader: RunReader, runs: Iterable[Mapping[str, Any]]) -> dict[datetime, Run]:
    """The runs of a schedule among those of a DAG, by their time."""
    return {time: reader.run(run, whole=False) for run in runs if _is_of_schedule(run) and (time := _time(run))}


def _is_of_schedule(run: Mapping[str, Any]) -> bool:
    return run.get("run_type") == "scheduled" or str(run["dag_run_id"]).startswith(_MARK)


def _time(run: Mapping[str, Any]) -> datetime | None:
    return moment(run.get("data_interval_end") or run.get("run_after"))
