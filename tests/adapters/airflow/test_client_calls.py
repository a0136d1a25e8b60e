"""What the client makes of lists and of answers that get lost. No Airflow here: the transport gives the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flowyml.core.errors import EngineUnreachableError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.http import RefusedError
from flowyml_airflow.audit_log import Mark
from flowyml_airflow.client import AirflowClient, KeptElsewhereError
from flowyml_airflow.client_v1 import Airflow2Client
from flowyml_airflow.connection import Connection
from flowyml_airflow.transport import Transport
from tests.adapters.airflow.test_client import site
from tests.engines.web import Recorded


class Answers(Transport):
    """``answer`` gets the path, the parameters and the body of each call."""

    def __init__(self, answer: Callable[[str, Mapping[str, Any], Any], Any]) -> None:
        super().__init__(Connection.to("http://127.0.0.1:9", "x"), timeout=1)
        self.answer = answer

    def call(
        self, method: str, path: str, *, params: Mapping[str, Any] = {}, json: Any = None, again: bool = True,
        anonymous: bool = False,
    ) -> Any:  # fmt: skip
        return self.answer(path, params, json)


def item(index: int, state: str = "success") -> dict[str, Any]:
    return {"task_id": "train", "map_index": index, "state": state}


@pytest.mark.parametrize("kind", [AirflowClient, Airflow2Client])
def test_items_that_airflow_removed_since_the_list_became_shorter_are_not_listed(kind: type[AirflowClient]) -> None:
    found = [item(0), item(1), item(2, "removed"), {"task_id": "dropped", "map_index": -1, "state": "removed"}]
    client = kind(Answers(lambda *_: {"task_instances": found, "total_entries": len(found)}), "0")
    listed = [(task["task_id"], task["map_index"]) for task in client.task_instances("d", "r")]
    assert listed == [("train", 0), ("train", 1), ("dropped", -1)]


def test_tasks_are_read_again_where_one_gets_another_place_between_two_pages() -> None:
    tasks = [item(index) for index in range(150)]

    def answer(path: str, params: Mapping[str, Any], body: Any) -> Any:
        page = tasks[params["offset"] : params["offset"] + params["limit"]]
        if tasks[0]["map_index"] == 0:  # it runs again, and has another id then
            tasks.append(tasks.pop(0))
        return {"task_instances": page, "total_entries": len(tasks)}

    listed = AirflowClient(Answers(answer), "3.0.0").task_instances("d", "r")
    assert sorted(task["map_index"] for task in listed) == list(range(150))


MARKED = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("kind", "event", "task", "call", "expected"),
    [
        (AirflowClient, "patch_dag_run", None, {"state": "failed"}, [None]),
        (AirflowClient, "patch_dag_run", None, {"state": "success"}, []),
        (AirflowClient, "patch_dag_run", None, {"note": "failed"}, []),
        (AirflowClient, "patch_task_instance", "train", {"new_state": "failed"}, ["train"]),
        (AirflowClient, "bulk_task_instances", None, {
            "actions": [{"entities": [{"task_id": "a", "new_state": "failed"}, {"task_id": "b"}]}]
        }, ["a"]),
        (Airflow2Client, "dagrun_failed", None, {"confirmed": "true"}, [None]),
        (Airflow2Client, "dagrun_failed", None, {"confirmed": "false"}, []),
        (Airflow2Client, "failed", "train", {"past": "false"}, ["train"]),
        pytest.param(Airflow2Client, "failed", "train", {}, [], id="a task that failed by itself"),
        (Airflow2Client, "api.update_dag_run_state", None, {"state": "failed"}, [None]),
    ],
)  # fmt: skip
def test_who_marked_something_as_failed(
    kind: type[AirflowClient], event: str, task: str | None, call: dict[str, Any], expected: list[str | None]
) -> None:
    """Entries as Airflow 3.3 and 2.11 write them, those of the pages of 2.11 too."""
    entry = {"event": event, "task_id": task, "owner": "ada", "when": MARKED, "extra": json.dumps(call)}
    client = kind(Answers(lambda *_: {"event_logs": [entry]}), "0")
    assert client.marked_failed("d", "r") == [Mark(each, "ada", MARKED) for each in expected]


@pytest.mark.parametrize("kind", [AirflowClient, Airflow2Client])
def test_why_airflow_ended_a_task(kind: type[AirflowClient]) -> None:
    asked: list[Mapping[str, Any]] = []
    entries: list[dict[str, Any]] = []

    def answer(path: str, params: Mapping[str, Any], body: Any) -> Any:
        asked.append(params)
        return {"event_logs": entries}

    client, run = kind(Answers(answer), "0"), {"dag_id": "d", "dag_run_id": "r"}
    assert client.why_ended(run, {"task_id": "t", "map_index": 2, "try_number": 1}) == ""
    entries.append({"event": "heartbeat timeout", "extra": "Task did not emit heartbeat"})
    assert client.why_ended(run, {"task_id": "t", "map_index": -1, "try_number": 1}) == "Task did not emit heartbeat"
    assert [params.get("map_index") for params in asked] == [2, None]
    entries[:] = [{"map_index": index, "extra": f"item {index}"} for index in (3, 0)]
    assert client.why_ended(run, {"task_id": "t", "map_index": 0, "try_number": 1}) == "item 0", "2.11 returns all"


def test_all_tasks_of_airflow_2_are_one_page() -> None:
    """It gives them in another order each time."""
    asked: list[Any] = []

    def answer(path: str, params: Mapping[str, Any], body: Any) -> Any:
        asked.append((path, body["dag_ids"], body["dag_run_ids"]))
        return {"task_instances": [item(index) for index in range(150)][: body["page_limit"]], "total_entries": 150}

    assert len(Airflow2Client(Answers(answer), "2.11.2").task_instances("d", "r")) == 150
    assert asked == [("/api/v1/dags/~/dagRuns/~/taskInstances/list", ["d"], ["r"])]


def test_a_run_that_is_made_while_runs_are_listed_repeats_none() -> None:
    runs = [{"dag_id": "d", "dag_run_id": str(number)} for number in range(150)]

    def answer(path: str, params: Mapping[str, Any], body: Any) -> Any:
        page = runs[body["page_offset"] : body["page_offset"] + body["page_limit"]]
        runs.insert(0, {"dag_id": "d", "dag_run_id": "new"})
        return {"dag_runs": page, "total_entries": 150}

    listed = [run["dag_run_id"] for run in AirflowClient(Answers(answer), "3.0.0").runs(["d"], None)]
    assert listed == [str(number) for number in range(150)]


def test_what_tasks_left_is_listed_once() -> None:
    entries = [{"task_id": "train", "map_index": index, "key": "return_value"} for index in (0, 1, 1)]
    client = AirflowClient(Answers(lambda *_: {"xcom_entries": entries, "total_entries": 3}), "3.0.0")
    assert client.returned("d", "r") == [("train", 0), ("train", 1)]


@pytest.mark.parametrize("kind", [AirflowClient, Airflow2Client])
@pytest.mark.parametrize("refuses", [True, False])
def test_a_value_that_airflow_keeps_elsewhere_is_not_the_text_that_leads_there(
    kind: type[AirflowClient], refuses: bool
) -> None:
    """Airflow 2 answers 400 unless its settings allow more, Airflow 3 gives the same text."""
    place = "s3://ada:secret@xcoms/a/d/r/t/0b9e52b8-5a1c-4a6c-9be2-7a1b2c3d4e5f.gz"

    def answer(path: str, params: Mapping[str, Any], body: Any) -> Any:
        if refuses and params.get("deserialize"):
            raise RefusedError("XCom deserialization is disabled in configuration.")
        return {"value": place}

    client = kind(Answers(answer), "3.0.0")
    with pytest.raises(
        KeptElsewhereError, match=r"stores 'k' of task 't' at s3://xcoms/.*set \[common\.io\]"
    ) as caught:
        client.xcom("d", "r", "t", "k")
    assert "secret" not in str(caught.value)
    assert client.xcom("d", "r", "other", "k") == place, "a text of its own"


def test_what_is_cleared_is_not_cleared_a_second_time() -> None:
    """The tasks may run again by then, and would be stopped. A 500 says that nothing was cleared."""
    sent: list[str] = []

    def answer(request: Recorded) -> tuple[int, str, str]:
        sent.append(request.path)
        return 500 if len(sent) == 1 else 503, "application/json", '{"detail": "no answer."}'

    with site(answer) as url:
        policy = OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=0.01)
        client = AirflowClient(Transport(Connection.to(url, "x"), timeout=60, policy=policy), "3.0.0")
        for call in (lambda: client.clear("d", "r", True), lambda: client.clear_tasks("d", "r", {"t": None})):
            sent.clear()
            with pytest.raises(
                EngineUnreachableError, match=r"no answer\. The request may have arrived and cleared tasks: look at"
            ):
                call()
            assert sent == ["/api/v2/dags/d/clearTaskInstances"] * 2
