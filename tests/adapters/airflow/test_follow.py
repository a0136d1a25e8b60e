"""Following a log loses no line and shows none in halves. A small fake of Airflow's API shows a log as it grows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from flowyml.orchestrators import log_following
from flowyml_airflow import AirflowOrchestrator, logs
from flowyml_airflow.client import LogEvent
from flowyml_airflow.logs import Tail
from tests.adapters.airflow.test_client import site
from tests.engines.web import Recorded

RUN: dict[str, Any] = {
    "dag_id": "d", "dag_run_id": "r", "dag_display_name": "d", "start_date": "2026-01-01T00:00:00Z", "end_date": None,
    "note": None,
}  # fmt: skip
TASK = {"task_id": "t", "map_index": -1, "try_number": 1, "start_date": "2026-01-01T00:00:00Z", "end_date": None}
HEAD = [
    {"timestamp": None, "event": "::group::Log message source details"},
    {"timestamp": None, "event": "/logs/attempt=1.log"},
    {"timestamp": None, "event": "::endgroup::"},
]


class Clock:
    """A clock that goes on while a process sleeps, and at no other time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in (log_following, logs):
        monkeypatch.setattr(module, "time", clock)


def structured(*lines: str, torn: str = "") -> list[dict[str, Any]]:
    """What Airflow 3 makes of a log file whose last line is not yet whole."""
    events: list[dict[str, Any]] = [
        {"timestamp": f"2026-01-01T00:00:{number:02}Z", "event": line, "level": "info", "logger": "airflow.task"}
        for number, line in enumerate(lines)
    ]
    return [*HEAD, *events, *([{"timestamp": None, "event": torn}] if torn else [])]


def plain(*lines: str, torn: str = "") -> str:
    """What Airflow 2 makes of one: the lines without the last line break."""
    whole = [
        f"[2026-01-01T00:00:{number:02}.000+0000] {{worker.py:1}} INFO - {line}" for number, line in enumerate(lines)
    ]
    text = "\n".join([*whole, *([torn] if torn else [])])
    return repr([("host", f"*** Found local files:\n{text}")])


def followed(api: str, looks: Sequence[object]) -> list[str]:
    """The lines that are shown while the log looks like this, one look after the other; the task ends with the last."""
    left = list(looks)

    def answer(request: Recorded) -> tuple[int, str, str]:
        path = request.path.partition("?")[0]
        state = "running" if len(left) > 1 else "success"
        if not path.startswith(f"/api/{api}/") or "/dagSources/" in path:
            return 404, "application/json", "{}"
        if path.endswith("/version"):
            body: Any = {"version": "3.3.2" if api == "v2" else "2.11.2", "git_version": "x"}
        elif path.endswith("/dagRuns/r"):
            body = {**RUN, "state": state}
        elif path.endswith("/dags/d/details"):
            body = {"dag_id": "d", "file_token": "f", "is_stale": False, "is_active": True, "is_paused": False}
        elif path.endswith("/taskInstances" if api == "v2" else "/taskInstances/list"):
            body = {"task_instances": [{**TASK, "state": state}], "total_entries": 1}
        elif path.endswith("/logs/1"):
            body = {"content": left.pop(0) if len(left) > 1 else left[0]}
        else:
            raise AssertionError(path)
        return 200, "application/json", json.dumps(body)

    with site(answer) as url:
        return [line.message for line in AirflowOrchestrator(url, auth="x").logs("d/r", follow=True)]


def test_a_line_that_is_half_written_is_shown_when_it_is_whole() -> None:
    looks = [
        structured("beat 23", torn='{"timestamp":"2026-01-01T00:00:01Z","lev'),
        structured("beat 23", "beat 24", torn='{"timestamp":"2026-01-01T00:00:02Z","event":"beat 2'),
        structured("beat 23", "beat 24", "beat 25"),
        structured("beat 23", "beat 24", "beat 25", "beat 26"),
    ]
    assert followed("v2", looks) == ["beat 23", "beat 24", "beat 25", "beat 26"]


