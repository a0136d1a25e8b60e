"""Who asks, and in which namespace: a KFP of several users, tokens that expire, and what stands in front of KFP."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import AuthenticationError, ConfigurationError, EngineError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_kubeflow.client import Client
from flowyml_kubeflow.connection import Connection
from tests.engines.web import Recorded, Reply, web

pytestmark = [
    pytest.mark.kubeflow,
    pytest.mark.filterwarnings("ignore:.*Argo's limit:UserWarning"),
]
OURS, THEIRS = "token-of-team-a", "token-of-team-b"


@pytest.fixture
def front(kfp_api: Any) -> Iterator[Any]:
    """The state of the fake, in which something can be put in front of it."""
    if kfp_api.state is None:
        pytest.skip("what is in front of a real server stays there")
    yield kfp_api.state
    kfp_api.state.token, kfp_api.state.login, kfp_api.state.is_ui = None, False, False
    kfp_api.state.users.clear()


@pytest.fixture
def shared_kfp(kfp_api: Any, front: Any) -> Any:
    """A KFP of two teams."""
    front.users.update({OURS: {"team-a"}, THEIRS: {"team-b"}})
    return kfp_api


def unique(name: str) -> str:
    return f"{name}-{time.time_ns()}"


def test_all_that_is_made_and_read_is_in_the_namespace(shared_kfp: Any) -> None:
    """The fake asks for the namespace of each thing, as KFP does, and refuses where there is none."""
    ours = shared_kfp.orchestrator(token=OURS, namespace="team-a")
    theirs = shared_kfp.orchestrator(token=THEIRS, namespace="team-b")
    handle = ours.run_pipeline(pipelines.greeting(), unique("ours")).wait_for_completion(600, 0.5)
    assert handle.outputs == {"greeting": "hello world"}
    assert [line.step for line in handle.logs()]
    assert ours.deploy_pipeline(pipelines.greeting()).name == "conformance greeting"
    made = ours.schedule_pipeline(pipelines.greeting(), Schedule.of("interval", 3600))
    ours.pause_schedule(made.schedule_id)
    assert made.schedule_id in [item.schedule_id for item in ours.schedules()]
    assert handle.run_id not in [run.run_id for run in theirs.runs()]
    assert theirs.schedules() == []
    again = theirs.run_pipeline(pipelines.greeting(), handle.run_id)
    assert again.job_id != handle.job_id, "each namespace has run ids of its own"
    again.cancel()
    ours.delete_schedule(made.schedule_id)
    namespaces = {item.namespace for item in shared_kfp.state.experiments.values()}
    assert {"team-a", "team-b"} <= namespaces


def test_what_belongs_to_others_is_refused_with_the_namespace(shared_kfp: Any) -> None:
    handle = shared_kfp.orchestrator(token=OURS, namespace="team-a").run_pipeline(pipelines.greeting(), unique("ours"))
    curious = shared_kfp.orchestrator(token=THEIRS, namespace="team-a")
    for asked in (curious.runs, lambda: curious.get_run(handle.job_id), curious.schedules):
        needed = r"needs the permission \"get \w+\.pipelines\.kubeflow\.org in namespace 'team-a'\""
        with pytest.raises(AuthenticationError, match=rf"answered 403: .*no right to namespace 'team-a'.* {needed}"):
            asked()
    handle.cancel()


def test_a_kfp_of_several_users_needs_a_namespace(
    shared_kfp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pod its own counts."""
    with pytest.raises(ConfigurationError, match=r"serves several users.* namespace='…'"):
        shared_kfp.orchestrator(token=OURS).runs()
    (tmp_path / "namespace").write_text("team-a\n")
    monkeypatch.setattr("flowyml_kubeflow.connection._OWN_NAMESPACE", tmp_path / "namespace")
    assert shared_kfp.orchestrator(token=OURS).runs() is not None


def test_logs_come_through_the_ui_of_a_kfp_of_several_users(shared_kfp: Any) -> None:
    shared_kfp.state.is_ui = True
    ours = shared_kfp.orchestrator(token=OURS, namespace="team-a")
    handle = ours.run_pipeline(pipelines.greeting(), unique("ui")).wait_for_completion(600, 0.5)
    assert handle.outputs == {"greeting": "hello world"}


@pytest.mark.parametrize("kind", ["token_file", "token_command", "cookies_file"])
def test_a_token_that_has_expired_is_read_again(kfp_api: Any, front: Any, kind: str, tmp_path: Path) -> None:
    """As the kubelet writes a new one to the same file, before the old one expires."""
    path = tmp_path / "token"
    prefix = "session=" if kind == "cookies_file" else ""
    front.token = "first"
    path.write_text(f"{prefix}first\n")
    given: dict[str, Any] = {kind: f"cat {path}" if kind == "token_command" else path}
    ours = kfp_api.orchestrator(**given)
    handle = ours.run_pipeline(pipelines.greeting(), unique("first"))
    front.token = "second"
    with pytest.raises(AuthenticationError, match="answered 401"):
        ours.get_run(handle.job_id)
    path.write_text(f"{prefix}second\n")
    assert handle.wait_for_completion(600, 0.5).status is ExecutionStatus.COMPLETED
    assert ours.run_pipeline(pipelines.greeting(), unique("second")).wait_for_completion(600, 0.5).status.is_successful
    if kind != "token_command":
        assert RemoteOrchestrator(kfp_api.url, **given).name == "kubeflow"


