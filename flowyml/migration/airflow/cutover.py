"""From a DAG's schedule to one of a pipeline's on another engine, and back, with each interval run once.

The times of a schedule are counted: the old side has run all up to ``last``, the new schedule begins with ``first``,
and the times between them are run on the new side one by one. Each step is written down before the next is taken, and
can be taken twice: a process that is killed anywhere leaves a record with which the next one goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flowyml.core.errors import ScheduleError, UnsupportedFeatureError, WaitTimeoutError
from flowyml.core.files import write_whole
from flowyml.core.following import command_on
from flowyml.core.home import home, private_folder
from flowyml.core.locks import held
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.migration.airflow.comparison import Comparison, compared, look_at
from flowyml.migration.airflow.schedule_times import MOST_TIMES, time_before, times_between
from flowyml.orchestrators.base import Orchestrator, RunnablePipeline
from flowyml.orchestrators.handover import ForeignSchedule, OldSchedule

__all__ = ["Cutover", "Record", "shadowed"]

#: Seconds around a time of the schedule in which nothing is switched: each engine makes its run meanwhile.
QUIET = 10
#: Seconds until the new schedule begins: so long the engine may take to make it.
AHEAD = 30


@dataclass(frozen=True)
class Record:
    """How far a cutover has come. ``phase`` is one of PHASES; times are in ISO 8601. ``old`` is the DAG's ``place``.

    ``shadow`` is the first time that both sides run, where the new schedule was made beside the old one.
    """

    dag: str
    old: str
    new: str
    file: str
    pipeline: str
    phase: str = "begun"
    begun: str = ""
    last: str = ""
    first: str = ""
    made_up: list[str] = field(default_factory=list)
    stopped: str = ""
    shadow: str = ""


#: Side by side, then on the way there, then on the way back.
PHASES = ("shadowing", "shadow", "begun", "paused", "scheduling", "making up", "done", "stopping", "marking", "back")


class Cutover:
    """One DAG on its way. ``say`` gets a line for each step."""

    def __init__(self, old: ForeignSchedule, record: Record, say: Callable[[str], None], timeout: float = 3600) -> None:
        self._old, self._record, self._say = old, record, say
        self._deadline = time.monotonic() + timeout

    @staticmethod
    def recorded(old: str, dag: str) -> Record | None:
        """What was written down about a DAG of this Airflow."""
        try:
            return Record(**json.loads(_path(old, dag).read_bytes()))
        except FileNotFoundError:
            return None

    @staticmethod
    def alone(old: str, dag: str) -> AbstractContextManager[None]:
        """Only one process at a time cuts a DAG over. Raises ``ScheduleError``."""
        return _locked(_path(old, dag), f"Another process is cutting {dag!r} over.")

    @staticmethod
    def alone_there(new: str, pipeline: str) -> AbstractContextManager[None]:
        """Only one at a time cuts any DAG over to a pipeline: the next one finds the schedule that the first has made.

        Raises ``ScheduleError``.
        """
        return _locked(
            _path("to", new, pipeline),
            f"Another process is cutting a DAG over to {pipeline!r} on {new}. One schedule of a pipeline takes the "
            f"place of one DAG: wait until that process has ended, or give the pipeline another name.",
        )

    # Side by side.

    def go_beside(self, new: Orchestrator, pipeline: RunnablePipeline) -> Record:
        """Make the new schedule while the old one goes on: both run each interval, so that they can be compared.

        ``go`` then makes it the only one, and ``back`` removes it. Raises ``ScheduleError`` as ``go``, and
        ``UnsupportedFeatureError`` for a target that does not record which time a run is for.
        """
        if self._record.phase == "back" or (self._record.phase == "begun" and not self._record.shadow):
            self._check_goes(self._old.look())
            new.check_fires()
            self._ours(new)
            new.scheduled_runs(pipeline.name, limit=1)
            self._write(phase="shadowing", begun=_text(_now()), last="", first="", made_up=[], stopped="", shadow="")
        if self._record.phase == "shadowing":
            if not self._ours(new):
                schedule = self._old.look().schedule
                first = self._next_time(schedule)
                self._write(shadow=_text(first))
                new.schedule_pipeline(pipeline, replace(schedule, start=first))
            self._write(phase="shadow")
            self._say(
                f"scheduled {pipeline.name!r} on {self._record.new} beside {self._old.name!r}, first for "
                f"{self._record.shadow}"
            )
        return self._record

    def _check_shadow_goes(self, new: Orchestrator) -> None:
        new.check_fires()
        for each in self._ours(new):
            if each.paused:
                raise ScheduleError(
                    f"The schedule of {self._record.pipeline!r} on {self._record.new} is paused. Resume it: "
                    f"{command_on(new, 'schedule resume', each.schedule_id)}"
                )

    def _check_goes(self, seen: OldSchedule) -> None:
        if seen.is_paused:
            raise ScheduleError(f"The DAG {self._old.name!r} is paused: it has no schedule to hand over.")

    # There.

    def go(self, new: Orchestrator, pipeline: RunnablePipeline) -> Record:
        """Hand the schedule over, or go on where a process was killed that did.

        Raises ``ScheduleError`` for a DAG that is paused already or whose timetable is not a cron expression, for a
        pipeline that has another schedule, for a target that does not fire schedules now or cannot run what the DAG has
        missed, where people have changed a side since, and on the way back; and ``WaitTimeoutError`` where the DAG is
        never without a run.
        """
        if self._record.phase in ("stopping", "marking"):
            raise ScheduleError(
                f"A cutover --back of {self._old.name!r} is in progress ({self._record.phase}). Finish it first: run "
                f"this command with --back."
            )
        if self._record.phase == "done":
            self._check_stands(new)
        if self._record.phase == "shadowing":
            self.go_beside(new, pipeline)
        if self._record.phase in ("begun", "back"):
            self._begin(new, pipeline)
        if self._record.phase == "shadow":
            self._check_shadow_goes(new)
            self._write(phase="begun")
        if self._record.phase == "begun":
            self._pause(new)
        if self._record.phase in ("paused", "scheduling"):
            self._schedule(new, pipeline)
        if self._record.phase == "making up":
            self._make_up(new)
        return self._record

    def _check_stands(self, new: Orchestrator) -> None:
        """Raise ``ScheduleError`` where people have changed a side since: both run each interval now, or none does."""
        old, pipeline, engine = self._old.name, self._record.pipeline, self._record.new
        if not self._old.look().is_paused:
            raise ScheduleError(
                f"{old!r} was handed over to {engine}, and is not paused any more: {pipeline!r} runs there beside it. "
                f"Pause the DAG in Airflow, or hand the schedule back with --back."
            )
        if not self._ours(new):
            raise ScheduleError(
                f"{old!r} was handed over to {engine}, and {pipeline!r} has no schedule there any more: nothing runs. "
                f"Hand the schedule back with --back; then it can be handed over again."
            )

    def _begin(self, new: Orchestrator, pipeline: RunnablePipeline) -> None:
        if self._record.phase == "back" or not self._record.shadow:
            self._ours(new)
        new.check_fires()
        if not self._record.begun or self._record.phase == "back":
            self._check_goes(self._old.look())
            self._write(phase="begun", begun=_text(_now()), last="", first="", made_up=[], stopped="", shadow="")
        if not self._record.shadow:
            new.deploy_pipeline(pipeline)
            self._say(f"deployed {pipeline.name!r} on {self._record.new}")

    def _pause(self, new: Orchestrator) -> None:
        """Pause the DAG while none of its runs goes on: those of a paused DAG would stand still.

        A target that cannot run what has passed needs its schedule before the next time comes.
        """
        while True:
            self._wait_for_quiet(self._old.look().schedule, QUIET if new.can_run_missed else QUIET + AHEAD)
            seen = self._old.look()
            if seen.is_busy:
                self._old.pause(False)  # where a process was killed between the pause and this
                self._wait(2, f"a run of {self._old.name!r} goes on")
                continue
            if not new.can_run_missed and not seen.is_paused:
                self._check_missed(seen)
            self._old.pause(True)
            time.sleep(3)  # what the scheduler had begun is there by then
            seen = self._old.look()
            if not seen.is_busy:
                break
            self._old.pause(False)
        last = seen.last or time_before(seen.schedule, _time(self._record.begun))
        self._write(phase="paused", last=_text(last))
        self._say(f"paused {self._old.name!r} on {self._record.old}, which has run all until {_text(last)}")

    def _check_missed(self, seen: OldSchedule) -> None:
        """Raise ``ScheduleError`` for a time that neither side would run."""
        last, shadow = seen.last or time_before(seen.schedule, _time(self._record.begun)), self._record.shadow
        first = _time(shadow) if shadow else self._next_time(seen.schedule)
        if missed := self._missed(seen, last, first):
            raise ScheduleError(
                f"{self._record.new} cannot run times that have passed, and {self._old.name!r} has not run "
                f"{_text(missed[0])}. Nothing was paused. Have the DAG run it first, or cut over to Prefect or local."
            )

    def _schedule(self, new: Orchestrator, pipeline: RunnablePipeline) -> None:
        """Make the new schedule, whose first time is far enough ahead that it is there by then."""
        if self._record.phase == "paused" and self._old.look().is_busy:
            self._write(phase="begun")  # its scheduler was late with a run, which stands still while the DAG is paused
            self._pause(new)
        seen, there = self._old.look(), self._ours(new)
        made = there[0].schedule.start if there else None
        first = made or self._next_time(seen.schedule)
        self._write(phase="scheduling", first=_text(first))
        if (missed := self._missed(seen, _time(self._record.last), first)) and not new.can_run_missed:
            # A DAG that is still paused after a kill is paused once more, and unpaused.
            self._write(phase="shadow" if self._record.shadow else "begun", first="")
            self._old.pause(False)
            raise ScheduleError(
                f"{self._record.new} cannot run times that have passed, such as {_text(missed[0])}. "
                f"{self._old.name!r} is unpaused again. Cut over to Prefect or local, or run this just after a run "
                f"has ended."
            )
        if made is None:
            new.schedule_pipeline(pipeline, replace(seen.schedule, start=first))
            if _now() >= first:
                raise ScheduleError(
                    f"{self._record.new} took until after {_text(first)} to make the schedule. Look whether "
                    f"{pipeline.name!r} ran for that time, delete its schedule, and run this command again."
                )
            self._say(f"scheduled {pipeline.name!r} on {self._record.new}, first for {_text(first)}")
        else:
            self._say(f"kept the schedule of {pipeline.name!r} on {self._record.new}, first for {_text(first)}")
        self._write(phase="making up")

    def _make_up(self, new: Orchestrator) -> None:
        """Run the times between the old schedule and the new one, each when it has come."""
        first, last = _time(self._record.first), _time(self._record.last)
        for missed in self._missed(self._old.look(), last, first):
            if _text(missed) in self._record.made_up:
                continue
            while _now() < missed:
                time.sleep(min(1, max(0.05, (missed - _now()).total_seconds())))
            there = new.schedules(self._record.pipeline)
            if len(there) != 1:
                raise ScheduleError(
                    f"{self._record.new} has {len(there)} schedules of {self._record.pipeline!r} instead of the one "
                    f"that this cutover made. Create or delete schedules until there is exactly one, with "
                    f"`flowyml schedule create` or `delete`, and run this command again: it still has to run "
                    f"{_text(missed)}."
                )
            new.run_missed(there[0].schedule_id, missed)  # the same time twice is one run
            self._write(made_up=[*self._record.made_up, _text(missed)])
            self._say(f"ran {self._record.pipeline!r} on {self._record.new} for {_text(missed)}")
        self._write(phase="done")

    def _missed(self, seen: OldSchedule, last: datetime, first: datetime) -> list[datetime]:
        """The times after the last of the old side and before the first of the new one.

        A DAG without catch-up makes up for the last time alone of those that it had missed by itself.
        """
        begun = _time(self._record.begun)
        found = times_between(seen.schedule, last, first - timedelta(microseconds=1))
        if seen.catch_up:
            return found
        before = [each for each in found if each <= begun]
        return before[-1:] + [each for each in found if each > begun]

    # And back.

    def back(self, new: Orchestrator) -> Record:
        """Hand the schedule back to the DAG, which then goes on with what the new side has not run.

        One that was made beside it is removed. Raises ``ScheduleError`` while the new side is getting its schedule.
        """
        if self._record.phase in ("shadowing", "shadow"):
            self._remove_shadow(new)
            self._write(phase="back", last=_text(_now()))  # the end of what is compared
        if self._record.phase in ("begun", "paused"):
            self._undo(new)
        if self._record.phase not in PHASES[PHASES.index("done") :]:
            raise ScheduleError(
                f"The cutover of {self._old.name!r} is not finished ({self._record.phase}). Run it again without "
                f"--back first."
            )
        if self._record.phase in ("done", "stopping"):
            self._stop(new)
        if self._record.phase == "marking":
            self._mark()
        return self._record

    def _undo(self, new: Orchestrator) -> None:
        """Before the new side has the schedule alone: a DAG that is paused misses what came since its last run.

        Where both ran, the new side has run that.
        """
        seen = self._old.look()
        if not seen.is_paused:
            self._remove_shadow(new)
            self._write(phase="back", last=_text(_now()))
            self._say(f"{self._old.name!r} still runs on {self._record.old}: nothing was handed over")
            return
        last, shadow = seen.last or time_before(seen.schedule, _time(self._record.begun)), self._record.shadow
        if shadow and not times_between(seen.schedule, last, _time(shadow) - timedelta(microseconds=1)):
            self._write(phase="done", last=_text(last), first=shadow)
        else:
            self._remove_shadow(new)
            self._write(phase="marking", last=_text(last), stopped=_text(last))

    def _remove_shadow(self, new: Orchestrator) -> None:
        if not self._record.shadow:
            return
        for each in new.schedules(self._record.pipeline):
            if self._is_ours(each.schedule):
                new.delete_schedule(each.schedule_id)
                self._say(f"removed the schedule of {self._record.pipeline!r} on {self._record.new}")

    def _stop(self, new: Orchestrator) -> None:
        """End the new schedule. One that fires has run all until now; else its last run says how far it came."""
        seen, there = self._old.look(), self._ours(new)
        if not seen.is_paused:  # by hand, and so it has run by itself what it missed
            for each in there:
                new.delete_schedule(each.schedule_id)
            self._write(phase="back")
            self._say(f"{self._old.name!r} runs on {self._record.old} already")
            return
        if any(not each.paused for each in there):
            self._wait_for_quiet(seen.schedule)
            stopped = time_before(seen.schedule, _now())
        else:
            stopped = self._last_run(new, seen.schedule, is_paused=bool(there))
        self._write(phase="stopping", stopped=_text(stopped))
        for each in there:
            new.delete_schedule(each.schedule_id)
        self._write(phase="marking")
        self._say(
            f"stopped {self._record.pipeline!r} on {self._record.new}, which has run all until {self._record.stopped}"
        )

    def _last_run(self, new: Orchestrator, schedule: Schedule, *, is_paused: bool) -> datetime:
        """The last time that either side has run, where the new schedule does not fire any more."""
        known, now = _time(self._record.last), _now()
        if self._record.phase == "stopping":
            known = max(known, _time(self._record.stopped))
        try:
            runs = new.scheduled_runs(self._record.pipeline, limit=MOST_TIMES)
        except UnsupportedFeatureError:
            if self._record.phase == "stopping" and not is_paused:  # this cutover itself has deleted it
                return known
            raise ScheduleError(
                f"The schedule of {self._record.pipeline!r} on {self._record.new} is "
                f"{'paused' if is_paused else 'not there any more'}, and {self._record.new} does not record "
                f"which times it has run. Unpause {self._old.name!r} in Airflow, which then runs what it missed, and "
                f"again what ran on {self._record.new}; then run this command again."
            ) from None
        return max([known, *(time for time in runs if known < time <= now and time_before(schedule, time) == time)])

    def _mark(self) -> None:
        """Tell the DAG what ran elsewhere, and unpause it."""
        seen = self._old.look()
        stopped = _time(self._record.stopped)
        if stopped > _time(self._record.last):
            done = times_between(seen.schedule, _time(self._record.last), stopped)
            for each in done if seen.catch_up else [each for each in done if _may_run(seen, each) or each == done[-1]]:
                self._old.mark_as_run(each, f"run by FlowyML on {self._record.new}")
        if not seen.catch_up:  # Airflow itself runs the last alone of those that it missed, and not while others run
            for each in times_between(seen.schedule, stopped, _now()):
                self._old.run_for(each)
        self._old.pause(False)
        self._write(phase="back")
        self._say(f"unpaused {self._old.name!r} on {self._record.old}")

    # What both use.

    @staticmethod
    def _next_time(schedule: Schedule) -> datetime:
        """The next one that is far enough ahead for a new schedule to be there by then."""
        return schedule.next_times(1, _now() + timedelta(seconds=AHEAD))[0].astimezone(UTC)

    def _ours(self, new: Orchestrator) -> list[ScheduleInfo]:
        """The schedule that this cutover made, if it is there. Raises ``ScheduleError`` where another one is."""
        there = list(new.schedules(self._record.pipeline))
        for each in there:
            if not self._is_ours(each.schedule):
                raise ScheduleError(
                    f"{self._record.pipeline!r} has a schedule on {self._record.new} that this cutover did not make. "
                    f"If you do not need it, delete it and run this command again: "
                    f"{command_on(new, 'schedule delete', each.schedule_id)}"
                )
        return there

    def _is_ours(self, there: Schedule) -> bool:
        """By its first time: what was made before the last way back is gone."""
        made = () if self._record.phase == "back" else (self._record.shadow, self._record.first)
        return there.start is not None and _text(there.start) in made

    def _wait_for_quiet(self, schedule: Schedule, ahead: float | None = None) -> None:
        """Until no time of the schedule has just come, or comes within so many seconds, by default ``QUIET``."""
        while True:
            now = _now()
            coming = schedule.next_times(1, now - timedelta(seconds=QUIET))[0]
            if coming > now + timedelta(seconds=QUIET if ahead is None else ahead):
                return
            self._wait(min(1.0, QUIET), "the schedule is never quiet for long enough")

    def _wait(self, seconds: float, why: str) -> None:
        if time.monotonic() > self._deadline:
            raise WaitTimeoutError(f"Gave up waiting: {why}. What was done is recorded: run the same command again.")
        time.sleep(seconds)

    def _write(self, **changes: Any) -> None:
        self._record = replace(self._record, **changes)
        save(self._record)


def shadowed(old: Orchestrator, new: Orchestrator, record: Record, last: int) -> Comparison:
    """The newest times that both sides were to run, and what each made of them."""
    most = 100 + 10 * last  # runs that were made by hand are between them
    sides = old.foreign_schedule(record.dag).runs(most), new.scheduled_runs(record.pipeline, limit=most)
    since, until = _time(record.shadow), _time(record.last) if record.last else _now()
    times = sorted(time for time in sides[0].keys() | sides[1].keys() if since <= time <= until)[-last:]
    before, after = (
        {time: look_at(engine, runs[time]) for time in times if time in runs}
        for engine, runs in zip((old, new), sides, strict=True)
    )
    return compared(record.dag, record.pipeline, before, after)


def save(record: Record) -> None:
    """Write a record down, whole, and on the disk."""
    path = _path(record.old, record.dag)
    write_whole(path, json.dumps(asdict(record), indent=2).encode(), 0o600)


def _path(*names: str) -> Path:
    folder = private_folder(home() / "cutovers")
    return folder / f"{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]}.json"


@contextmanager
def _locked(path: Path, taken: str) -> Iterator[None]:
    """Hold the lock beside a record; raise ``ScheduleError`` where another process does."""
    with held(path.with_suffix(".lock")) as is_free:
        if is_free is False:
            raise ScheduleError(taken)
        yield


def _now() -> datetime:
    return datetime.now(UTC)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _may_run(seen: OldSchedule, time: datetime) -> bool:
    """Whether a DAG without catch-up would run a time that has passed, once it is unpaused.

    A busy scheduler may have made the run after the pause; and which one comes next Airflow works out when it reads the
    DAG file, which it may not have done since.
    """
    return time in seen.waiting or (seen.following is not None and time >= seen.following)
