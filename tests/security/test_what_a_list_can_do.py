"""A server whose lists have no end: they are left, on every engine, before they fill the memory or hold the caller."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml.core.errors import EngineError
from flowyml.orchestrators import http
from flowyml_airflow.client import AirflowClient
from flowyml_kubeflow.client import Client
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection

ENDLESS = "A list has no end"


def prefect(answers: Iterator[list[Any]]) -> Iterator[Any]:
    client = PrefectClient(Connection("http://127.0.0.1:1/api"))
    client.query = lambda path, body: next(answers)  # type: ignore[method-assign]  # in place of a server
    return client._pages("/deployments/filter", {})


def airflow(answers: Iterator[list[Any]]) -> Iterator[Any]:
    client: Any = AirflowClient.__new__(AirflowClient)
    client.api = "/api/v2"
    client.transport = SimpleNamespace(get=lambda *_, **__: {"dags": next(answers), "total_entries": 2**60})
    return AirflowClient.dags(client)


def kubeflow(answers: Iterator[list[Any]]) -> Iterator[Any]:
    client: Any = Client.__new__(Client)
    client.call = lambda *_, **__: SimpleNamespace(runs=next(answers), next_page_token="again")
    return Client.pages(client, "run_service_list_runs", "runs")


LISTS = pytest.mark.parametrize("listed", [prefect, airflow, kubeflow])


@LISTS
def test_the_same_page_again_and_again(listed: Callable[[Iterator[list[Any]]], Iterator[Any]]) -> None:
    same = [{"id": number, "dag_id": "d"} for number in range(200)]
    with pytest.raises(EngineError, match=f"{ENDLESS}: the page after 400 entries is the one before it again"):
        list(listed(itertools.repeat(same)))


@LISTS
def test_other_entries_for_ever(listed: Callable[[Iterator[list[Any]]], Iterator[Any]]) -> None:
    pages = ([{"id": number, "dag_id": "d"}] * 200 for number in itertools.count())
    with pytest.raises(EngineError, match=f"{ENDLESS}.* At most 1000000 are read"):
        list(listed(pages))


@LISTS
def test_pages_that_take_for_ever(
    listed: Callable[[Iterator[list[Any]]], Iterator[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=250.0)
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep))
    pages = ([{"id": number, "dag_id": "d"}] * 200 for number in itertools.count())
    with pytest.raises(EngineError, match=f"{ENDLESS}: 600 entries came in 750 s"):
        list(listed(pages))
