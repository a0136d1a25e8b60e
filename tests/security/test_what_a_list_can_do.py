"""A server whose lists have no end: they are left, on every engine, before they fill the memory or hold the caller."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml.core import web as core_web
from flowyml.core.errors import EngineError
from flowyml.core.tls import Tls
from flowyml.orchestrators import http, listing
from flowyml_airflow import connection as airflow_connection
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.transport import Transport
from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection
from tests.engines.web import Recorded, Reply, web

pytest.importorskip("kfp")

Pages = Iterator[tuple[list[Any], str]]
"""The entries of each page, and the token for the next one, where the engine has tokens."""


def prefect(url: str) -> Iterator[Any]:
    return PrefectClient(Connection(f"{url}/api"))._pages("/deployments/filter", {})


def airflow(url: str) -> Iterator[Any]:
    connection = airflow_connection.Connection.to(url, "t", Tls())
    return AirflowClient(Transport(connection, timeout=30), "3.1.0").dags()


def kubeflow(url: str) -> Iterator[Any]:
    return KubeflowOrchestrator(url).client.pages("run_service_list_runs", "runs")


LISTS = pytest.mark.parametrize("listed", [prefect, airflow, kubeflow])
Listed = Callable[[str], Iterator[Any]]


@contextmanager
def serving(pages: Pages) -> Iterator[str]:
    """A server that gives these pages, one after the other, in the forms of all engines. Gives its URL."""

    def reply(request: Recorded) -> Reply:
        if request.path.endswith("healthz"):
            return Reply(body=b'{"multi_user": false}')
        entries, token = next(pages)
        if request.path.startswith("/api/v2"):
            return Reply(body=json.dumps({"dags": entries, "total_entries": 2**60}).encode())
        if request.path.startswith("/apis"):
            return Reply(body=json.dumps({"runs": entries, "next_page_token": token}).encode())
        return Reply(body=json.dumps(entries).encode())

    with web(reply) as server:
        yield server.url


def page(number: int) -> list[dict[str, Any]]:
    return [{"id": f"{number}-{position}", "run_id": f"{number}-{position}"} for position in range(200)]


@LISTS
@pytest.mark.parametrize("period", [1, 2, 5])
def test_the_same_pages_again_and_again(listed: Listed, period: int) -> None:
    pages = ((page(number % period), f"token {number}") for number in itertools.count())
    entries = 200 * (period + 1)
    with serving(pages) as url, pytest.raises(EngineError, match=f"no end: after {entries} entries, an earlier page"):
        list(listed(url))


def test_the_same_tokens_again_and_again() -> None:
    pages = ((page(number), f"token {number % 2}") for number in itertools.count())
    with serving(pages) as url, pytest.raises(EngineError, match="no end: after 600 entries, an earlier token"):
        list(kubeflow(url))


def test_empty_pages_with_new_tokens() -> None:
    empty: Pages = iter([*(([], f"token {number}") for number in range(10)), (page(0), "")])
    with serving(empty) as url:
        assert len(list(kubeflow(url))) == 200
    pages: Pages = (([], f"token {number}") for number in itertools.count())
    with serving(pages) as url, pytest.raises(EngineError, match=r"no end: .*with 11 empty pages"):
        list(kubeflow(url))


@LISTS
def test_other_entries_for_ever(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_ENTRIES", 1000)
    pages = ((page(number), f"token {number}") for number in itertools.count())
    with serving(pages) as url, pytest.raises(EngineError, match="no end: 1200 entries came"):
        list(listed(url))


@LISTS
def test_entries_that_are_large(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_web, "LARGEST_ANSWER", 3 * 2**20)
    large = "x" * 5000
    pages = (([{**run, "description": large} for run in page(number)], f"{number}") for number in itertools.count())
    with serving(pages) as url, pytest.raises(EngineError, match=r"no end: 800 entries came in [\d.]+ s and 4 MB"):
        list(listed(url))


@LISTS
def test_an_answer_that_is_small_as_text_and_large_as_objects(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MB of it would take more than six gigabytes. Commas in a text, such as a log, are no values."""
    monkeypatch.setattr(core_web, "_MOST_VALUES", 5000)
    log = [{**page(0)[0], "description": 'a, {"b": [' * 5000}]
    with serving(iter([([{}] * 3000, "")])) as url, pytest.raises(EngineError, match="holds more than 5,000 values"):
        list(listed(url))
    with serving(iter([(log, "")])) as url:
        assert next(listed(url))


def test_nor_is_kubeflows_other_api_read_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_web, "_MOST_VALUES", 5000)

    def reply(request: Recorded) -> Reply:
        if "v1beta1/runs" not in request.path:
            return Reply(body=b'{"multi_user": false}')
        return Reply(body=json.dumps({"run": [{}] * (3000 if "large" in request.path else 10)}).encode())

    with web(reply) as server:
        client = KubeflowOrchestrator(server.url).client
        assert client.run_of_v1("usual") is not None
        assert client.run_of_v1("large") is None


def test_pages_that_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=125.0)
    monkeypatch.setattr(listing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    endless = http.paged(lambda size, before: (page(before), None), 200)
    with pytest.raises(EngineError, match="no end: 600 entries came in 6 min 15 s"):
        list(endless)


def test_runs_of_a_deployment_that_was_not_asked_for() -> None:
    run = {"id": "1", "name": "r", "flow_id": "f", "deployment_id": "another"}
    with (
        web(lambda _: Reply(body=json.dumps([run] * 200).encode())) as server,
        pytest.raises(EngineError, match="answered with 'another', which does not come from Prefect's API"),
    ):
        PrefectClient(Connection(f"{server.url}/api")).planned(["mine"], 3)
