"""Hand a DAG's schedule over to a pipeline's on another engine, and back, with each interval run once.

The times of a schedule are counted: the old side has run all until ``last``, the new schedule begins with ``first``,
and the new side runs the times between them one by one. Each step is recorded before the next begins, and can be
repeated: a process that is killed anywhere leaves a record from which the next one continues.
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
from flowyml.orchestrators import handover
from flowyml.orchestrators.base import Orchestrator, RunnablePipeline
from flowyml.orchestrators.handover import ForeignSchedule, OldSchedule

#: Seconds around a time of the schedule in which nothing is switched: each engine creates its run then.
QUIET = 10
#: Seconds until the new schedule begins: the time that the engine may need to create it.
AHEAD = 30


@dataclass(frozen=True)
class Record:
    """The progress of a cutover. ``phase`` is one of PHASES; times are in ISO 8601. ``old`` is the DAG's ``place``.

    ``shadow`` is the first time that both sides run, if the new schedule was created beside the old one.
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


#: The phases: side by side, handing over, handing back.
PHASES = ("shadowing", "shadow", "begun", "paused", "scheduling", "making up", "done", "stopping", "marking", "back")


class Cutover:
    """The cutover of one DAG. ``say`` gets a line for each step."""

    def __init__(self, old: ForeignSchedule, record: Record, say: Callable[[str], None], timeout: float = 3600) -> None:
        self._old, self._record, self._say = old, record, say
        self._deadline = time.monotonic() + timeout

    @staticmethod
    def recorded(old: str, dag: str) -> Record | None:
        """Read the record of a DAG of this Airflow; None if it has none."""
        try:
            return Record(**json.loads(_path(old, dag).read_bytes()))
        except FileNotFoundError:
            return None

    @staticmethod
    def alone(old: str, dag: str) -> AbstractContextManager[None]:
        """Let only one process at a time cut a DAG over. Raises ``ScheduleError``."""
        return _locked(_path(old, dag), f"Another process is cutting {dag!r} over.")

    @staticmethod
    def alone_there(new: str, pipeline: str) -> AbstractContextManager[None]:
        """Let only one process at a time cut a DAG over to a pipeline: the next process finds the first one's schedule.

        Raises ``ScheduleError``.
        """
        return _locked(
            _path("to", new, pipeline),
            f"Another process is cutting a DAG over to {pipeline!r} on {new}. One schedule of a pipeline takes the "
            f"place of one DAG: wait until that process has ended, or give the pipeline another name.",
        )

    # Side by side.

    def go_beside(self, new: Orchestrator, pipeline: RunnablePipeline) -> Record:
        """Create the new schedule while the old one continues: both run each interval, so that they can be compared.

        ``go`` then makes it the only schedule, and ``back`` removes it. Raises ``ScheduleError`` as ``go``, and
        ``UnsupportedFeatureError`` for a target that does not record the scheduled time of a run.
        """
        if self._record.phase == "back" or (self._record.phase == "begun" and not self._record.shadow):
            self._check_goes(self._old.look())
            handover.check_fires(new)
            self._ours(new)
            handover.scheduled_runs(new, pipeline.name, limit=1)
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
        handover.check_fires(new)
        for each in self._ours(new):
            if each.paused:
                raise ScheduleError(
                    f"The schedule of {self._record.pipeline!r} on {self._record.new} is paused. Resume it: "
                    f"{command_on(new, 'schedule resume', each.schedule_id)}"
                )

    def _check_goes(self, seen: OldSchedule) -> None:
        if seen.is_paused:
            raise ScheduleError(f"The DAG {self._old.name!r} is paused: it has no schedule to hand over.")

    # Handing over.

    def go(self, new: Orchestrator, pipeline: RunnablePipeline) -> Record:
        """Hand the schedule over, or continue for a process that was killed while it did.

        Raises ``ScheduleError`` for a DAG that is paused already or whose timetable is not a cron expression, for a
        pipeline that has another schedule, for a target that does not run schedules now or cannot run the DAG's missed
        times, if people have changed a side since, and on the way back; and ``WaitTimeoutError`` if the DAG is never
        without a run.
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
        """Raise ``ScheduleError`` if people have changed a side, so that both run each interval, or neither."""
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
        handover.check_fires(new)
        if not self._record.begun or self._record.phase == "back":
            self._check_goes(self._old.look())
            self._write(phase="begun", begun=_text(_now()), last="", first="", made_up=[], stopped="", shadow="")
        if not self._record.shadow:
            new.deploy(pipeline.bundle(new.plan(pipeline)))
            self._say(f"deployed {pipeline.name!r} on {self._record.new}")

    def _pause(self, new: Orchestrator) -> None:
        """Pause the DAG while it has no active run: the runs of a paused DAG would not progress.

        A target that cannot run past times needs its schedule before the next time comes.
        """
        while True:
            self._wait_for_quiet(self._old.look().schedule, QUIET if handover.can_run_missed(new) else QUIET + AHEAD)
            seen = self._old.look()
            if seen.is_busy:
                self._old.pause(False)  # where a process was killed between the pause and this
                self._wait(2, f"a run of {self._old.name!r} goes on")
                continue
            if not handover.can_run_missed(new) and not seen.is_paused:
                self._check_missed(seen)
            self._old.pause(True)
            time.sleep(3)  # runs that the scheduler had begun exist by then
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
        """Create the new schedule. Its first time is late enough for the engine to have the schedule by then."""
        if self._record.phase == "paused" and self._old.look().is_busy:
            self._write(phase="begun")  # its scheduler was late with a run, which is stuck while the DAG is paused
            self._pause(new)
        seen, there = self._old.look(), self._ours(new)
        made = there[0].schedule.start if there else None
        first = made or self._next_time(seen.schedule)
        self._write(phase="scheduling", first=_text(first))
        if (missed := self._missed(seen, _time(self._record.last), first)) and not handover.can_run_missed(new):
            # A DAG that is still paused after a kill is paused again, and unpaused.
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
            handover.run_missed(new, there[0].schedule_id, missed)  # the same time twice is one run
            self._write(made_up=[*self._record.made_up, _text(missed)])
            self._say(f"ran {self._record.pipeline!r} on {self._record.new} for {_text(missed)}")
        self._write(phase="done")

    def _missed(self, seen: OldSchedule, last: datetime, first: datetime) -> list[datetime]:
        """Return the times after the last of the old side and before the first of the new one.

        Without catch-up, a DAG runs only the last of the times that it had missed by itself.
        """
        begun = _time(self._record.begun)
        found = times_between(seen.schedule, last, first - timedelta(microseconds=1))
        if seen.catch_up:
            return found
        before = [each for each in found if each <= begun]
        return before[-1:] + [each for each in found if each > begun]

    # Handing back.

    def back(self, new: Orchestrator) -> Record:
        """Hand the schedule back to the DAG, which then continues with the times that the new side has not run.

        A schedule that was created beside the DAG's is removed. Raises ``ScheduleError`` while the new side is getting
        its schedule.
        """
        if self._record.phase in ("shadowing", "shadow"):
            self._remove_shadow(new)
            self._write(phase="back", last=_text(_now()))  # the end of the comparison
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
        """Undo a cutover before the new side has the schedule alone: a paused DAG misses the times since its last run.

        If both sides ran, the new side has run those times.
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
        """End the new schedule.

        An active one has run all times until now; otherwise its last run shows how far it came.
        """
        seen, there = self._old.look(), self._ours(new)
        if not seen.is_paused:  # by hand, so it has run itself the times that it missed
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
        """Return the last time that either side has run, if the new schedule is no longer active."""
        known, now = _time(self._record.last), _now()
        if self._record.phase == "stopping":
            known = max(known, _time(self._record.stopped))
        try:
            runs = handover.scheduled_runs(new, self._record.pipeline, limit=MOST_TIMES)
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
        """Mark in the DAG the times that ran elsewhere, and unpause it."""
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

    # For both ways.

    @staticmethod
    def _next_time(schedule: Schedule) -> datetime:
        """Return the next time that is late enough for the engine to have a new schedule by then."""
        return schedule.next_times(1, _now() + timedelta(seconds=AHEAD))[0].astimezone(UTC)

    def _ours(self, new: Orchestrator) -> list[ScheduleInfo]:
        """Return the schedule of this cutover, if it exists.

        Raises ``ScheduleError`` if the pipeline has another one.
        """
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
        """Return whether this cutover created a schedule, by its first time: handing back removes earlier ones."""
        made = () if self._record.phase == "back" else (self._record.shadow, self._record.first)
        return there.start is not None and _text(there.start) in made

    def _wait_for_quiet(self, schedule: Schedule, ahead: float | None = None) -> None:
        """Wait until no time of the schedule has just come, or comes within this many seconds, by default ``QUIET``."""
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
    """Compare the newest times that both sides were to run."""
    limit = 100 + 10 * last  # runs by hand are among them
    sides = (
        handover.foreign_schedule(old, record.dag).runs(limit),
        handover.scheduled_runs(new, record.pipeline, limit=limit),
    )
    since, until = _time(record.shadow), _time(record.last) if record.last else _now()
    times = sorted(time for time in sides[0].keys() | sides[1].keys() if since <= time <= until)[-last:]
    before, after = (
        {time: look_at(engine, runs[time]) for time in times if time in runs}
        for engine, runs in zip((old, new), sides, strict=True)
    )
    return compared(record.dag, record.pipeline, before, after)


def save(record: Record) -> None:
    """Write a record, atomically, and to the disk."""
    path = _path(record.old, record.dag)
    write_whole(path, json.dumps(asdict(record), indent=2).encode(), 0o600)


def _path(*names: str) -> Path:
    folder = private_folder(home() / "cutovers")
    return folder / f"{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]}.json"


@contextmanager
def _locked(path: Path, taken: str) -> Iterator[None]:
    """Hold the lock beside a record; raise ``ScheduleError`` if another process holds it."""
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
    """Return whether a DAG without catch-up would run a past time when it is unpaused.

    A busy scheduler may have created the run after the pause; and Airflow computes the next time when it reads the DAG
    file, which it may not have done since.
    """
    return time in seen.waiting or (seen.following is not None and time >= seen.following)
