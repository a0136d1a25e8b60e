"""A cutover goes on from each of its phases, there and back, whatever became of the new schedule meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml import Pipeline
from flowyml.core.errors import ScheduleError, UnsupportedFeatureError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.migration.airflow import cutover
from flowyml.migration.airflow.cutover import PHASES, Cutover, Record
from flowyml.orchestrators.handover import OldSchedule

HOURLY = Schedule(cron="0 * * * *")
PIPELINE = cast("Any", Pipeline("x"))


def _at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cutover, "_now", lambda: _at(9, 30))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


class _Old:
    """A DAG that has run all until ``last``."""

    name = "daily"

    def __init__(self, *, is_paused: bool = True, last: int = 3) -> None:
        self.is_paused, self.last = is_paused, _at(last)
        self.marked: list[int] = []

    def look(self) -> OldSchedule:
        return OldSchedule(schedule=HOURLY, catch_up=True, is_paused=self.is_paused, is_busy=False, last=self.last)

    def pause(self, paused: bool) -> None:
        self.is_paused = paused

    def mark_as_run(self, time: datetime, note: str) -> None:
        self.marked.append(time.hour)


class _New:
    """A target with schedules, by their first hour, and runs for these times."""

    can_run_missed = True

    def __init__(self, *starts: int, paused: bool = False, ran: tuple[datetime, ...] = (), tells: bool = True) -> None:
        self.paused, self.ran, self.tells = paused, ran, tells
        self.there = [self._info(replace(HOURLY, start=_at(start)), f"from-{start}") for start in starts]

    def _info(self, schedule: Schedule, name: str) -> ScheduleInfo:
        return ScheduleInfo(schedule_id=name, pipeline="x", schedule=schedule, paused=self.paused)

    @property
    def names(self) -> list[str]:
        return [each.schedule_id for each in self.there]

    def schedules(self, pipeline: str) -> list[ScheduleInfo]:
        return list(self.there)

    def deploy_pipeline(self, pipeline: object) -> None: ...

    def check_fires(self) -> None: ...

    def schedule_pipeline(self, pipeline: object, schedule: Schedule) -> None:
        self.there = [self._info(schedule, "made")]

    def delete_schedule(self, schedule_id: str) -> None:
        self.there = [each for each in self.there if each.schedule_id != schedule_id]

    def run_missed(self, schedule_id: str, time: datetime) -> None: ...

    def scheduled_runs(self, pipeline: str, *, limit: int) -> Mapping[datetime, None]:
        if not self.tells:
            raise UnsupportedFeatureError("It does not tell.")
        return dict.fromkeys(self.ran)


def _record(phase: str, **known: Any) -> Record:
    known = {name: _at(hour).isoformat() for name, hour in known.items()}
    return Record(
        dag="daily", old="airflow", new="prefect", file="x.py", pipeline="x", phase=phase,
        begun=_at(2).isoformat(), **known,
    )  # fmt: skip


def _work(old: _Old, record: Record) -> Any:
    return Cutover(cast("Any", old), record, print)


#: What stands in the record of each phase, and whether the DAG is paused by then and the new schedule made.
STANDS: Mapping[str, tuple[dict[str, int], bool, bool]] = {
    "shadowing": ({}, False, False),
    "shadow": ({"shadow": 4}, False, True),
    "begun": ({}, False, False),
    "paused": ({"last": 3}, True, False),
    "scheduling": ({"last": 3, "first": 4}, True, True),
    "making up": ({"last": 3, "first": 4}, True, True),
    "done": ({"last": 3, "first": 4}, True, True),
    "stopping": ({"last": 3, "first": 4, "stopped": 9}, True, True),
    "marking": ({"last": 3, "first": 4, "stopped": 9}, True, False),
    "back": ({"last": 3, "first": 4, "stopped": 9}, False, False),
}


def _stands(phase: str) -> tuple[_Old, _New, Any]:
    known, is_paused, is_made = STANDS[phase]
    old = _Old(is_paused=is_paused)
    return old, _New(*([4] if is_made else [])), _work(old, _record(phase, **known))


@pytest.mark.parametrize("phase", PHASES)
def test_there_from_each_phase(phase: str) -> None:
    old, new, work = _stands(phase)
    if phase in ("stopping", "marking"):
        with pytest.raises(ScheduleError, match=r"--back of .* is in progress"):
            work.go(new, PIPELINE)
        return
    assert work.go(new, PIPELINE).phase == "done"
    assert (old.is_paused, len(new.there)) == (True, 1)


@pytest.mark.parametrize(
    ("is_paused", "starts", "said"),
    [
        (False, [4], "is not paused any more: 'x' runs there beside it"),
        (True, [], "no schedule there any more: nothing runs"),
    ],
)
def test_there_again_where_a_side_was_changed_by_hand(is_paused: bool, starts: list[int], said: str) -> None:
    """The command does not say that all is done where each interval would run twice, or not at all."""
    old, new = _Old(is_paused=is_paused), _New(*starts)
    with pytest.raises(ScheduleError, match=rf"{said}.* --back"):
        _work(old, _record("done", last=3, first=4)).go(new, PIPELINE)
    assert (old.is_paused, len(new.there)) == (is_paused, len(starts)), "it changes nothing"


@pytest.mark.parametrize("phase", PHASES)
def test_side_by_side_from_each_phase(phase: str) -> None:
    old, new, work = _stands(phase)
    is_early = phase in ("shadowing", "shadow", "begun", "back")
    paused, there = old.is_paused, new.names
    assert work.go_beside(new, PIPELINE).phase == ("shadow" if is_early else phase)
    assert old.is_paused == paused
    assert len(new.there) == (1 if is_early else len(there))


def test_what_goes_on_alone_is_no_shadow_any_more() -> None:
    new, record = _New(4), _record("begun", shadow=4)
    assert _work(_Old(is_paused=False), record).go_beside(new, PIPELINE) == record
    assert new.names == ["from-4"]


@pytest.mark.parametrize("phase", PHASES)
def test_back_from_each_phase(phase: str) -> None:
    old, new, work = _stands(phase)
    if phase in ("scheduling", "making up"):
        with pytest.raises(ScheduleError, match="not finished"):
            work.back(new)
        return
    assert work.back(new).phase == "back"
    assert (old.is_paused, new.there) == (False, [])
    assert old.marked == ([4, 5, 6, 7, 8, 9] if phase in ("done", "stopping", "marking") else [])


RAN = (_at(4), _at(6), _at(8, 30), _at(10))
"""The second to last is not on the schedule, and the last has not come."""


@pytest.mark.parametrize("is_paused", [True, False])
@pytest.mark.parametrize("phase", ["done", "paused", "stopping"])
def test_a_new_schedule_that_fires_no_more_has_run_what_its_runs_are_for(phase: str, is_paused: bool) -> None:
    old, new = _Old(), _New(*([4] if is_paused else []), paused=is_paused, ran=RAN)
    known = {"shadow": 4} if phase == "paused" else {"first": 4, **({"stopped": 5} if phase == "stopping" else {})}
    assert _work(old, _record(phase, last=3, **known)).back(new).phase == "back"
    assert (old.marked, old.is_paused, new.there) == ([4, 5, 6], False, [])


def test_a_new_schedule_that_was_deleted_before_it_ran() -> None:
    old = _Old()
    assert _work(old, _record("done", last=3, first=4)).back(_New(ran=(_at(2),))).phase == "back"
    assert old.marked == []


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_target_that_does_not_tell_what_it_has_run(is_paused: bool) -> None:
    """The DAG is unpaused by hand, and then there is nothing to hand back."""
    old, new = _Old(), _New(*([4] if is_paused else []), paused=is_paused, tells=False)
    record = _record("done", last=3, first=4)
    with pytest.raises(ScheduleError, match=r"Unpause 'daily' in Airflow.*; then run this command again"):
        _work(old, record).back(new)
    assert (old.marked, old.is_paused, len(new.there)) == ([], True, int(is_paused))
    old.pause(False)
    assert _work(old, record).back(new).phase == "back"
    assert (old.marked, new.there) == ([], [])


def test_a_kill_after_the_new_schedule_was_deleted() -> None:
    old = _Old()
    assert _work(old, _record("stopping", last=3, first=4, stopped=5)).back(_New(tells=False)).phase == "back"
    assert old.marked == [4, 5]


@pytest.mark.parametrize("phase", ["shadowing", "shadow", "begun"])
def test_back_leaves_the_schedules_of_others(phase: str) -> None:
    new = _New(1, 4)
    assert _work(_Old(is_paused=False), _record(phase, shadow=4)).back(new).phase == "back"
    assert new.names == ["from-1"]


@pytest.mark.parametrize(
    ("verb", "phase", "known"),
    [
        ("go", "begun", {}),
        ("go", "back", {"last": 3, "first": 1, "shadow": 1}),
        ("go", "shadowing", {}),
        ("go", "shadow", {"shadow": 4}),
        ("go", "paused", {"last": 3}),
        ("go", "done", {"last": 3, "first": 4}),
        ("go_beside", "begun", {}),
        ("go_beside", "back", {"last": 3, "first": 1, "shadow": 1}),
        ("go_beside", "shadowing", {"shadow": 4}),
        ("back", "done", {"last": 3, "first": 4}),
        ("back", "stopping", {"last": 3, "first": 4, "stopped": 9}),
    ],
)
def test_another_schedule_of_the_pipeline_stops_it(verb: str, phase: str, known: dict[str, int]) -> None:
    """Both would run each interval, and one of them would be replaced or deleted."""
    old, new, record = _Old(is_paused=STANDS[phase][1]), _New(1), _record(phase, **known)
    work, given = _work(old, record), (new,) if verb == "back" else (new, PIPELINE)
    with pytest.raises(ScheduleError, match=r"did not make.*flowyml schedule delete from-1 --on prefect"):
        getattr(work, verb)(*given)
    assert (new.names, old.is_paused, old.marked) == (["from-1"], STANDS[phase][1], [])
    assert Cutover.recorded("airflow", "daily") is None, "nothing has changed"
