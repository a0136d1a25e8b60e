"""Where a credential may go: to the address that it belongs to, and to no other; no redirect takes it along."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline
from flowyml.artifacts import open_store
from flowyml.artifacts.housekeeping import discard, stored
from flowyml.core.credentials import Auth, AuthLike
from flowyml.core.errors import ArtifactError, AuthenticationError, ConfigurationError, EngineError, FlowymlError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.observability import OtlpMetricsCollector, PrometheusMetricsCollector
from flowyml.core.process_identity import identity_of
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.credential_scope import without_credentials_of
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml.orchestrators.targets import resolve, target
from tests.engines.web import Recorded, Reply, Web, web

TOKEN, PASSWORD, COOKIE = "planted-token-7c1", "planted-password-7c2", "planted-cookie-7c3"
SECRETS = (TOKEN, PASSWORD, COOKIE, "Basic ", "Bearer ")
ONCE = OrchestratorRetryPolicy(max_attempts=1)


def nothing(_: Recorded) -> Reply:
    return Reply(404, b'{"detail": "no"}')


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"FLOWYML_AIRFLOW_{name}", raising=False)


@pytest.fixture
def thief() -> Iterator[Web]:
    """A second host, to which nothing secret may come."""
    with web(nothing) as server:
        yield server


def redirecting(thief: Web, *plain: str, status: int = 307) -> Callable[[Recorded], Reply]:
    """An engine that redirects all calls but some to the second host."""

    def reply(request: Recorded) -> Reply:
        for page in plain:
            if request.path.startswith(page):
                return Reply(body=json.dumps({"version": "3.3.2", "git_version": "x", "multi_user": False}).encode())
        return Reply(status, b"", {"Location": thief.url + request.path})

    return reply


def check(thief: Web, caught: BaseException | None = None, *texts: str) -> None:
    """Nothing secret came to the second host, or into an error."""
    for secret in SECRETS:
        assert secret not in thief.everything
    for secret in SECRETS[:3]:
        assert secret not in f"{caught} {' '.join(texts)}"


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_probe_takes_nothing_along(thief: Web, status: int) -> None:
    with web(redirecting(thief, status=status)) as engine:
        for auth in (Auth(token=TOKEN, cookies=COOKIE), ("ada", PASSWORD)):
            with pytest.raises(FlowymlError) as caught:
                _ = RemoteOrchestrator(engine.url, auth=auth).name
            check(thief, caught.value)
        assert TOKEN in engine.everything
        assert thief.requests, "the probe follows, and tells where it was led"


@pytest.mark.parametrize("status", [302, 307, 308])
@pytest.mark.parametrize("major", ["v2", "v1"])
@pytest.mark.parametrize("auth", [TOKEN, ("ada", PASSWORD)])
def test_airflow(thief: Web, status: int, major: str, auth: AuthLike) -> None:
    pytest.importorskip("httpcore")
    from flowyml_airflow import AirflowOrchestrator

    other = "/api/v1" if major == "v2" else "/api/v2"

    def reply(request: Recorded) -> Reply:
        return nothing(request) if request.path.startswith(other) else engine_reply(request)

    engine_reply = redirecting(thief, f"/api/{major}/version", status=status)
    with web(reply) as engine:
        orchestrator = AirflowOrchestrator(engine.url, auth=auth, retry_policy=ONCE)
        with pytest.raises(EngineError, match="redirects to") as caught:
            orchestrator.runs()
        check(thief, caught.value)
        assert thief.requests == []


def test_external_dag(thief: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowyml_airflow import external_dag

    pipeline = Pipeline("outside").add_step(external_dag("d", poll_interval=0.01, patience=0))
    for plain in (("/api/v2/version",), ()):
        with web(redirecting(thief, *plain)) as engine:
            monkeypatch.setenv("FLOWYML_AIRFLOW_URL", engine.url)
            monkeypatch.setenv("FLOWYML_AIRFLOW_TOKEN", TOKEN)
            assert "It redirects to" in (pipeline.run().error or "")
            monkeypatch.delenv("FLOWYML_AIRFLOW_TOKEN")
            monkeypatch.setenv("FLOWYML_AIRFLOW_USERNAME", "ada")
            monkeypatch.setenv("FLOWYML_AIRFLOW_PASSWORD", PASSWORD)
            result = pipeline.run()
            assert "It redirects to" in (result.error or "")
            check(thief, None, str(result.error))
            assert thief.requests == []


def test_external_dag_sends_its_own_login_to_its_own_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of those that the environment has for another Airflow."""
    from flowyml_airflow import external_dag

    monkeypatch.setenv("FLOWYML_SECRET_REPORTS_TOKEN", TOKEN)
    monkeypatch.setenv("FLOWYML_AIRFLOW_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FLOWYML_AIRFLOW_USERNAME", "ada")
    monkeypatch.setenv("FLOWYML_AIRFLOW_PASSWORD", PASSWORD)
    with web(lambda request: Reply(200) if request.path == "/api/v2/version" else Reply(401)) as engine:
        own = external_dag("d", url=engine.url, secrets={"FLOWYML_AIRFLOW_TOKEN": "reports/token"}, patience=0)
        assert not Pipeline("its own login").add_step(own).run().success
    assert {request.headers.get("authorization") for request in engine.requests[1:]} == {f"Bearer {TOKEN}"}
    assert PASSWORD not in engine.everything


