"""A cutover goes on from each of its phases, there and back, whatever became of the new schedule meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.errors import ScheduleError
from flowyml.migration.airflow import cutover
from flowyml.migration.airflow.cutover import PHASES, Cutover
from tests.unit.migration.cutting import PIPELINE, New, Old, at, record, work


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cutover, "_now", lambda: at(9, 30))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


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


def _stands(phase: str) -> tuple[Old, New, Any]:
    known, is_paused, is_made = STANDS[phase]
    old = Old(is_paused=is_paused)
    return old, New(*([4] if is_made else [])), work(old, record(phase, **known))


@pytest.mark.parametrize("phase", PHASES)
def test_there_from_each_phase(phase: str) -> None:
    old, new, cutting = _stands(phase)
    if phase in ("stopping", "marking"):
        with pytest.raises(ScheduleError, match=r"--back of .* is in progress"):
            cutting.go(new, PIPELINE)
        return
    assert cutting.go(new, PIPELINE).phase == "done"
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
    old, new = Old(is_paused=is_paused), New(*starts)
    with pytest.raises(ScheduleError, match=rf"{said}.* --back"):
        work(old, record("done", last=3, first=4)).go(new, PIPELINE)
    assert (old.is_paused, len(new.there)) == (is_paused, len(starts)), "it changes nothing"


@pytest.mark.parametrize("phase", PHASES)
def test_side_by_side_from_each_phase(phase: str) -> None:
    old, new, cutting = _stands(phase)
    is_early = phase in ("shadowing", "shadow", "begun", "back")
    paused, there = old.is_paused, new.names
    assert cutting.go_beside(new, PIPELINE).phase == ("shadow" if is_early else phase)
    assert old.is_paused == paused
    assert len(new.there) == (1 if is_early else len(there))


def test_what_goes_on_alone_is_no_shadow_any_more() -> None:
    new, known = New(4), record("begun", shadow=4)
    assert work(Old(is_paused=False), known).go_beside(new, PIPELINE) == known
    assert new.names == ["from-4"]


@pytest.mark.parametrize("phase", PHASES)
def test_back_from_each_phase(phase: str) -> None:
    old, new, cutting = _stands(phase)
    if phase in ("scheduling", "making up"):
        with pytest.raises(ScheduleError, match="not finished"):
            cutting.back(new)
        return
    assert cutting.back(new).phase == "back"
    assert (old.is_paused, new.there) == (False, [])
    assert old.marked == ([4, 5, 6, 7, 8, 9] if phase in ("done", "stopping", "marking") else [])


RAN = (at(4), at(6), at(8, 30), at(10))
"""The second to last is not on the schedule, and the last has not come."""


@pytest.mark.parametrize("is_paused", [True, False])
@pytest.mark.parametrize("phase", ["done", "paused", "stopping"])
def test_a_new_schedule_that_fires_no_more_has_run_what_its_runs_are_for(phase: str, is_paused: bool) -> None:
    old, new = Old(), New(*([4] if is_paused else []), paused=is_paused, ran=RAN)
    known = {"shadow": 4} if phase == "paused" else {"first": 4, **({"stopped": 5} if phase == "stopping" else {})}
    assert work(old, record(phase, last=3, **known)).back(new).phase == "back"
    assert (old.marked, old.is_paused, new.there) == ([4, 5, 6], False, [])


def test_a_new_schedule_that_was_deleted_before_it_ran() -> None:
    old = Old()
    assert work(old, record("done", last=3, first=4)).back(New(ran=(at(2),))).phase == "back"
    assert old.marked == []


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_target_that_does_not_tell_what_it_has_run(is_paused: bool) -> None:
    """The DAG is unpaused by hand, and then there is nothing to hand back."""
    old, new = Old(), New(*([4] if is_paused else []), paused=is_paused, tells=False)
    known = record("done", last=3, first=4)
    with pytest.raises(ScheduleError, match=r"Unpause 'daily' in Airflow.*; then run this command again"):
        work(old, known).back(new)
    assert (old.marked, old.is_paused, len(new.there)) == ([], True, int(is_paused))
    old.pause(False)
    assert work(old, known).back(new).phase == "back"
    assert (old.marked, new.there) == ([], [])


def test_a_kill_after_the_new_schedule_was_deleted() -> None:
    old = Old()
    assert work(old, record("stopping", last=3, first=4, stopped=5)).back(New(tells=False)).phase == "back"
    assert old.marked == [4, 5]


@pytest.mark.parametrize("phase", ["shadowing", "shadow", "begun"])
def test_back_leaves_the_schedules_of_others(phase: str) -> None:
    new = New(1, 4)
    known = work(Old(is_paused=False), record(phase, shadow=4)).back(new)
    assert (known.phase, new.names) == ("back", ["from-1"])
    assert known.last == at(9, 30).isoformat(), "no later runs are compared"


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
    old, new = Old(is_paused=STANDS[phase][1]), New(1)
    given = (new,) if verb == "back" else (new, PIPELINE)
    with pytest.raises(ScheduleError, match=r"did not make.*flowyml schedule delete from-1 --on prefect"):
        getattr(work(old, record(phase, **known)), verb)(*given)
    assert (new.names, old.is_paused, old.marked) == (["from-1"], STANDS[phase][1], [])
    assert Cutover.recorded("airflow", "daily") is None, "nothing has changed"
