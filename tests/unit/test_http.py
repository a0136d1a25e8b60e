"""The HTTP rooms, of httpcore and of the standard library, against servers that behave badly."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from flowyml.core.credentials import Auth, AuthLike, Secret
from flowyml.core.errors import (
    AuthenticationError,
    ConfigurationError,
    EngineError,
    EngineUnreachableError,
)
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.tls import Tls
from flowyml.core.web import TooLargeError, exchange, page_title
from flowyml.orchestrators.http import HttpClient, paged
from tests.engines.statuses import STATUSES
from tests.engines.web import Authority, Recorded, Reply, Web, authority, dripping, web

pytest.importorskip("httpcore")
POLICY = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0.01)
HOSTILE = b"<title" + b" " * 1_000_000


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("tls"))


@contextmanager
def asking(url: str, **options: object) -> Iterator[HttpClient]:
    made = HttpClient(url, **{"timeout": 240, **options})  # type: ignore[arg-type]  # options of several types
    try:
        yield made
    finally:
        made.close()


@contextmanager
def asked_of(reply: Reply | Callable[[Recorded], Reply], **options: object) -> Iterator[tuple[HttpClient, Web]]:
    """A client, and the server that answers it."""
    answer = (lambda _: reply) if isinstance(reply, Reply) else reply
    with web(answer) as server, asking(server.url, **options) as client:
        yield client, server


def answers(*replies: Reply) -> Callable[[Recorded], Reply]:
    """These, one after another, and the last one for ever."""
    left = iter(replies[:-1])
    return lambda _: next(left, replies[-1])


# What comes back.


def test_json_parameters_and_a_body() -> None:
    with (
        web(lambda request: Reply(body=json.dumps([request.path, request.body.decode()]).encode())) as server,
        asking(server.url + "/base") as client,
    ):
        found = client.call("POST", "/x", params={"a": "b c", "yes": True, "none": None, "l": [1, 2]}, json={"k": 1})
    assert found == ["/base/x?a=b+c&yes=true&l=1&l=2", '{"k": 1}']


def test_a_field_that_an_answer_lacks_says_who_answered() -> None:
    with asked_of(Reply(body=b'{"status": "ok"}')) as (client, _):
        with pytest.raises(EngineError, match=r"answered GET /runs without the field 'runs': \{'status': 'ok'\}"):
            client.get("/runs")["runs"]
        assert client.get("/runs") == {"status": "ok"}


def test_statuses_are_kinds_of_errors() -> None:
    for status, kind in STATUSES:
        with asked_of(Reply(status, b'{"detail": "because"}')) as (client, server):
            with pytest.raises(kind, match=f"answered {status} to GET /x: because"):
                client.get("/x")
            assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (
            Reply(200, b"<html><title>Sign in</title>", media_type="text/html"), EngineError,
            r"a page titled 'Sign in' .* does not come from the engine's API",
        ),
        (Reply(503, headers={"Retry-After": "3600"}), EngineUnreachableError, "503"),
        (Reply(body=b"[" * 200_000), EngineError, "does not come from the engine's API"),
        (Reply(headers={"Content-Length": "100"}), EngineUnreachableError, None),
    ],
    ids=["a login page", "a pause of an hour", "nested too deeply", "truncated"],
)  # fmt: skip
def test_what_is_no_answer_is_an_error(reply: Reply, kind: type[EngineError], message: str | None) -> None:
    with asked_of(reply) as (client, _), pytest.raises(kind, match=message):
        client.get("/x")


def test_the_standard_library_takes_no_such_answer_either() -> None:
    with web(lambda _: Reply(body=b"[" * 200_000)) as server:
        assert exchange(server.url).json() is None
    with web(lambda _: Reply(headers={"Content-Length": "100"})) as server, pytest.raises((OSError, HTTPException)):
        exchange(server.url)


@pytest.mark.processes
@pytest.mark.parametrize("follow", [True, False])
def test_no_connection_stays_open_to_a_server_that_redirects_to_nowhere(follow: bool) -> None:
    with web(lambda _: Reply(302, b"abc", {"Location": "http://[::1"})) as server:
        with pytest.raises(OSError, match="redirects to an address that is not a URL") as caught:
            exchange(server.url, follow=follow)
        port = urlsplit(server.url).port
        assert not [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]
        del caught  # its frames would hold one


def test_what_is_busy_is_asked_again_and_retry_after_is_kept() -> None:
    busy = Reply(503, b'{"detail": "database is locked"}')
    begin = time.monotonic()
    paused = Reply(429, headers={"Retry-After": "1"})
    with asked_of(answers(busy, busy, paused, Reply(body=b'"done"'))) as (client, server):
        assert client.get("/x") == "done"
        assert time.monotonic() - begin >= 1
        assert len(server.requests) == 4


def test_a_call_that_must_not_be_made_twice_is_not() -> None:
    with asked_of(Reply(503), policy=POLICY) as (client, server):
        with pytest.raises(EngineUnreachableError):
            client.call("POST", "/x", again=False)
        assert len(server.requests) == 1


def test_trouble_passes_with_a_policy() -> None:
    with asked_of(answers(Reply(500), Reply(500), Reply(body=b"7")), policy=POLICY) as (client, _):
        assert client.get("/x") == 7


# Bounds.


DRIPPING = [
    b"HTTP/1.1 200 OK\r\nX-Long: ",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n",
    b"",  # in the status line
]


@pytest.mark.processes
def test_a_server_that_drips_is_given_up_and_asked_once_whatever_the_policy() -> None:
    """Airflow's client asked four times, each time for four times ``timeout``."""

    def check(beginning: bytes) -> None:
        heard: list[bytes] = []
        with dripping(beginning, heard=heard) as url:
            with (
                asking(url, timeout=1.5, policy=POLICY) as client,  # a stall of the machine is no silence
                pytest.raises(EngineUnreachableError, match=r"not complete in time|does not answer"),
            ):
                client.get("/x")
            assert len(heard) == 1
            with pytest.raises(TimeoutError, match="not complete after 4 s"):
                exchange(url, timeout=1)

    with ThreadPoolExecutor() as pool:  # each waits for most of its time
        list(pool.map(check, DRIPPING))


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowyml.core.web.LARGEST_ANSWER", 2**20)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    with dripping(head, drop=b" " * 2**18, pause=0.001) as url:
        with asking(url) as client, pytest.raises(EngineError, match="more than 1 MB"):
            client.get("/x")
        with pytest.raises(TooLargeError, match="larger than 1 MB"):
            exchange(url, limit=2**20)
        assert len(exchange(url, limit=100, cut=True).body) == 100


