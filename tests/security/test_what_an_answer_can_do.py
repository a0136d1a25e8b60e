"""What a server, or what stands in its place, can do to who asks it: neither fill the memory nor hold it for ever.

KFP's official client, which would take any answer whole, sends by the HTTP room, as the other engines' clients do: see
``test_http`` too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.core import web
from flowyml.core.errors import EngineError, EngineUnreachableError
from tests.engines.web import authority, dripping

pytest.importorskip("kfp")

from flowyml.core.tls import Tls
from flowyml_kubeflow import KubeflowOrchestrator, client

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"


SECONDS = 0.5  # of silence; an answer may take four times as long
GIVEN_UP = r"not complete (in time|after 2 s)|timed out"


@pytest.mark.parametrize("by", ["http", "https"])
@pytest.mark.parametrize("beginning", [HEAD + b"\r\n", HEAD + b"X-Slow: "], ids=["body", "headers"])
def test_an_answer_that_drips_is_given_up_and_not_asked_for_again(by: str, beginning: bytes, tmp_path: Path) -> None:
    """A server that drips was asked two or three times, each time for four times ``timeout``."""
    private = authority(tmp_path) if by == "https" else None
    tls = private and Tls(ca_file=private.ca)
    heard: list[bytes] = []
    drip = dripping(beginning, tls=private and private.server(), heard=heard)
    with drip as url, pytest.raises(EngineUnreachableError, match=GIVEN_UP):
        KubeflowOrchestrator(url, timeout=SECONDS, tls=tls).runs()
    assert len(heard) <= 1


def test_nor_is_a_call_after_that_which_asks_whether_it_is_kfp() -> None:
    heard: list[bytes] = []
    drip = dripping(HEAD + b"\r\n", heard=heard)
    with drip as url, pytest.raises(EngineUnreachableError, match=GIVEN_UP):
        KubeflowOrchestrator(f"{url}/pipeline", namespace="a", timeout=SECONDS).runs()
    assert len(heard) <= 1


@pytest.mark.parametrize("status", [b"500 No", b"404 No", b"400 No"])
def test_an_answer_without_content_is_an_error_like_any_other(status: bytes) -> None:
    answer = b"HTTP/1.0 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
    with dripping(answer) as url, pytest.raises(EngineError, match="answered"):
        KubeflowOrchestrator(url, timeout=10).runs()


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LARGEST_ANSWER", 2**21)
    endless = dripping(HEAD + b"\r\n", drop=b" " * 2**20, pause=0.001)
    with endless as url, pytest.raises(EngineError, match="more than 2 MB, which FlowyML does not read"):
        KubeflowOrchestrator(url, timeout=30).runs()


@pytest.mark.parametrize("drop", [b"line\n" * 2**18, b"line" * 2**18])
def test_a_log_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch, drop: bytes) -> None:
    monkeypatch.setattr(client, "LONGEST_LOG", 2**21)
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    with dripping(head, drop=drop, pause=0.001) as url:
        lines = KubeflowOrchestrator(f"{url}/pipeline", namespace="a", timeout=30).client.log("run", "node")
        *_, last = lines or ()
    assert last == "(FlowyML reads 2 MB of a log at most; this one is longer.)"
