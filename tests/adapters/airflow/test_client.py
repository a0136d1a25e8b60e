"""What answers instead of Airflow is recognized, and no credential is ever shown. A small server plays the stranger."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import certifi
import pytest

from flowyml.core.credentials import Auth
from flowyml.core.errors import (
    AuthenticationError,
    ConfigurationError,
    EngineError,
    EngineUnreachableError,
    MissingExtraError,
    ServerTroubleError,
    UnsupportedFeatureError,
)
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.tls import Tls
from flowyml.orchestrators import http
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.client import NotThereError
from flowyml_airflow.connection import Connection
from tests.engines.web import Recorded, Reply, web

CERTIFICATES = Path(ssl.get_default_verify_paths().cafile or certifi.where())
ONCE = OrchestratorRetryPolicy(max_attempts=1)
VERSION2 = json.dumps({"version": "2.11.2", "git_version": "x"})
VERSION = json.dumps({"version": "3.3.2", "git_version": "x"})
LOGIN = "<html><head><title>Sign in to Corp</title></head></html>"
Answer = Callable[[Recorded], tuple[int, str, str]]


@contextmanager
def site(answer: Answer, location: str = "") -> Iterator[str]:
    """A server that gives the answers it is made with. Gives its URL."""

    def reply(request: Recorded) -> Reply:
        status, media_type, body = answer(request)
        leads = {"location": location.format(path=request.path)} if status >= 300 and location else {}
        return Reply(status, body.encode(), leads, media_type)

    with web(reply) as server:
        yield server.url


def always(status: int, media_type: str, body: str) -> Answer:
    def answer(request: Recorded) -> tuple[int, str, str]:
        return (200, "application/json", VERSION) if request.path == "/api/v2/version" else (status, media_type, body)

    return answer


def jwt(expires: int) -> str:
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({}, {"exp": expires}, {}))


@pytest.mark.parametrize(
    ("status", "media_type", "body", "error", "message"),
    [
        (200, "text/html", LOGIN, EngineError, "a page titled 'Sign in to Corp'"),
        (200, "application/json", '{"status": "ok"}', EngineError, "without the field 'dag_runs': {'status': 'ok'}"),
        (200, "application/json", '["ok"]', EngineError, "Something other than Airflow answers there"),
        (200, "application/json", "", EngineError, "does not come from Airflow's API"),
        (302, "text/html", "", AuthenticationError, "A proxy in front of Airflow"),
        (403, "text/html", LOGIN, AuthenticationError, "A proxy in front of Airflow"),
        (
            403,
            "application/json",
            '{"detail":"Forbidden"}',
            AuthenticationError,
            r'dagRuns/list needs the permission "can read on DAG Runs"\. It answered: Forbidden',
        ),
        (502, "text/html", "<title>Bad gateway</title>", EngineUnreachableError, "cannot reach it"),
        (503, "application/json", "{}", EngineUnreachableError, "503"),
        (401, "application/json", '{"detail":"x"}', AuthenticationError, "expired at 2001-09-09"),
        (422, "application/json", '{"detail":[{"msg":"bad limit"}]}', EngineError, "bad limit"),
        (500, "application/json", '{"detail":"database is locked"}', EngineError, "database is locked"),
    ],
)
def test_strange_answers_are_distinguished(
    status: int, media_type: str, body: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_BUSY_SECONDS", 0.3)
    with site(always(status, media_type, body)) as url:
        orchestrator = AirflowOrchestrator(url, auth=jwt(10**9), retry_policy=ONCE)
        with pytest.raises(error, match=message) as caught:
            orchestrator.runs()
        assert jwt(10**9) not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "error", "message"),
    [
        (
            "https://127.0.0.1:8443/af{path}",
            EngineError,
            r"redirects to https://.*Give url='https://127\.0\.0\.1:8443/af'",
        ),
        (
            "https://sso.corp.example/start?secret=1",
            AuthenticationError,
            r"redirects to https://sso\.corp\.example/start\.",
        ),
        ("/login?next=secret", AuthenticationError, r"/login\. A proxy in front of Airflow requires a login"),
    ],
)
def test_a_redirect_names_where_it_leads(location: str, error: type[Exception], message: str) -> None:
    with site(always(308, "text/html", ""), location=location) as url:
        with pytest.raises(error, match=message) as caught:
            AirflowOrchestrator(url, auth="x", retry_policy=ONCE).runs()
        assert "secret" not in str(caught.value)


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for file in ("/no/such.pem", str(empty)):
        for kind in (AirflowOrchestrator, RemoteOrchestrator):
            made = kind("https://127.0.0.1:9", tls=Tls(ca_file=file))
            with pytest.raises(ConfigurationError, match=f"ca_file='{file}' is not a PEM file of certificate auth"):
                made.runs()


def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(
        ConfigurationError, match=r"ALL_PROXY names for http://airflow\.example cannot be used: .*SOCKS"
    ):
        AirflowOrchestrator("http://airflow.example").runs()


@pytest.mark.parametrize("token", ["sécret", "sec ret", "sec\tret"])
def test_a_token_that_is_none_is_not_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_AIRFLOW_URL", "http://h")
    monkeypatch.setenv("FLOWYML_AIRFLOW_TOKEN", token)
    for given in (None, token):
        with pytest.raises(ConfigurationError, match="which a token cannot contain") as caught:
            Connection.to("http://h", given)
        assert "ret" not in str(caught.value)


def test_an_address_without_airflow() -> None:
    nowhere = AirflowOrchestrator("http://127.0.0.1:9", retry_policy=ONCE)
    with pytest.raises(EngineUnreachableError, match="does not answer"):
        nowhere.runs()
    assert nowhere.health().reachable is False
    with site(lambda _: (404, "text/html", "<title>My blog</title>")) as url:
        assert "is not Airflow" in AirflowOrchestrator(url, retry_policy=ONCE).health().detail


def test_airflow_2_has_a_page_where_airflow_3_has_an_api() -> None:
    pages = {"/api/v1/version": (200, "application/json", VERSION2)}
    with site(lambda request: pages.get(request.path, (404, "text/html", "<title>Airflow 404</title>"))) as url:
        orchestrator = AirflowOrchestrator(url, auth=("ada", "x"), retry_policy=ONCE)
        assert orchestrator.client.version == "2.11.2"
        with pytest.raises(
            UnsupportedFeatureError, match=r"does not support /api/v1, the only API of Airflow 2\.11\.2"
        ):
            orchestrator.api_client()


@pytest.mark.parametrize("asked", ["details", "dagSources/token"])
@pytest.mark.parametrize(
    ("row", "answers", "error"),
    [
        (404, [500] * 8, NotThereError),  # another DAG
        (200, [500] * 8, NotThereError),  # seen, and not yet taken in; its file was deleted
        (500, [500] * 8, ServerTroubleError),  # the database is away
        (200, [500] * 4, None),  # it is back
    ],
)
def test_what_airflow_2_answers_with_500_is_missing_unless_its_database_is_away(
    asked: str, row: int, answers: list[int], error: type[EngineError] | None
) -> None:
    left, found = list(answers), {"dag_id": "d", "file_token": "token", "content": "dag = DAG('d')"}

    def answer(request: Recorded) -> tuple[int, str, str]:
        if request.path == "/api/v1/version":
            return 200, "application/json", VERSION2
        if request.path.startswith("/api/v2"):
            return 404, "application/json", "{}"
        if request.path.endswith(asked) and left:
            return left.pop(0), "text/html", "<title>Internal Server Error</title>"
        return 200 if request.path.endswith(asked) else row, "application/json", json.dumps(found)

    with site(answer) as url:
        policy = OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=0.01)
        client = AirflowOrchestrator(url, auth="x", retry_policy=policy).client
        ask = {"details": lambda: client.dag("d"), "dagSources/token": lambda: client.source(found)}[asked]
        if error is None:
            assert ask() == (found if asked == "details" else found["content"])
        else:
            with pytest.raises(error):
                ask()


def test_a_token_is_renewed_when_it_is_refused() -> None:
    given: list[str] = []

    def answer(request: Recorded) -> tuple[int, str, str]:
        if request.path == "/api/v2/version":
            return 200, "application/json", VERSION
        if request.path == "/auth/token":
            given.append(f"token{len(given)}")
            return 201, "application/json", json.dumps({"access_token": given[-1]})
        good = request.headers.get("authorization") == "Bearer token1"
        return (200, "application/json", '{"dag_runs": []}') if good else (401, "application/json", "{}")

    with site(answer) as url:
        orchestrator = AirflowOrchestrator(url, auth=("ada", "secret-word"))
        assert orchestrator.runs() == []
        assert orchestrator.runs() == []
    assert given == ["token0", "token1"]


def test_airflows_own_client_is_loaded_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to import, so that nothing else may do it. It trusts whom FlowyML trusts."""
    script = (
        "import sys; from flowyml.orchestrators import Tls; from flowyml_airflow import AirflowOrchestrator as A\n"
        "made = A(sys.argv[1], auth='abc')\n"
        "made.runs(); assert 'airflow_client' not in sys.modules\n"
        "own = made.api_client().configuration; print(own.host, own.access_token, own.verify_ssl)\n"
        "for tls in (Tls(verify=False), Tls(ca_file=sys.argv[2])):\n"
        "    own = A(sys.argv[1], auth='x', tls=tls).api_client().configuration\n"
        "    print(own.verify_ssl, own.ssl_ca_cert)\n"
    )
    with site(always(200, "application/json", '{"dag_runs": []}')) as url:
        command = [sys.executable, "-c", script, url, str(CERTIFICATES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == f"{url} abc True\nFalse None\nTrue {CERTIFICATES}\n", done.stderr
        monkeypatch.setitem(sys.modules, "airflow_client.client", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'flowyml\[airflow\]'"):
            AirflowOrchestrator(url, auth="x").api_client()


def test_where_credentials_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWYML_AIRFLOW_URL", raising=False)
    with pytest.raises(ConfigurationError, match="No Airflow URL is set"):
        Connection.to().checked_address()
    with pytest.raises(ConfigurationError, match="has no password"):
        Connection.to("http://h", Auth(username="ada"))
    with pytest.raises(ConfigurationError, match="not the address"):
        Connection.to("ftp://h")
    assert Connection.to("http://bob:p%40ss@h:1").auth.password.get() == "p@ss"
    monkeypatch.setenv("FLOWYML_AIRFLOW_URL", "http://airflow.example:8080/af/")
    monkeypatch.setenv("FLOWYML_AIRFLOW_TOKEN", "from-environment\n")
    monkeypatch.setenv("FLOWYML_AIRFLOW_PASSWORD", "my secret \n")
    assert Connection.to().url == "http://airflow.example:8080/af"
    assert Connection.to().auth.token.get() == "from-environment", "what is mounted ends with a line break"
    assert Connection.to(auth="secret\r\n").auth.token.get() == "secret"
    assert not Connection.to(auth=("ada", "x")).auth.token
    assert Connection.to(auth=Auth(username="ada")).auth.password.get() == "my secret "


def test_an_import_error_of_another_file_of_the_same_name_is_not_ours() -> None:
    """A fake of Airflow's list of import errors: what it tells of a file differs between 3 and 2."""
    errors = [
        {"filename": "other/beside.py", "timestamp": "1", "stack_trace": "theirs"},
        {"filename": "dags/team/beside.py", "timestamp": "2", "stack_trace": "theirs too"},
    ]

    def answer(request: Recorded) -> tuple[int, str, str]:
        if request.path == "/api/v2/version":
            return 200, "application/json", VERSION
        return 200, "application/json", json.dumps({"import_errors": errors, "total_entries": len(errors)})

    with site(answer) as url:
        client = AirflowOrchestrator(url, auth="x", dags_folder="s3://bucket/dags/").client
        assert client.import_error("beside.py") is None
        errors.append({"filename": "dags/beside.py", "timestamp": "3", "stack_trace": "ours, below the bundle's root"})
        assert (client.import_error("beside.py") or {})["timestamp"] == "3"
        errors.insert(0, {"filename": "beside.py", "timestamp": "4", "stack_trace": "ours, in the bundle's root"})
        assert (client.import_error("beside.py") or {})["timestamp"] == "4"
