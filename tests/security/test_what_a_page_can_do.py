"""A server that a step asks: it can neither fill the worker, nor hold it, nor see what is meant for another one."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from flowyml.core import web
from flowyml.steps import http, wait_for_http

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


@contextmanager
def serving(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server on 127.0.0.1 that gives its answer to each connection, and the request to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with closing(connection), suppress(OSError):
                        answer(connection, connection.recv(65_536))

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def endless(connection: socket.socket, request: bytes) -> None:
    connection.sendall(HEAD)
    while True:
        connection.sendall(b"x" * 65_536)


def dripping(connection: socket.socket, request: bytes) -> None:
    """A byte now and then, so that no silence is long."""
    connection.sendall(HEAD)
    for _ in range(6000):
        connection.sendall(b"x")
        time.sleep(0.05)


def test_an_answer_without_end_does_not_fill_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.exchange, "__kwdefaults__", {**web.exchange.__kwdefaults__, "limit": 2**20})  # type: ignore[attr-defined]  # 256 MB take a while
    with serving(endless) as url, pytest.raises(ConnectionError, match="larger than 1 MB"):
        http(url)


def test_an_answer_that_drips_does_not_hold_the_worker() -> None:
    with serving(dripping) as url, pytest.raises(ConnectionError, match="not complete after 1"):
        http(url, timeout=0.25)


def test_waiting_ends_although_an_answer_drips() -> None:
    begun = time.monotonic()
    with serving(dripping) as url, pytest.raises(TimeoutError):
        wait_for_http(url, poll_interval=0.1, patience=1)
    assert time.monotonic() - begun < 240, "the answer takes five minutes"


def test_a_password_in_the_url_is_sent_to_its_server_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[bytes] = []

    def refuse(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with serving(refuse) as url, pytest.raises(RuntimeError) as refused:
        http(url.replace("//", "//ada:planted@"))
    assert b"Basic " + base64.b64encode(b"ada:planted") in seen[0]
    with pytest.raises(ConnectionError) as silent:
        http("http://ada:planted@127.0.0.1:1/")
    assert "planted" not in f"{refused.value} {silent.value} {capsys.readouterr()}"


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_password_is_not_for_the_server_that_a_redirect_names(elsewhere: bool) -> None:
    seen: list[bytes] = []

    def redirect(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        if request.startswith(b"GET /there"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            target = other if elsewhere else first
            connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}/there\r\nContent-Length: 0\r\n\r\n".encode())

    with serving(redirect) as first, serving(redirect) as other:
        assert http(first.replace("//", "//ada:planted@"), headers={"X-Key": "planted"}) == "ok"
    asked, followed = seen
    assert b"Basic " in asked
    assert (b"Basic " in followed, b"planted" in followed) == (not elsewhere, not elsewhere)


def test_a_content_type_of_the_users_is_kept_however_it_is_spelled() -> None:
    seen: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        seen.append(request.lower())
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving(answer) as url:
        http(url, method="POST", json={"a": 1}, headers={"content-type": "application/ld+json"})
        http(url, method="POST", json={"a": 1})
    assert [b"content-type: application/ld+json" in request for request in seen] == [True, False]
    assert [request.count(b"content-type:") for request in seen] == [1, 1]
