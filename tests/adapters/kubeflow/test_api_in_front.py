"""What may stand in front of KFP's API: a login page, a proxy that wants a token, a dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowyml.core.errors import AuthenticationError
from flowyml.orchestrators.probe import Site
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml.testing import pipelines
from tests.engines.kubeflow_calls import OVER_THE_API, run_id

pytestmark = OVER_THE_API


def test_a_wrong_token_is_refused_and_not_shown(kfp_api: Any) -> None:
    if kfp_api.state is None:
        pytest.skip("the real server of this test has its own rules")
    kfp_api.state.token = "right"
    try:
        with pytest.raises(AuthenticationError) as refused:
            kfp_api.orchestrator(token="wrong-secret").runs()
        assert "wrong-secret" not in str(refused.value)
        kfp_api.orchestrator(token="right").runs()
    finally:
        kfp_api.state.token = None


@pytest.fixture
def front(kfp_api: Any) -> Iterator[Any]:
    """The state of the fake, in which something can be put in front of it."""
    if kfp_api.state is None:
        pytest.skip("what is in front of a real server stays there")
    yield kfp_api.state
    kfp_api.state.token, kfp_api.state.login, kfp_api.state.below = None, False, ""


def test_a_login_page_is_refused(kfp_api: Any, front: Any) -> None:
    """The generated client takes it, which comes with status 200 after a redirect, for an answer without content."""
    handle = kfp_api.orchestrator().run_pipeline(pipelines.greeting(), run_id("login"))
    front.token, front.login = "right", True
    outside = kfp_api.orchestrator(token="wrong-secret")
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
    assert kfp_api.orchestrator(token="right").get_run(handle.job_id).job_id == handle.job_id
    front.token = None
    handle.cancel()


@pytest.mark.parametrize(
    "given", [{"token": "right"}, {"cookies": "session=right"}, {"credentials": "right"}], ids=lambda given: min(given)
)
@pytest.mark.parametrize("below", ["", "/pipeline"], ids=["the API", "the dashboard"])
def test_what_was_given_to_sign_in_is_sent_everywhere(
    kfp_api: Any, front: Any, given: dict[str, Any], below: str
) -> None:
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class Credentials(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = "right"

    given = {"credentials": Credentials()} if "credentials" in given else given
    front.token, front.login, front.below = "right", True, below
    inside = kfp_api.orchestrator(**given)
    assert inside.health().reachable, inside.health().detail
    assert inside.client.connection.host == kfp_api.url + below
    inside.runs(limit=1)
    assert kfp_api.orchestrator(url=f"{kfp_api.url}{below}", **given).health().reachable
    if "credentials" not in given:
        assert RemoteOrchestrator(kfp_api.url, **given).name == "kubeflow"


def test_a_token_does_not_follow_a_redirect(front: Any, kfp_api: Any) -> None:
    """It may lead to another host."""
    front.token, front.login = "right", True
    site = Site(kfp_api.url, headers={"Authorization": "Bearer wrong"})
    assert site.get("/apis/v2beta1/healthz").redirected_to == f"{kfp_api.url}/login"
    assert front.login_headers.get("authorization") is None