@pytest.mark.parametrize("status", [200, 302, 401, 404, 500])
def test_a_hostile_page_does_not_stall_the_reader(status: int) -> None:
    with asked_of(Reply(status, HOSTILE, media_type="text/html")) as (client, _):
        begin = time.process_time()
        with pytest.raises(EngineError):
            client.get("/x")
        assert time.process_time() - begin < 20


@pytest.mark.parametrize("piece", ["<title", "<title ", "<title>", "</title", ">", "<", " ", "İ"])
def test_titles_of_hostile_pages(piece: str) -> None:
    begin = time.process_time()
    assert len(page_title("<title>" + piece * 300_000 + "</title>")) <= 80
    assert len(page_title(piece * 300_000)) <= 80
    assert time.process_time() - begin < 20


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_follows_a_redirect_with_credentials(status: int) -> None:
    with web(lambda _: Reply(body=b'"caught"')) as thief:
        moved = Reply(status, b"", {"Location": f"{thief.url}/login?token=hunter2", "Set-Cookie": "a=b"})
        with asked_of(moved, auth=Auth(token="hunter2")) as (client, server):
            with pytest.raises(EngineError, match="redirects to") as caught:
                client.call("POST", "/x", json={"password": "hunter2"})
            assert "hunter2" not in str(caught.value)
            answer = exchange(server.url, headers={"Authorization": "Bearer hunter2", "Cookie": "hunter2"})
            assert (answer.status, thief.requests) == (status, [])
            followed = exchange(server.url, headers={"Authorization": "x hunter1", "Cookie": "hunter1"}, follow=True)
            assert followed.json() == "caught"
            assert "hunter1" not in thief.everything


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_leads_to_http_only(target: str) -> None:
    with web(lambda _: Reply(302, b"moved", {"Location": target})) as server:
        try:
            body = exchange(server.url, follow=True).body
        except (OSError, HTTPException):
            body = b"moved"
        assert body == b"moved"


