"""What the client makes of lists and of answers that get lost. No Airflow here: the transport gives the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from flowyml.core.errors import EngineUnreachableError, ServerTroubleError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml_airflow.client import AirflowClient, Transport
from flowyml_airflow.client_v1 import Airflow2Client
from flowyml_airflow.connection import Connection
from tests.adapters.airflow.test_client import site


class Answers(Transport):
    """``answer`` gets the path, the parameters and the body of each call."""

    def __init__(self, answer: Callable[[str, Mapping[str, Any], Any], Any]) -> None:
        super().__init__(Connection.to("http://127.0.0.1:9", token="x"), timeout=1)
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


@pytest.mark.parametrize(("status", "error"), [(500, ServerTroubleError), (503, EngineUnreachableError)])
def test_what_is_cleared_is_not_cleared_a_second_time(status: int, error: type[Exception]) -> None:
    """The tasks may run again by then, and would be stopped."""
    sent: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, str, str]:
        sent.append(request.path)
        return status, "application/json", '{"detail": "no answer."}'

    with site(answer) as url:
        policy = OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=0.01)
        client = AirflowClient(Transport(Connection.to(url, token="x"), timeout=5, policy=policy), "3.0.0")
        for call in (lambda: client.clear("d", "r", True), lambda: client.clear_tasks("d", "r", {"t": None})):
            sent.clear()
            with pytest.raises(error, match=r"no answer\. It may have cleared tasks: look at the run"):
                call()
            assert sent == ["/api/v2/dags/d/clearTaskInstances"]
