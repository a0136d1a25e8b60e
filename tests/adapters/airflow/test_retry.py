"""Which tasks are cleared for a retry. No Airflow here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import Mock

import pytest

from flowyml.core.errors import RetryRefusedError
from flowyml.plan.marks import marked
from flowyml_airflow.client import AirflowClient, ConflictError, with_display_names
from flowyml_airflow.client_v1 import Airflow2Client
from flowyml_airflow.names import CODE_KEY, TAG
from flowyml_airflow.retrying import to_clear
from tests.adapters.airflow.one_run import JOB, OneRun, orchestrator_of

GRAPH = {
    "load": ["train", "choose"],
    "train": ["check"],
    "check": ["total"],
    "choose": ["yes", "no"],
    "yes": ["joined"],
    "no": ["joined"],
    "total": ["watcher", "tidy"],
    "beside": ["after_beside", "watcher", "tidy"],
    "joined": ["alert", "watcher", "tidy"],
}
FACTS = {"watcher": "watcher", "cleanup": ["tidy"], "loops": {"rows": {"tasks": ["train", "check"]}}}


def tasks(**states: Any) -> list[dict[str, Any]]:
    """``train_1="failed"`` is the second item of ``train``."""
    split = ((key.rpartition("_") if key[-1].isdigit() else (key, "", "-1"), state) for key, state in states.items())
    return [{"task_id": task, "map_index": int(index), "state": state} for (task, _, index), state in split]


LOOP_FAILED = {
    "load": "success", "train_0": "success", "train_1": "failed", "check_0": "success", "check_1": "upstream_failed",
    "total": "upstream_failed", "watcher": "failed", "tidy": "success",
}  # fmt: skip
CHOICE_FAILED = {
    "load": "success", "choose": "failed", "yes": "upstream_failed", "no": "upstream_failed",
    "joined": "upstream_failed", "alert": "skipped", "watcher": "failed",
}  # fmt: skip
TAKEN = {"choose": "success", "yes": "failed", "no": "skipped", "joined": "upstream_failed", "alert": "success"}
STOPPED = {"load": "success", "beside": "failed", "train": "skipped", "total": "skipped", "watcher": "skipped"}
TWO_FAILED = {**LOOP_FAILED, "train_2": "failed", "check_2": "upstream_failed", "beside": "failed"}
BESIDE = {"load": "success", "train_0": "success", "beside": "failed", "after_beside": "success"}
REACHED = {"load": "success", "train_0": "failed", "check_0": "upstream_failed", "total": "success"}
ITEM_SKIPPED = {"train_0": "success", "train_1": "skipped", "check_0": "success", "check_1": "skipped"}


@pytest.mark.parametrize(
    ("states", "steps", "wanted"),
    [
        pytest.param(LOOP_FAILED, "", "train_1 check_1 total watcher tidy", id="failed, what waits and what cleans up"),
        pytest.param(CHOICE_FAILED, "", "choose yes no joined alert watcher", id="skipped after what runs again"),
        pytest.param(TAKEN, "", "yes joined", id="the untaken branch stays, and so does what completed"),
        pytest.param(TWO_FAILED, "train", "train_1 train_2 check_1 check_2 total watcher tidy", id="a named loop"),
        pytest.param(
            TWO_FAILED, "train[1]", "train_1 check_1 check_2 total watcher tidy",
            id="a named item; what else never began ends as before",
        ),
        pytest.param(TWO_FAILED, "beside", "beside check_1 check_2 total watcher tidy", id="a named step"),
        pytest.param(
            TWO_FAILED, "load", "load train_0 train_1 train_2 check_0 check_1 check_2 total watcher tidy",
            id="all that comes after a step that completed",
        ),
        pytest.param(BESIDE, "load beside", "load train_0 beside", id="after the one that completed alone"),
        pytest.param(BESIDE, "beside load", "load train_0 beside", id="the same in another order"),
        pytest.param({**BESIDE, "beside": "success"}, "beside", "beside after_beside", id="where it completed too"),
        pytest.param(REACHED, "train load", "load train_0 check_0 total", id="reached from both"),
        pytest.param(ITEM_SKIPPED, "train", "train_0 train_1 check_0 check_1", id="a skipped item has not failed"),
    ],
)  # fmt: skip
def test_what_is_cleared(states: Mapping[str, Any], steps: str, wanted: str) -> None:
    assert cleared(states, steps.split() or None) == {*wanted.split()}


def cleared(states: Mapping[str, Any], steps: list[str] | None = None, *, stopped: bool = False) -> set[str]:
    made = to_clear(tasks(**states), GRAPH, FACTS, steps=steps, was_stopped=stopped)
    return {task if index < 0 else f"{task}_{index}" for task, index in made}


def test_a_failed_item_stays_if_its_loop_goes_on_and_its_list_was_used() -> None:
    graph = {"train": ["total", "settled", "watcher"], "total": ["after", "watcher"], "after": ["watcher"]}
    loops = {"rows": {"tasks": ["train"], "goes_on": True}}
    facts = {"watcher": "watcher", "helpers": ["settled", "watcher"], "loops": loops}
    states = {"train_0": "success", "train_1": "failed", "settled": "success", "watcher": "failed"}

    def found(total: str, after: str) -> set[tuple[str, int]]:
        made = tasks(**states, total=total, after=after)
        return to_clear(made, graph, facts, steps=None, was_stopped=False) - {("settled", -1), ("watcher", -1)}

    assert found("success", "failed") == {("after", -1)}
    assert found("failed", "upstream_failed") == {("train", 1), ("total", -1), ("after", -1)}


def test_a_stopped_run_goes_on_with_what_had_not_begun() -> None:
    """Airflow skips what it stops."""
    assert cleared(STOPPED, stopped=True) == {"beside", "train", "total", "watcher"}
    assert cleared(ITEM_SKIPPED, ["train"], stopped=True) == {"train_1", "check_1"}


class Ended(OneRun):
    """The run has ended after so many seconds, and its DAG has a timeout of a minute; what it is to clear is kept."""

    def __init__(self, seconds: int, **about: Any) -> None:
        ended = f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}Z"
        super().__init__(state="failed", end_date=ended, **about)
        self.cleared: dict[str, Any] = {}

    def dag(self, dag: str) -> dict[str, Any]:
        return {"dag_id": dag, "dag_run_timeout": "PT1M"}

    def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        return tasks(load="success", beside="skipped")

    def tasks(self, dag: str) -> list[dict[str, Any]]:
        after = {"load": ["beside"], "beside": []}
        return [{"task_id": task, "downstream_task_ids": later} for task, later in after.items()]

    def clear_tasks(self, dag: str, run_id: str, found: dict[str, Any]) -> None:
        self.cleared = found


def run_again(client: Any) -> Any:
    orchestrator_of(client).run_again(JOB, None)
    return client.cleared


def test_a_run_that_took_too_long_goes_on_with_what_airflow_skipped() -> None:
    assert run_again(Ended(61)) == {"beside": None}
    with pytest.raises(RetryRefusedError, match="no task that failed or was stopped"):
        run_again(Ended(59))


def test_the_second_of_two_retries_at_the_same_moment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = ConflictError("Airflow answered 409: Serious error when handling your request.")
    monkeypatch.setattr(Ended, "clear_tasks", Mock(side_effect=taken))
    with pytest.raises(RetryRefusedError, match="Run 'd/r' was changed at the same moment, as by another retry"):
        run_again(Ended(61))


class Redeployed(Ended):
    """The same of a run of the code `old`, of a DAG of FlowyML's that has other code now."""

    def __init__(self, code: str, **run: Any) -> None:
        super().__init__(61, **{"conf": {CODE_KEY: "old"}, **run})
        self.text = marked(b"", "dag.py", {"pipeline": "d", "timeout": 60, "code": code}).decode()

    def dag(self, dag: str) -> dict[str, Any]:
        return {**super().dag(dag), "tags": [{"name": TAG}]}

    def source(self, dag: Any, version: int | None = None) -> str:
        return self.text


