"""What a DAG and the pipeline beside it made of the same intervals is compared."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml.migration.airflow.comparison import Comparison, Seen, Verdict, compared, document, lines, markdown, rows

DONE, FAILED, RUNNING = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.RUNNING


def _at(hour: int) -> datetime:
    return datetime(2026, 3, 1, hour, tzinfo=UTC)


def _step(name: str, status: ExecutionStatus = DONE, raw: str = "", index: tuple[int, ...] = ()) -> StepRun:
    return StepRun(name=name, status=status, raw_status=raw, index=index)


def _run(*steps: StepRun, status: ExecutionStatus = DONE, **outputs: Any) -> Seen:
    by_label = {step.label: step for step in steps}
    return Seen(status=status, steps=by_label, outputs=outputs if status.is_successful else None)


def _compared(old: dict[int, Seen], new: dict[int, Seen]) -> Comparison:
    return compared("daily", "daily", *({_at(hour): run for hour, run in side.items()} for side in (old, new)))


def _differences(old: Seen, new: Seen) -> list[tuple[str, str, str, str]]:
    (interval,) = _compared({1: old}, {1: new}).intervals
    assert (interval.verdict is Verdict.DIFFERS) == bool(interval.differences)
    assert (interval.verdict is Verdict.NOTHING_TO_COMPARE) == bool(interval.why)
    return [(one.what, one.name, one.old, one.new) for one in interval.differences]


@dataclass
class Money:
    amount: float


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        (1, 1, True),
        (10.0, 10, True),  # SQLite takes the one for the other
        (1, 2, False),
        (1, True, False),
        (math.nan, math.nan, True),
        ([1, [2]], (1, (2,)), True),
        ([1, 2], [1], False),
        ({"1": {"a": None}}, {"1": {"a": None}}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("2026-01-31", date(2026, 1, 31), True),
        ({"amount": 1.5}, Money(1.5), True),
        (None, None, True),
        ("", None, False),
    ],
)
def test_values_are_compared_as_json_has_them(old: object, new: object, is_same: bool) -> None:
    assert (_differences(_run(x=old), _run(x=new)) == []) is is_same


def test_airflow_keeps_no_xcom_for_none() -> None:
    found = _compared({1: _run(), 2: _run(x=1)}, {1: _run(x=None), 2: _run(x=None)})
    assert [str(each.verdict) for each in found.intervals] == ["equal", "differs"]
    assert found.apart == ()


def test_how_runs_and_steps_ended() -> None:
    old = _run(_step("a"), _step("b", FAILED), _step("c", raw="skipped"), _step("d", raw="no_items"), status=FAILED)
    new = _run(_step("a"), _step("b"), _step("c"), _step("d", raw="skipped"))
    assert _differences(old, new) == [
        ("run", "", "FAILED", "COMPLETED"),
        ("step", "b", "FAILED", "COMPLETED"),
        ("step", "c", "skipped", "COMPLETED"),
    ]
    items = [_step("load", index=(number,)) for number in range(3)]
    assert _differences(_run(*items), _run(*items[:2])) == [("step", "load[2]", "COMPLETED", "—")]


def test_what_one_side_alone_has_is_named_once() -> None:
    found = _compared(
        {1: _run(_step("pick"), _step("a"), a=1, pick="a"), 2: _run(_step("pick"), _step("a"), a=1, pick="a")},
        {1: _run(_step("a"), a=1, total=2), 2: _run(_step("a"), a=1, total=None)},
    )
    assert found.total == "2 intervals: 2 equal"
    assert found.apart == (
        "step pick: the DAG alone has it", "output pick: the DAG alone has it",
        "output total: the pipeline alone has it",
    )  # fmt: skip


def test_what_json_has_no_form_for_is_said_and_not_compared() -> None:
    pandas = {"__classname__": "pandas.DataFrame", "__data__": "…"}
    found = _compared({1: _run(x=pandas, y=1)}, {1: _run(x=1, y={1, 2})})
    assert found.total == "1 interval: 1 with nothing to compare"
    assert found.apart == ("output x: a pandas.DataFrame has no form in JSON", "output y: a set has no form in JSON")


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1: 2, "1": 1}, "JSON has no form for a key that is not text"),
        (_nested(3000), "it has more than 100 levels"),
        ({"__classname__": "X" * 10_000_000}, f"a {'X' * 199}… has no form in JSON"),
        ({"__classname__": _nested(3000)}, "a list has no form in JSON"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(value: object, why: str) -> None:
    for sides in (({1: _run(x=value)}, {1: _run(x={"1": 1})}), ({1: _run(x={"1": 1})}, {1: _run(x=value)})):
        found = _compared(*sides)
        assert found.count(Verdict.NOTHING_TO_COMPARE) == 1
        assert found.apart == (f"output x: {why}",)


def test_what_is_just_not_too_deep_is_compared() -> None:
    assert _differences(_run(x=_nested(100)), _run(x=_nested(100))) == []
    assert len(_differences(_run(x=_nested(100)), _run(x=_nested(99)))) == 1


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (_run(_step("a")), _run(_step("a")), "no output of the two has the same name"),
        (_run(_step("a"), a=1), _run(_step("a"), b=1), "no output of the two has the same name"),
        (_run(_step("a"), a=1), _run(_step("a"), a={1}), "no output of the two has the same name"),
        (_run(), _run(x=None), "no output of the two has the same name"),
        (_run(status=FAILED), _run(status=FAILED), "a run that is FAILED has no outputs"),
    ],
)
def test_where_no_output_could_be_compared_nothing_is_called_equal(old: Seen, new: Seen, why: str) -> None:
    found = _compared({1: old}, {1: new})
    assert (found.total, found.is_same) == ("1 interval: 1 with nothing to compare", False)
    assert [row[1] for row in rows(found)] == ["nothing to compare"]
    assert lines(found)[0].startswith(f"2026-03-01T01:00:00+00:00: nothing to compare: {why}")
    assert f"nothing to compare\\: {why}" in markdown(found)
    made = json.loads(json.dumps(document(found)))
    assert made["totals"] == {"equal": 0, "differs": 0, "nothing_to_compare": 1, "waits": 0}
    assert made["intervals"][0]["verdict"] == "nothing_to_compare"
    assert made["intervals"][0]["reason"].startswith(why)


def test_what_both_gave_counts_as_equal_beside_what_could_not_be_compared() -> None:
    found = _compared({1: _run(x={1}, y=1), 2: _run(x=1)}, {1: _run(x=1, y=1), 2: _run(x={1})})
    assert [str(each.verdict) for each in found.intervals] == ["equal", "nothing to compare"]
    assert found.is_same
    assert not _compared({1: _run(x=1)}, {}).is_same
    assert not _compared({1: _run(x=1), 2: _run(x=1)}, {1: _run(x=1), 2: _run(x=2)}).is_same


def test_long_names_are_cut() -> None:
    long = "n" * 10_000
    old = _run(_step(long), _step("old" * 1000), **{long: 1, "old" * 1000: 1, f"x{long}": {1}})
    new = _run(_step(long, FAILED), _step("new" * 1000), **{long: 2, "new" * 1000: 1, f"x{long}": {1}})
    found = _compared({1: old}, {1: new})
    assert len(lines(found)) == 7
    assert max(map(len, lines(found))) < 400


def test_a_time_that_one_side_lacks() -> None:
    found = _compared(
        {1: _run(x=1), 3: _run(x=2), 4: _run(status=RUNNING), 5: _run(x=1)},
        {1: _run(x=1), 2: _run(x=1), 3: _run(x=2), 4: _run(x=1)},
    )
    assert [(row[1], row[2], row[3]) for row in rows(found)] == [
        ("equal", "COMPLETED", "COMPLETED"), ("differs", "no run", "COMPLETED"), ("equal", "COMPLETED", "COMPLETED"),
        ("waits", "RUNNING", "COMPLETED"), ("waits", "COMPLETED", "no run"),
    ]  # fmt: skip
    assert found.total == "5 intervals: 2 equal, 1 differs, 2 waits"
    assert _compared({1: _run()}, {}).total == "1 interval: 1 waits"
    assert _compared({}, {}).total == "0 intervals"


def test_the_report_is_text_whatever_the_values_are() -> None:
    found = _compared({1: _run(x="<b>|\x1b[2J")}, {1: _run(x="y" * 500)})
    (line,) = lines(found)
    assert line.startswith("2026-03-01T01:00:00+00:00: output x: ")
    assert line.endswith("… in the pipeline")
    assert "\x1b" not in line
    text = markdown(found)
    assert "<b>" not in text
    assert "\n| FOR | VERDICT | DAG | PIPELINE |\n| --- | --- | --- | --- |\n| 2026" in text
    assert "| differs | COMPLETED | COMPLETED |\n\n- 2026" in text
    made = json.loads(json.dumps(document(found)))
    assert made["totals"] == {"equal": 0, "differs": 1, "nothing_to_compare": 0, "waits": 0}
    assert [one["name"] for one in made["intervals"][0]["differences"]] == ["x"]