@pytest.mark.parametrize("status", [302, 307, 308])
@pytest.mark.parametrize("auth", [TOKEN, ("ada", PASSWORD)])
def test_prefect(thief: Web, status: int, auth: AuthLike) -> None:
    pytest.importorskip("prefect")
    from flowyml_prefect import PrefectOrchestrator

    with web(redirecting(thief, status=status)) as engine:
        orchestrator = PrefectOrchestrator(engine.url, auth=auth)
        with pytest.raises(EngineError, match="redirect") as caught:
            orchestrator.runs()
        check(thief, caught.value)
        assert thief.requests == []
        orchestrator.close()


@pytest.mark.parametrize("collector", [PrometheusMetricsCollector, OtlpMetricsCollector])
def test_metrics(
    thief: Web, caplog: pytest.LogCaptureFixture, collector: type[PrometheusMetricsCollector | OtlpMetricsCollector]
) -> None:
    with web(redirecting(thief)) as gateway:
        endpoint = gateway.url.replace("//", f"//ada:{PASSWORD}@")
        collector(endpoint).run_finished("p", "r", ExecutionStatus.COMPLETED, 1)
        assert "Metrics were not sent" in caplog.text
        assert "Basic " in gateway.everything, "the gateway itself gets them"
        check(thief, None, caplog.text)
        assert thief.requests == []


