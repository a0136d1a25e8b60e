"""Which tasks are cleared for a retry. No Airflow here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flowyml_airflow.client import AirflowClient, with_display_names
from flowyml_airflow.client_v1 import Airflow2Client
from flowyml_airflow.retrying import to_clear

GRAPH = {
    "load": ["train", "choose"],
    "train": ["check"],
    "check": ["total"],
    "choose": ["yes", "no"],
    "yes": ["joined"],
    "no": ["joined"],
    "total": ["watcher", "tidy"],
    "beside": ["after beside", "watcher", "tidy"],
    "joined": ["alert", "watcher", "tidy"],
}
FACTS = {"watcher": "watcher", "cleanup": ["tidy"], "loops": {"rows": {"tasks": ["train", "check"]}}}


def tasks(**states: Any) -> list[dict[str, Any]]:
    """``train_1="failed"`` is the second item of ``train``."""
    found = []
    for key, state in states.items():
        task, _, index = key.rpartition("_")
        at = int(index) if task else -1
        found.append({"task_id": task or key, "map_index": at, "state": state})
    return found


def cleared(states: Mapping[str, Any], steps: list[str] | None = None, *, cancelled: bool = False) -> set[str]:
    made = to_clear(tasks(**states), GRAPH, FACTS, steps=steps, was_cancelled=cancelled)
    return {task if index < 0 else f"{task}_{index}" for task, index in made}


LOOP_FAILED = {
    "load": "success", "train_0": "success", "train_1": "failed", "check_0": "success", "check_1": "upstream_failed",
    "total": "upstream_failed", "watcher": "failed", "tidy": "success",
}  # fmt: skip


def test_what_failed_and_what_waits_for_it_and_what_cleans_up() -> None:
    assert cleared(LOOP_FAILED) == {"train_1", "check_1", "total", "watcher", "tidy"}


def test_what_was_skipped_is_decided_anew_only_after_what_runs_again() -> None:
    failed = {
        "load": "success", "choose": "failed", "yes": "upstream_failed", "no": "upstream_failed",
        "joined": "upstream_failed", "alert": "skipped", "watcher": "failed",
    }  # fmt: skip
    assert cleared(failed) == {"choose", "yes", "no", "joined", "alert", "watcher"}
    taken = {"choose": "success", "yes": "failed", "no": "skipped", "joined": "upstream_failed", "alert": "success"}
    assert cleared(taken) == {"yes", "joined"}, "the untaken branch stays, and so does what completed"


def test_a_cancelled_run_goes_on_with_what_had_not_begun() -> None:
    stopped = {"load": "success", "beside": "failed", "train": "skipped", "total": "skipped", "watcher": "skipped"}
    assert cleared(stopped, cancelled=True) == {"beside", "train", "total", "watcher"}


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (["train"], {"train_1", "train_2", "check_1", "check_2", "total", "watcher", "tidy"}),
        (["train[1]"], {"train_1", "check_1", "total", "watcher", "tidy"}),
        (["beside"], {"beside", "watcher", "tidy"}),
        (
            ["load"],
            {"load", "train_0", "train_1", "train_2", "check_0", "check_1", "check_2", "total", "watcher", "tidy"},
        ),
    ],
)
def test_named_steps_and_what_comes_after_them(steps: list[str], wanted: set[str]) -> None:
    states = {
        **LOOP_FAILED, "train_2": "failed", "check_2": "upstream_failed", "beside": "failed",
    }  # fmt: skip
    assert cleared(states, steps) == wanted


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
        self.login = None

    def call(self, method: str, path: str, *, json: dict[str, Any]) -> None:
        assert (method, path.rpartition("/")[2]) == ("POST", "clearTaskInstances")
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