# TLS.


def test_a_private_authority(private: Authority) -> None:
    with web(lambda _: Reply(body=b"1"), private.server()) as server:
        with (
            asking(server.url) as client,
            pytest.raises(EngineUnreachableError, match=r"TLS .* fails: .*certificate.* tls=Tls\(ca_file"),
        ):
            client.get("/x")
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            exchange(server.url)
        for tls in (Tls(ca_file=private.ca), Tls(verify=False)):
            with asking(server.url, tls=tls) as trusting:
                assert trusting.get("/x") == exchange(server.url, tls=tls).json() == 1


@pytest.mark.parametrize(
    ("most", "total", "limit", "expected", "calls"),
    [
        (3, 7, None, 7, [(3, 0), (3, 3), (3, 6)]),
        (2, 7, None, 7, [(3, 0), (3, 2), (3, 4), (3, 6)]),  # the server gives less at once than was asked for
        (3, 9, None, 7, [(3, 0), (3, 3), (3, 6), (3, 7)]),  # some went meanwhile
        (3, None, None, 7, [(3, 0), (3, 3), (3, 6)]),
        (3, 7, 4, 4, [(3, 0), (1, 3)]),
        (3, None, 6, 6, [(3, 0), (3, 3)]),
        (3, None, 0, 0, []),
    ],
)
def test_pages_of_a_list(
    most: int, total: int | None, limit: int | None, expected: int, calls: list[tuple[int, int]]
) -> None:
    asked: list[tuple[int, int]] = []

    def fetch(size: int, offset: int) -> tuple[list[int], int | None]:
        asked.append((size, offset))
        return list(range(7))[offset : offset + min(size, most)], total

    assert [*paged(fetch, 3, limit)] == list(range(expected))
    assert asked == calls