def test_neither_token_nor_parameters_follow_a_redirect() -> None:
    """307 and 308 keep the body of a request."""
    healthz = json.dumps({"tag_name": "2.17.0", "multi_user": False}).encode()
    with web(lambda _: Reply(404)) as thief:
        for status in (301, 302, 303, 307, 308):
            moved = {"Location": f"{thief.url}/elsewhere?secret=inside-the-location"}
            answers = {True: Reply(200, healthz), False: Reply(status, b"", moved)}
            with web(lambda request, by=answers: by[request.path.endswith("healthz")]) as engine:  # type: ignore[misc]  # mypy takes no default of a lambda
                cluster = KubeflowOrchestrator(engine.url, token="planted-token", cookies="planted=cookie")
                with pytest.raises(AuthenticationError, match=r"redirects to .* a login") as refused:
                    cluster.runs()
                assert "inside-the-location" not in str(refused.value)
                with pytest.raises(EngineError):
                    cluster.run_pipeline(pipelines.greeting(), "run")
                assert "planted-token" in engine.everything
                assert thief.requests == []


def test_what_kfp_keeps_for_another_host_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kfp.Client keeps one cookie and one header for all hosts, in its context.json."""
    import kfp

    context = tmp_path / "context.json"
    context.write_text(json.dumps({
        "namespace": "another", "client_authentication_cookie": "planted=cookie",
        "client_authentication_header_name": "X-Planted", "client_authentication_header_value": "planted-header",
    }))  # fmt: skip
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(context))
    with web(lambda _: Reply(body=b"{}")) as engine:
        cluster = KubeflowOrchestrator(engine.url)
        cluster.runs()
        assert engine.requests
        assert "planted" not in engine.everything.lower()
        assert json.loads(context.read_text())["namespace"] == "another"


PLANTED = "planted-7f3"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503, "silence"])
def test_credentials_in_a_url_are_shown_nowhere(status: int | str) -> None:
    import traceback

    def reply(request: Recorded) -> Reply:
        if request.path.endswith("healthz"):
            return Reply(body=b'{"tag_name": "2.17.0", "multi_user": false}')
        return Reply(int(status), json.dumps({"error": f"no {request.path}", "code": 2}).encode())

    with web(reply) as engine:
        address = engine.url.removeprefix("http://") if status != "silence" else "127.0.0.1:9"
        cluster = KubeflowOrchestrator(
            f"http://ada:{PLANTED}@{address}/?token={PLANTED}", token=PLANTED, cookies=f"session={PLANTED}"
        )
        texts = [repr(cluster), repr(cluster.client.connection.sign_in), repr(cluster.health())]
        for asked in (
            cluster.runs,
            cluster.schedules,
            lambda: cluster.get_run("6a7c5bf0-24a0-4a9d-8d36-8c2a5e3e1f10"),
            lambda: cluster.run_pipeline(pipelines.greeting(), "run"),
            lambda: cluster.deploy_pipeline(pipelines.greeting()),
        ):
            with pytest.raises((EngineError, RunNotFoundError)) as refused:
                asked()
            texts += traceback.format_exception(refused.value)
        connection = cluster.client.connection
        texts += [connection.where, connection.page("runs/details/1")]
        assert PLANTED not in "\n".join(texts)


@pytest.mark.parametrize("where", ["bundle_store", "env"])
def test_credentials_in_a_stores_url_come_into_no_file(where: str) -> None:
    url = f"s3://key:{PLANTED}@bucket/path"
    given: dict[str, Any] = {"bundle_store": url} if where == "bundle_store" else {"env": {"FLOWYML_ARTIFACTS": url}}
    pipeline = Pipeline("stored", kubeflow=given).add_step(step(name="one")(lambda: 1))
    with pytest.raises(ConfigurationError, match="credentials") as refused:
        KubeflowOrchestrator().compile_pipeline(pipeline)
    assert PLANTED not in str(refused.value)


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize(
    ("user", "options", "sent"),
    [
        (f"ada:{PLANTED}@", {}, basic(f"ada:{PLANTED}")),
        ("", {"username": "ada", "password": PLANTED}, basic(f"ada:{PLANTED}")),
        ("", {"username": "ada", "password_command": f"echo {PLANTED}"}, basic(f"ada:{PLANTED}")),
        ("ada@", {"password_command": f"echo {PLANTED}"}, basic(f"ada:{PLANTED}")),
        (f"ada:{PLANTED}@", {"username": "bob", "password": "other"}, basic("bob:other")),
        (f"ada:{PLANTED}@", {"username": "bob", "password": "other", "token": "t"}, "Bearer t"),
    ],
)
def test_a_user_and_a_password_sign_in_where_no_token_does(user: str, options: dict[str, str], sent: str) -> None:
    with web(lambda _: Reply(body=b"{}")) as engine:
        KubeflowOrchestrator(engine.url.replace("http://", f"http://{user}"), **options).runs()
        assert {request.headers["authorization"] for request in engine.requests} == {sent}
        assert any("/runs" in request.path for request in engine.requests)


def test_a_password_that_has_expired_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("first\n")

    def reply(request: Recorded) -> Reply:
        is_open = request.path.endswith("healthz") or request.headers.get("authorization") == basic("ada:second")
        return Reply(body=b"{}") if is_open else Reply(401, b'{"error": "who asks?", "code": 16}')

    with web(reply) as engine:
        cluster = KubeflowOrchestrator(engine.url, username="ada", password_file=path)
        with pytest.raises(AuthenticationError, match="answered 401"):
            cluster.runs()
        path.write_text("second\n")
        assert cluster.runs() == []


def test_a_password_without_a_user_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="password needs username"):
        KubeflowOrchestrator("http://127.0.0.1:9", password="x")


def test_the_client_needs_no_answer_to_be_made() -> None:
    assert Client(Connection("http://127.0.0.1:9", namespace="team-a")).api is not None