def test_a_run_does_not_go_on_with_other_code() -> None:
    for client in (Redeployed("old"), Redeployed("new", bundle_version="1f3a9c2e"), Redeployed("new", conf=None)):
        assert run_again(client)
    changed = Redeployed("new")
    with pytest.raises(RetryRefusedError, match=r"version old, now new.* `flowyml clear d/r`"):
        run_again(changed)
    assert not changed.cleared


def test_items_that_never_began_have_their_step_s_name() -> None:
    """Airflow 3 shows the id of the task instead."""
    shown = with_display_names([
        {"task_id": "is_ten_4662500a", "map_index": 0, "task_display_name": "is ten"},
        {"task_id": "is_ten_4662500a", "map_index": 1, "task_display_name": "is_ten_4662500a"},
        {"task_id": "five", "map_index": -1, "task_display_name": "five"},
    ])  # fmt: skip
    assert [task["task_display_name"] for task in shown] == ["is ten", "is ten", "five"]


class Calls:
    """A transport that keeps what it is asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.auth = None

    def call(self, method: str, path: str, *, json: dict[str, Any], again: bool) -> None:
        assert (method, path.rpartition("/")[2], again) == ("POST", "clearTaskInstances", False)
        self.bodies.append(json)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (AirflowClient, [(["load", ["train", 1], ["train", 3]], False, True)]),
        (Airflow2Client, [(["load"], False, False), (["train"], True, True)]),
    ],
)
def test_the_run_is_queued_with_the_last_call(kind: type[AirflowClient], asked: Any) -> None:
    client, calls = kind.__new__(kind), Calls()
    client.transport = calls  # type: ignore[assignment]  # all that is asked of it
    client.clear_tasks("dag", "run", {"load": None, "train": {3, 1}})
    assert [(body["task_ids"], body["only_failed"], body["reset_dag_runs"]) for body in calls.bodies] == asked