@pytest.mark.parametrize("where", ["elsewhere", "here"])
def test_metrics_take_along_what_belongs_to_their_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    """Not what OpenTelemetry's variables hold for another address, and no password of ~/.netrc."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password planted-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=planted-key,authorization=Bearer%20planted")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/planted/missing.pem")
    with web(lambda _: Reply()) as collector:
        if where == "here":
            monkeypatch.delenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/")
        for login in ("", f"ada:{PASSWORD}@"):
            endpoint = f"{collector.url}/v1/metrics".replace("//", f"//{login}", 1)
            OtlpMetricsCollector(endpoint).run_finished("p", "r", ExecutionStatus.COMPLETED, 1)
        bare, named = collector.requests
    assert (where == "here") == ("planted-key" in f"{bare.headers}")
    if where == "elsewhere":
        assert "planted" not in collector.everything
        assert "authorization" not in bare.headers
        assert named.headers["authorization"].startswith("Basic ")


# One address.


def fails(orchestrator: Any) -> str:
    with pytest.raises(AuthenticationError) as caught:
        orchestrator.runs()
    return str(caught.value)


def locked(request: Recorded) -> Reply:
    """An Airflow 3 that refuses every login."""
    if request.path == "/api/v2/version":
        return Reply(body=b'{"version": "3.3.2", "git_version": "x"}')
    return Reply(401, b'{"detail": "who asks?"}')


@pytest.mark.parametrize("secret", ["TOKEN", "PASSWORD"])
@pytest.mark.parametrize("home", ["", "http://airflow.example:8080", "OTHER PATH"])
def test_the_environments_credentials_of_airflow_go_nowhere_else(
    thief: Web, monkeypatch: pytest.MonkeyPatch, secret: str, home: str
) -> None:
    thief.reply = locked
    monkeypatch.setenv("FLOWYML_AIRFLOW_URL", home.replace("OTHER PATH", f"{thief.url}/team"))
    monkeypatch.setenv("FLOWYML_AIRFLOW_USERNAME", "ada")
    monkeypatch.setenv(f"FLOWYML_AIRFLOW_{secret}", TOKEN)
    Path("flowyml.toml").write_text(f'[orchestrators.evil]\nengine = "airflow"\nurl = "{thief.url}"\n')
    for orchestrator in (
        resolve(thief.url),
        resolve("evil"),
        resolve("airflow", url=thief.url),
    ):
        message = fails(orchestrator)
        assert f"FLOWYML_AIRFLOW_{secret}" in message
        assert "were not sent here" in message
        assert TOKEN not in message
    check(thief)


@pytest.mark.parametrize("spelled", ["{url}", "{url}/", "HTTP://LOCALHOST:{port}"])
def test_they_go_to_their_own_address_however_it_is_written(
    thief: Web, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    thief.reply = locked
    port = thief.url.rpartition(":")[2]
    monkeypatch.setenv("FLOWYML_AIRFLOW_URL", thief.url.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("FLOWYML_AIRFLOW_TOKEN", TOKEN)
    fails(resolve(spelled.format(url=thief.url.replace("127.0.0.1", "localhost"), port=port)))
    assert f"Bearer {TOKEN}" in thief.everything


def options_of(name: str) -> tuple[dict[str, Any], str]:
    found = target(name)
    return dict(found.options), found.withheld


HOME, ELSEWHERE = "https://airflow.example", "https://elsewhere.example"


@pytest.mark.parametrize(
    ("file", "environment", "sent"),
    [
        # the URL of a target is replaced: its password stands beside the other one
        (f'[orchestrators.prod]\nengine="airflow"\nurl="{HOME}"\npassword="x"', {"PROD__URL": ELSEWHERE}, False),
        (f'[orchestrators.prod]\nengine="airflow"\nurl="{HOME}"\npassword="x"', {"PROD__URL": f"{HOME}:443/"}, True),
        (
            f'[orchestrators.prod]\nengine="airflow"\nurl="{HOME}"\npassword="x"',
            {"PROD__URL": ELSEWHERE, "PROD__PASSWORD": "y"},
            True,
        ),
        # a secret in the environment for the target of a file
        (f'[orchestrators.prod]\nengine="airflow"\nurl="{HOME}"', {"PROD__PASSWORD": "x"}, True),
        ('[orchestrators.prod]\nengine="airflow"\npassword="x"', {"PROD__URL": HOME}, True),
        # what is for all of an engine
        (
            f'[orchestrators.airflow]\nurl="{HOME}"\npassword="x"\n[orchestrators.prod]\nengine="airflow"\nurl="{ELSEWHERE}"',
            {},
            False,
        ),
        (f'[orchestrators.airflow]\nurl="{HOME}"\npassword="x"\n[orchestrators.prod]\nengine="airflow"', {}, True),
        (
            f'[orchestrators.airflow]\npassword="x"\n[orchestrators.prod]\nengine="airflow"\nurl="{HOME}"',
            {},
            True,
        ),
        (f'[orchestrators.prod]\nengine="airflow"\nurl="{ELSEWHERE}"', {"AIRFLOW__PASSWORD": "x"}, False),
        (
            f'[orchestrators.prod]\nengine="airflow"\nurl="{ELSEWHERE}"',
            {"AIRFLOW__PASSWORD": "x", "AIRFLOW__URL": HOME},
            False,
        ),
        ('[orchestrators.prod]\nengine="airflow"', {"AIRFLOW__PASSWORD": "x", "AIRFLOW__URL": HOME}, True),
    ],
)
def test_a_targets_credentials_go_to_the_url_beside_them(
    monkeypatch: pytest.MonkeyPatch, file: str, environment: Mapping[str, str], sent: bool
) -> None:
    Path("flowyml.toml").write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(f"FLOWYML_ORCHESTRATORS__{name}", value)
    options, withheld = options_of("prod")
    assert ("password" in options) is sent
    assert bool(withheld) is not sent
    if not sent:
        assert "password" in withheld
        assert f"Put those of {ELSEWHERE}" in withheld


def test_a_file_does_not_choose_the_url_for_what_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target may have the name of its engine: the variable is then the one for all targets of the engine."""
    Path("flowyml.toml").write_text(f'[orchestrators.airflow]\nurl="{ELSEWHERE}"')
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__AIRFLOW__PASSWORD", PASSWORD)
    options, withheld = options_of("airflow")
    assert "password" not in options
    assert "is set in the environment for this engine, but the URL is set in a file" in withheld
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__AIRFLOW__URL", HOME)
    options, withheld = options_of("airflow")
    assert (options["password"], options["url"], withheld) == (PASSWORD, HOME, "")