def test_a_certificate_of_the_client(private: Authority, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(private.client_cert.read_bytes() + private.client_key.read_bytes())
    with web(lambda _: Reply(body=b"1"), private.server(wants_certificate=True)) as server:
        with asking(server.url, tls=Tls(ca_file=private.ca)) as client, pytest.raises(EngineUnreachableError):
            client.get("/x")
        for certificate in (both, (private.client_cert, private.client_key)):
            tls = Tls(ca_file=private.ca, client_cert=certificate)
            with asking(server.url, tls=tls) as known:
                assert known.get("/x") == exchange(server.url, tls=tls).json() == 1


def test_invalid_certificate_files(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for tls, message in (
        (Tls(ca_file=wrong), r"ca_file=.*wrong.pem.* is not a PEM file"),
        (Tls(ca_file=tmp_path / "missing.pem"), "No such file"),
        (Tls(client_cert=wrong), "client_cert=.* is not a PEM file"),
        (Tls(client_cert=(wrong, wrong)), "client_cert=.* is not a PEM file"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            tls.context()
    assert Tls().context().verify_mode is ssl.CERT_REQUIRED


# Credentials from files and commands.


def test_a_token_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    valid = ""

    def reply(request: Recorded) -> Reply:
        return Reply(body=b"1") if request.headers["authorization"] == valid else Reply(401)

    for options in ({"token_file": file}, {"token_command": ["cat", str(file)]}, {"token_command": f"cat '{file}'"}):
        file.write_text("old\n")
        valid = "Bearer old"
        auth = Auth(**options)  # type: ignore[arg-type]  # options of several types
        with asked_of(reply, auth=auth) as (client, server):
            assert client.get("/x") == 1
            file.write_text("new\n")
            assert client.get("/x") == 1, "what is not refused is not read again"
            valid = "Bearer new"
            assert client.get("/x") == 1
            assert len(server.requests) == 4
            valid = ""
            with pytest.raises(AuthenticationError, match="refuses these credentials"):
                client.get("/x")


def test_a_token_from_a_function_is_asked_for_at_each_call() -> None:
    tokens = iter(["one", "two", "three", ""])
    with asked_of(Reply(body=b"1"), auth=Auth(token=lambda: next(tokens))) as (client, server):
        for _ in range(3):
            assert client.get("/x") == 1
        assert [request.headers["authorization"] for request in server.requests] == [
            "Bearer one", "Bearer two", "Bearer three",
        ]  # fmt: skip
        with pytest.raises(ConfigurationError, match="token returned nothing; it must return a token"):
            client.get("/x")


ADA, BOB, TOKEN = ("ada", "word"), ("bob", "other"), "t0ken"


@pytest.mark.parametrize(
    ("first", "second", "sent"),
    [
        (None, ADA, ADA),
        (None, TOKEN, TOKEN),
        (TOKEN, ADA, TOKEN),
        (ADA, TOKEN, ADA),
        (ADA, BOB, ADA),
        (Auth(username="ada"), ADA, ADA),
        (Auth(username="ada"), Auth(password="word"), ADA),
        (Auth(username="ada"), BOB, ("ada", "")),
        (Auth(username="ada"), TOKEN, ("ada", "")),
        (Auth(password="word"), Auth(username="ada"), ADA),
        (Auth(password="word"), Auth(username="ada", token=TOKEN), ADA),
    ],
)
def test_credentials_of_several_sources(first: AuthLike | None, second: AuthLike, sent: AuthLike) -> None:
    """A user gets no password and no token of another one."""
    assert Auth.merged(first, Auth.of(second)).headers() == Auth.of(sent).headers()


def test_cookies_go_beside_either() -> None:
    for auth in (ADA, TOKEN):
        sent = Auth.merged(auth, Auth(cookies="a=b")).headers()
        assert sent == {**Auth.of(auth).headers(), "Cookie": "a=b"}


def test_what_is_no_credential_is_refused_and_not_shown() -> None:
    for wrong in (17, b"hunter2", ("ada",), ("ada", "hunter2", "x"), {"token": "hunter2"}):
        with pytest.raises(ConfigurationError, match="Give a token, a pair of user name and password") as caught:
            Auth.of(wrong)  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="password needs a user name"):
        Auth.merged(Auth(password="x"), Auth(token="t"))


def test_a_password_from_a_command() -> None:
    auth = Auth(username="ada", password_command=["printf", "pass word\\n"])
    assert auth.headers() == {"Authorization": "Basic YWRhOnBhc3Mgd29yZA=="}


def test_secrets_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two").write_text("hunter2\nhunter2")
    for options, message in (
        ({"file": tmp_path / "missing"}, "token_file=.*missing' cannot be read: No such file"),
        ({"file": tmp_path / "empty"}, "token_file is empty"),
        ({"file": tmp_path / "two"}, "token_file has spaces, control characters"),
        ({"command": "false"}, "token_command ended with exit code 1"),
        ({"command": ["sh", "-c", "echo hunter2; echo sorry >&2; exit 3"]}, "exit code 3: sorry"),
        ({"command": "flowyml-no-such-command"}, "token_command cannot be run"),
        ({"command": "'"}, "token_command cannot be run"),
    ):
        with pytest.raises(ConfigurationError, match=message) as caught:
            Secret("token", **options).get()  # type: ignore[arg-type]  # options of several types
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="token and token_file are both given"):
        Secret("token", "hunter2", tmp_path / "empty")
    assert "hunter2" not in repr(Auth(token="hunter2", username="ada", password="hunter2"))
