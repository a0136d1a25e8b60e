"""Who asks, and in which namespace: a KFP of several users, tokens that expire, and what stands in front of KFP."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.credentials import Auth
from flowyml.core.errors import AuthenticationError, ConfigurationError, EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator, token_of
from tests.engines.kubeflow_calls import OVER_THE_API, run_id
from tests.engines.web import Reply, web

pytestmark = OVER_THE_API
OURS, THEIRS = "token-of-team-a", "token-of-team-b"


@pytest.fixture
def shared_kfp(kfp_api: Any, fake: Any) -> Any:
    """A KFP of two teams."""
    fake.users.update({OURS: {"team-a"}, THEIRS: {"team-b"}})
    return kfp_api


def test_all_that_is_made_and_read_is_in_the_namespace(shared_kfp: Any) -> None:
    """The fake asks for the namespace of each thing, as KFP does, and refuses where there is none."""
    ours = shared_kfp.orchestrator(auth=OURS, namespace="team-a")
    theirs = shared_kfp.orchestrator(auth=THEIRS, namespace="team-b")
    handle = ours.run_pipeline(pipelines.greeting(), run_id("ours")).wait_for_completion(2400, 0.5)
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
    handle = shared_kfp.orchestrator(auth=OURS, namespace="team-a").run_pipeline(pipelines.greeting(), run_id("ours"))
    curious = shared_kfp.orchestrator(auth=THEIRS, namespace="team-a")
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
        shared_kfp.orchestrator(auth=OURS).runs()
    (tmp_path / "namespace").write_text("team-a\n")
    monkeypatch.setattr("flowyml_kubeflow.connection._OWN_NAMESPACE", tmp_path / "namespace")
    assert shared_kfp.orchestrator(auth=OURS).runs() is not None


@pytest.mark.parametrize("kind", ["token_file", "token_command", "cookies_file"])
def test_a_token_that_has_expired_is_read_again(kfp_api: Any, fake: Any, kind: str, tmp_path: Path) -> None:
    """As the kubelet writes a new one to the same file, before the old one expires."""
    path = tmp_path / "token"
    prefix = "session=" if kind == "cookies_file" else ""
    fake.token = "first"
    path.write_text(f"{prefix}first\n")
    options: dict[str, Any] = {kind: f"cat {path}" if kind == "token_command" else path}
    auth = Auth(**options)
    ours = kfp_api.orchestrator(auth=auth)
    handle = ours.run_pipeline(pipelines.greeting(), run_id("first"))
    fake.token = "second"
    with pytest.raises(AuthenticationError, match="answered 401"):
        ours.get_run(handle.job_id)
    path.write_text(f"{prefix}second\n")
    assert handle.wait_for_completion(2400, 0.5).status is ExecutionStatus.COMPLETED
    if kind != "token_command":
        assert RemoteOrchestrator(kfp_api.url, auth=auth).name == "kubeflow"


def test_neither_token_nor_parameters_follow_a_redirect() -> None:
    """307 and 308 keep the body of a request."""
    healthz = json.dumps({"tag_name": "2.17.0", "multi_user": False}).encode()
    with web(lambda _: Reply(404)) as thief:
        for status in (301, 302, 303, 307, 308):
            moved = {"Location": f"{thief.url}/elsewhere?secret=inside-the-location"}
            answers = {True: Reply(200, healthz), False: Reply(status, b"", moved)}
            with web(lambda request, by=answers: by[request.path.endswith("healthz")]) as engine:  # type: ignore[misc]  # mypy takes no default of a lambda
                cluster = KubeflowOrchestrator(engine.url, auth=Auth(token="planted-token", cookies="planted=cookie"))
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
        KubeflowOrchestrator(engine.url.replace("http://", f"http://{user}"), auth=Auth(**options)).runs()
        assert {request.headers["authorization"] for request in engine.requests} == {sent}
        assert any("/runs" in request.path for request in engine.requests)


def test_a_password_without_a_user_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="password needs a user name"):
        KubeflowOrchestrator("http://127.0.0.1:9", auth=Auth(password="x"))


def test_a_login_page_is_refused(kfp_api: Any, fake: Any) -> None:
    """The generated client takes it, which comes with status 200 after a redirect, for an answer without content."""
    handle = kfp_api.orchestrator().run_pipeline(pipelines.greeting(), run_id("login"))
    fake.token, fake.login = "right", True
    outside = kfp_api.orchestrator(auth="wrong-secret")
    for asked in (
        outside.runs,
        lambda: outside.get_run(handle.job_id),
        lambda: outside.run_pipeline(pipelines.greeting(), "outside"),
        lambda: outside.client.log(handle.job_id, "pod"),
    ):
        with pytest.raises(
            AuthenticationError, match=r"A proxy, not KFP, answered at .* redirects to .*/login"
        ) as refused:
            asked()
        assert "wrong-secret" not in str(refused.value)
    health = outside.health()
    assert not health.reachable
    assert "to which it redirects" in str(health.detail)
    assert kfp_api.orchestrator(auth="right").get_run(handle.job_id).job_id == handle.job_id
    fake.token = None
    handle.cancel()


@pytest.mark.parametrize("kind", ["token", "cookies", "an object of kfp.client"])
@pytest.mark.parametrize("below", ["", "/pipeline"], ids=["the API", "the dashboard"])
def test_what_was_given_to_sign_in_is_sent_everywhere(kfp_api: Any, fake: Any, kind: str, below: str) -> None:
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class Credentials(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = "right"

    of_kind = {"token": Auth(token="right"), "cookies": Auth(cookies="session=right")}
    auth = of_kind.get(kind) or Auth(token=token_of(Credentials()))
    fake.token, fake.login, fake.below = "right", True, below
    inside = kfp_api.orchestrator(auth=auth)
    assert inside.health().reachable, inside.health().detail
    assert inside.client.connection.host == kfp_api.url + below
    inside.runs(limit=1)
    assert kfp_api.orchestrator(url=f"{kfp_api.url}{below}", auth=auth).health().reachable
    assert RemoteOrchestrator(kfp_api.url, auth=auth).name == "kubeflow"
