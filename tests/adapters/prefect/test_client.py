"""Calls to a server that is busy, gone, or answers with an error: what no real server does on demand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from flowyml.core.errors import AuthenticationError, EngineUnreachableError
from flowyml.orchestrators import http
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection
from tests.engines.web import Recorded, Reply, web


@contextmanager
def answering(*statuses: int, word: str = "detail") -> Iterator[tuple[PrefectClient, list[float]]]:
    """A client of a server that gives these, the last one for ever; and the times at which it was asked."""
    asked: list[float] = []

    def reply(_: Recorded) -> Reply:
        asked.append(time.monotonic())
        status = statuses[min(len(asked), len(statuses)) - 1]
        return Reply(status, json.dumps("3.9.1" if status == 200 else {word: "database is locked"}).encode())

    with web(reply) as server:
        client = PrefectClient(Connection(f"{server.url}/api"))
        yield client, asked
        client.close()


def test_a_locked_database_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_BUSY_SECONDS", 120)  # which a machine that stalls may need
    with answering(503, 503, 503, 200) as (client, asked):
        assert client.version() == "3.9.1"
    gaps = [after - before for before, after in pairwise(asked)]
    assert len(gaps) == 3
    assert all(gap > 0.015 for gap in gaps)


def test_a_database_that_stays_locked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_BUSY_SECONDS", 0.3)
    with (
        answering(503) as (client, _),
        pytest.raises(EngineUnreachableError, match=r"answered 503 to GET /admin/version: .*locked"),
    ):
        client.version()


def test_prefects_own_word_that_it_is_busy_is_believed_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_BUSY_SECONDS", 0.1)
    with answering(*[503] * 10, 200, word="exception_message") as (client, asked):
        client.locked_seconds = 120
        assert client.version() == "3.9.1"
    assert asked[-1] - asked[0] > 0.2, "a gateway would have been asked for half as long"
    with answering(503, word="exception_message") as (client, asked):
        client.locked_seconds = 0
        with pytest.raises(EngineUnreachableError):
            client.version()
    assert len(asked) == 1


def test_a_403_names_the_call() -> None:
    with (
        answering(403) as (client, _),
        pytest.raises(AuthenticationError, match=r"refuses these credentials.* GET /admin/version needs a permission"),
    ):
        client.version()


@pytest.mark.parametrize(
    ("actions", "written"),
    [
        ([{"type": "change-flow-run-state", "name": "Crashed"}], 1),  # of an earlier release
        ([{"type": "change-flow-run-state", "name": "Silent"}], 0),
        ([{"type": "change-flow-run-state", "name": "Crashed"}, {"type": "send-notification"}], 0),  # people added one
    ],
)
def test_an_automation_that_people_changed_stays(actions: list[dict[str, str]], written: int) -> None:
    there = [{"id": "1", "enabled": True, "actions": actions}]
    with web(lambda request: Reply(body=json.dumps(there if request.method == "POST" else {}).encode())) as server:
        client = PrefectClient(Connection(f"{server.url}/api"))
        client.ensure_automation({"name": "a", "actions": [{"type": "change-flow-run-state", "name": "Silent"}]})
        client.close()
    assert [request.method for request in server.requests] == ["POST", *["PUT"] * written]