@pytest.mark.parametrize("option", ["token_file", "password_command", "cookies", "cookies_file", "api_key"])
def test_so_do_those_in_files_and_of_commands(option: str) -> None:
    Path("flowyml.toml").write_text(f'[orchestrators.prod]\nengine="kubeflow"\nurl="{HOME}"\n{option}="x"')
    found = target("prod")
    assert option in found.options
    elsewhere = without_credentials_of(found, ELSEWHERE)
    assert option not in elsewhere.options
    assert f"{option} belongs to {HOME}" in elsewhere.withheld


@pytest.mark.parametrize("spelled", ['auth="{token}"', 'auth={{token="{token}"}}'])
def test_a_file_gives_no_credential_in_one_piece(spelled: str) -> None:
    """It would escape the check of each: whose it is, and whether the folder may name a file or a command."""
    pytest.importorskip("httpcore")
    given = spelled.format(token=TOKEN)
    Path("flowyml.toml").write_text(f'[orchestrators.prod]\nengine="airflow"\nurl="{HOME}"\n{given}')
    with pytest.raises(ConfigurationError, match=r"has no option 'auth'\. It has: .*token, token_file") as caught:
        resolve("prod")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(("engine", "package"), [("airflow", "httpx"), ("kubeflow", "kfp"), ("prefect", "prefect")])
def test_a_refusal_says_what_was_withheld(
    engine: str, package: str, thief: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    thief.reply = locked
    Path("flowyml.toml").write_text(f'[orchestrators.prod]\nengine="{engine}"\nurl="{HOME}"\ntoken="{TOKEN}"')
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PROD__URL", thief.url)
    message = fails(resolve("prod"))
    assert f"token belongs to {HOME}" in message
    assert "flowyml.toml: [orchestrators.prod]" in message
    monkeypatch.delenv("FLOWYML_ORCHESTRATORS__PROD__URL")
    assert f"token belongs to {HOME}" in fails(resolve("prod", url=thief.url))
    check(thief, None, message)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists() or os.geteuid() != 0, reason="only root can be another user")
def test_a_port_that_another_user_took_gets_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process list shows the port that the embedded Prefect will have, some seconds before it has it."""
    pytest.importorskip("prefect")
    from flowyml_prefect import server

    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    server.prefect_home().mkdir(parents=True)
    (server.prefect_home() / "password").write_text(f"flowyml:{PASSWORD}")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"]) as prefect,
    ):
        os.fchown(taken.fileno(), 65534, 65534)
        taken.setblocking(False)
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        record = server.EmbeddedServer(url, identity_of(prefect.pid))
        with pytest.raises(EngineError, match="did not start"):
            server._await_health(record, prefect)
        with pytest.raises(BlockingIOError):
            taken.accept()
        os.fchown(taken.fileno(), 0, 0)
        assert server._listens_as_this_user(url)


def test_a_login_in_the_url_of_a_store_is_not_shown_where_its_library_quotes_it() -> None:
    pytest.importorskip("s3fs")
    with pytest.raises(ArtifactError, match=r"^s3://bucket/x could not be listed: ") as caught:
        list(open_store("s3://ada:hunter2@bucket/x").folders("cache", 1))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_nor_is_it_shown_where_artifacts_are_removed() -> None:
    pytest.importorskip("s3fs")
    store, key = open_store("s3://ada:hunter2@bucket/x"), "local-1/train/run-1/load/1/rows-0123456789abcdef.npy"
    with pytest.raises(ArtifactError, match=r"^Artifacts at s3://bucket/x cannot be listed: ") as listed:
        list(stored(store, "local-1"))
    with pytest.raises(ArtifactError, match=r"^Artifact s3://bucket/x/.* could not be removed: ") as removed:
        discard(store, key, unless_since=0)
    for caught in (listed, removed):
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