def test_a_line_of_text_that_is_half_written_is_shown_when_it_is_whole() -> None:
    looks = [
        plain("beat 23", "beat 2"),
        plain("beat 23", "beat 24", torn="[2026-01-01T00:0"),
        plain("beat 23", "beat 24", "beat 25"),
        plain("beat 23", "beat 24", "beat 25"),
        plain("beat 23", "beat 24", "beat 25", "Task failed with exception"),
        plain("beat 23", "beat 24", "beat 25", "Task failed with exception", torn="Traceback\nValueError: no"),
    ]
    shown = followed("v1", looks)
    assert shown == ["beat 23", "beat 24", "beat 25", "Task failed with exception\nTraceback\nValueError: no"]


def test_a_last_line_that_stays_is_shown_while_the_task_still_runs() -> None:
    tail = Tail()
    events = [LogEvent("one"), LogEvent("now it is quiet for an hour", may_grow=True)]
    assert [event.message for event in tail.fresh(events, grows=True)] == ["one"]
    assert [event.message for event in tail.fresh(events, grows=True)] == ["now it is quiet for an hour"]
    assert tail.fresh(events, grows=True) == []


@pytest.mark.parametrize("late", ["late", "again"])
def test_a_line_that_comes_late_and_before_others_is_not_lost(late: str) -> None:
    tail, one, two = Tail(), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    first = [LogEvent("again", time=one), LogEvent("last", time=two)]
    assert tail.fresh(first, grows=True) == first
    new = LogEvent(late, time=one)
    assert tail.fresh([first[0], new, first[1]], grows=True) == [new]


def test_what_a_step_prints_like_airflow_is_shown() -> None:
    assert followed("v2", [structured("::notice::mine", "more")]) == ["::notice::mine", "more"]


def test_attempts_come_in_order_and_ended_ones_are_read_no_more() -> None:
    asked: list[str] = []
    looks = iter(range(9))

    def answer(request: Recorded) -> tuple[int, str, str]:
        path = request.path.partition("?")[0]
        task = {**TASK, "state": "success", "try_number": 2, "end_date": "2026-01-01T00:00:09Z"}
        body: Any = {"version": "3.3.2", "git_version": "x", "is_paused": False}
        if path.endswith("/dagRuns/r"):
            body = {**RUN, "state": "running" if next(looks) < 7 else "success"}
        elif path.endswith("/taskInstances"):
            body = {"task_instances": [task], "total_entries": 1}
        elif "/dagSources/" in path:
            return 404, "application/json", "{}"
        elif path.endswith("/dags/d/details"):
            body["dag_id"] = "d"
        elif "/logs/" in path:
            asked.append(path[-1])
            first = structured("one", "two")
            body = {"content": first if path[-1] == "1" else [{"timestamp": None, "event": "early"}, *first[3:]]}
        return 200, "application/json", json.dumps(body)

    with site(answer) as url:
        lines = list(AirflowOrchestrator(url, auth="x").logs("d/r", follow=True))
    assert sorted((line.attempt, line.message) for line in lines) == [
        (1, "one"), (1, "two"), (2, "early"), (2, "one"), (2, "two"),
    ]  # fmt: skip
    assert lines[0].message == "one"
    assert 2 <= asked.count("1") <= 5


def test_a_list_of_runs_asks_for_each_dag_once() -> None:
    asked: list[str] = []
    runs = [{**RUN, "dag_run_id": f"r{number}", "state": "success"} for number in range(20)]
    for one in runs:
        del one["dag_display_name"]  # as on Airflow 2

    def answer(request: Recorded) -> tuple[int, str, str]:
        path = request.path.partition("?")[0]
        asked.append(path)
        if not path.startswith("/api/v1/"):
            return 404, "application/json", "{}"
        body: Any = {
            "version": "2.11.2",
            "dag_id": "d",
            "git_version": "x",
            "dag_display_name": "shown",
            "file_token": "t",
            "content": "",
        }
        return 200, "application/json", json.dumps({**body, "dag_runs": runs, "total_entries": 20})

    with site(answer) as url:
        assert {run.pipeline for run in AirflowOrchestrator(url, auth="x").runs()} == {"shown"}
    assert len(asked) <= 6
