"""Every adapter reaches its engine by the same options: over TLS, and with who asks."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.errors import EngineUnreachableError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.settings import TRUSTED
from flowyml.core.tls import Tls
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml.orchestrators.targets import resolve
from tests.engines.web import Authority, Recorded, Reply, authority, web

ONCE = OrchestratorRetryPolicy(max_attempts=1)
ANSWERS: dict[str, dict[str, Any]] = {
    "airflow": {
        "/api/v2/version": {"version": "3.3.2", "git_version": "x"},
        "/api/v2/monitor/health": {"scheduler": {"status": "healthy"}},
        "/api/v2/dags/~/dagRuns/list": {"dag_runs": [], "total_entries": 0},
    },
    "kubeflow": {
        "/apis/v2beta1/healthz": {"commit_sha": "x", "tag_name": "2.17.0", "multi_user": False},
        "/apis/v2beta1/runs": {"runs": []},
    },
    "prefect": {"/api/admin/version": "3.9.1", "/api/health": True, "/api/flow_runs/filter": []},
}


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FLOWYML_AIRFLOW_")]:
        monkeypatch.delenv(name)


def orchestrator(engine: str, url: str, **options: Any) -> Any:
    pytest.importorskip({"airflow": "httpx", "kubeflow": "kfp"}.get(engine, engine))
    if engine == "prefect":
        options["work_pool"] = "pool"
    return resolve(engine, url=url, auth="x", retry_policy=ONCE, **options)


def answers_of(engine: str) -> Callable[[Recorded], Reply]:
    def reply(request: Recorded) -> Reply:
        answer = ANSWERS[engine].get(request.path.partition("?")[0])
        return Reply(404) if answer is None else Reply(body=json.dumps(answer).encode())

    return reply


@pytest.mark.parametrize("engine", ANSWERS)
def test_an_engine_behind_tls(engine: str, private: Authority) -> None:
    reply = answers_of(engine)
    trusting = Tls(ca_file=private.ca)
    known = Tls(ca_file=private.ca, client_cert=(private.client_cert, private.client_key))
    with web(reply, private.server()) as server:
        for tls in (trusting, known, Tls(verify=False)):
            reached = orchestrator(engine, server.url, tls=tls)
            assert reached.runs() == [], tls
            assert reached.health().reachable, tls
        with pytest.raises(EngineUnreachableError, match=r"^TLS with .* fails: .*certificate.* Give tls=Tls\(ca_file="):
            orchestrator(engine, server.url).runs()
    with web(reply, private.server(wants_certificate=True)) as server:
        assert orchestrator(engine, server.url, tls=known).runs() == []
        with pytest.raises(EngineUnreachableError):  # it just ends the connection, at times
            orchestrator(engine, server.url, tls=trusting).runs()
        assert "Bearer x" in {request.headers.get("authorization") for request in server.requests}


@pytest.mark.parametrize("files", ["two", "one"])
def test_airflow_by_the_environment(
    files: str, private: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx")
    (tmp_path / "token").write_text("from-a-file\n")
    both = tmp_path / "both.pem"
    both.write_bytes(private.client_cert.read_bytes() + private.client_key.read_bytes())
    certificate = {"CLIENT_CERT": private.client_cert, "CLIENT_KEY": private.client_key}
    given = {"one": {"CLIENT_CERT": both}, "two": certificate}[files]
    for name, value in {"CA_FILE": private.ca, "TOKEN_FILE": tmp_path / "token", **given}.items():
        monkeypatch.setenv(f"FLOWYML_AIRFLOW_{name}", str(value))
    with web(answers_of("airflow"), private.server(wants_certificate=True)) as server:
        with pytest.raises(EngineUnreachableError, match="certificate"):  # they are another address's
            resolve("airflow", url=server.url, retry_policy=ONCE).runs()
        monkeypatch.setenv("FLOWYML_AIRFLOW_URL", server.url)
        assert resolve("airflow").runs() == []
        assert server.requests[-1].headers["authorization"] == "Bearer from-a-file"


@pytest.mark.parametrize("engine", ANSWERS)
def test_the_settings_of_a_target_have_the_same_names(
    engine: str, private: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are relative to that of the settings. Each call has the cookies, which a proxy may ask for."""
    files = {"token": b"from-a-file\n", "cookies": b"session=of-a-proxy\n", "ca.pem": Path(private.ca).read_bytes()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv(TRUSTED, str(tmp_path))
    pair = [str(private.client_cert), str(private.client_key)]
    pool = 'work_pool = "pool"\n' if engine == "prefect" else ""
    with web(answers_of(engine), private.server(wants_certificate=True)) as server:
        (tmp_path / "flowyml.toml").write_text(
            f'[orchestrators.prod]\nengine = "{engine}"\nurl = "{server.url}"\ntoken_file = "token"\n'
            f'cookies_file = "cookies"\nca_file = "ca.pem"\nclient_cert = {json.dumps(pair)}\ntimeout = 9\n{pool}'
        )
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
        reached = resolve("prod")
        assert reached.runs() == []
        options = {"work_pool": "pool"} if engine == "prefect" else {}
        tls = Tls(verify=False, client_cert=(pair[0], pair[1]))
        assert RemoteOrchestrator(server.url, auth=reached.auth, tls=tls, **options).name == engine
    assert {request.headers["cookie"] for request in server.requests} == {"session=of-a-proxy"}
    assert "Bearer from-a-file" in {request.headers.get("authorization") for request in server.requests}


def test_the_constructors_take_the_same() -> None:
    kinds = [type(orchestrator(engine, "http://127.0.0.1:9")) for engine in ANSWERS]
    taken = [{str(inspect.signature(kind).parameters[name]) for kind in kinds} for name in ("auth", "tls", "timeout")]
    assert taken == [{"auth: 'AuthLike | None' = None"}, {"tls: 'Tls | None' = None"}, {"timeout: 'float' = 30"}]
