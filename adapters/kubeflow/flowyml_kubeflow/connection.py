"""The address of a KFP, the credentials for it, and KFP's description of itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from flowyml.core.credentials import Auth, AuthLike
from flowyml.core.errors import ConfigurationError, EngineUnreachableError
from flowyml.core.tls import Tls
from flowyml.core.urls import checked_url, redact_url, without_credentials

if TYPE_CHECKING:
    from flowyml.orchestrators.probe import Site

__all__ = ["HEALTHZ", "About", "Connection", "token_of"]

HEALTHZ = "/apis/v2beta1/healthz"  # answers without a login
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of a pod; source: Kubernetes


@dataclass(frozen=True, slots=True)
class About:
    """KFP's description of itself: its release, whether it serves several users, and whether its API server answers."""

    version: str | None = None
    has_users: bool = False
    is_ready: bool = True

    @classmethod
    def of(cls, answer: Any) -> Self | None:
        """Read the page ``HEALTHZ``; None for a page that is not KFP's.

        ml-pipeline-ui does not pass the API server's page on. It has a page of its own, which also answers while the
        API server does not. Sources: KFP, apiserver/main.go and frontend/server/handlers/healthz.ts.

        >>> About.of({"commit_sha": "…", "tag_name": "2.17.0", "multi_user": False, "pipeline_store": "database"})
        About(version='2.17.0', has_users=False, is_ready=True)
        >>> About.of({"apiServerTagName": "2.14.3", "apiServerMultiUser": True, "apiServerReady": True})
        About(version='2.14.3', has_users=True, is_ready=True)
        >>> About.of({"status": "ok"})
        """
        if not isinstance(answer, Mapping) or not answer.keys() & {"multi_user", "apiServerReady"}:
            return None
        version = answer.get("tag_name") or answer.get("apiServerTagName")
        users = answer.get("multi_user") or answer.get("apiServerMultiUser")
        return cls(str(version) if version else None, bool(users), answer.get("apiServerReady", True) is True)


class Connection:
    """The address of a KFP, and the credentials for it. How many users KFP serves is asked once, its release each time.

    ``timeout`` is in seconds, for one call. ``auth`` is completed from the URL.
    """

    def __init__(
        self,
        url: str,
        auth: AuthLike | None = None,
        tls: Tls | None = None,
        *,
        namespace: str | None = None,
        timeout: float = 30,
    ) -> None:
        self.url = without_credentials(checked_url(url)).rstrip("/")
        self.given_namespace = namespace
        self.auth = Auth.merged(auth, Auth.in_url(url))
        self.tls = tls or Tls()
        self.timeout = timeout

    @property
    def where(self) -> str:
        """The URL without credentials."""
        return redact_url(self.url)

    @property
    def longest(self) -> float:
        """The seconds that a call may take, however slowly an answer comes, and however often it is repeated."""
        return 4 * self.timeout

    def page(self, path: str) -> str:
        """Return a page of KFP's UI, as it may be shown."""
        try:
            host = self.host
        except EngineUnreachableError:
            host = self.url
        return redact_url(f"{host}/#/{path}")

    @cached_property
    def host(self) -> str:
        """The base URL of the API: the URL itself, or ``/pipeline`` below it, behind Kubeflow's dashboard.

        Raises ``EngineUnreachableError``.
        """
        if self.url.endswith("/pipeline"):
            return self.url
        site = self.site(self.url)
        is_below_dashboard = site.get(HEALTHZ).status == 404 and site.get(f"/pipeline{HEALTHZ}").json()
        return f"{self.url}/pipeline" if is_below_dashboard else self.url

    def about(self) -> About:
        """Return KFP's description of itself, without a login. Raises ``EngineUnreachableError``."""
        return About.of(self.site(self.host).get(HEALTHZ).json()) or About()

    def release(self) -> tuple[int, ...]:
        """Ask KFP for its release and return it, as ``(2, 17)``; empty if KFP does not report it.

        It may be upgraded while this object lives. Raises ``EngineUnreachableError``.
        """
        match = re.match(r"v?([0-9]+)\.([0-9]+)", self.about().version or "")
        return tuple(int(number) for number in match.groups()) if match else ()

    @cached_property
    def has_users(self) -> bool:
        """True if KFP serves several users. Raises ``EngineUnreachableError``."""
        return self.about().has_users

    @cached_property
    def namespace(self) -> str | None:
        """The user's; None on a KFP of one user, which has none.

        A pod's own namespace is the default. Raises ``ConfigurationError`` if KFP serves several users and there is
        none: it would refuse each call. Source: apiserver/server/experiment_server.go, and its siblings.
        """
        if self.given_namespace or not self.has_users:
            return self.given_namespace
        try:
            return _OWN_NAMESPACE.read_text("utf-8").strip()
        except OSError:
            raise ConfigurationError(
                f"KFP at {self.where} serves several users, each in a namespace. Give yours: namespace='…', or "
                f'namespace = "…" in flowyml.toml.'
            ) from None

    @property
    def scope(self) -> dict[str, str]:
        """The namespace, for calls that take one."""
        return {"namespace": namespace} if (namespace := self.namespace) else {}

    def site(self, url: str) -> Site:
        """Return a URL of this KFP, for requests with these credentials."""
        from flowyml.orchestrators.probe import Site

        return Site(url, timeout=min(self.timeout, 5), headers=self.auth.headers(), tls=self.tls)


def token_of(credentials: Any) -> Callable[[], str]:
    """Return a function that returns the token of an object of ``kfp.client``, for ``Auth(token=…)``.

    ``kfp.client.ServiceAccountTokenVolumeCredentials`` is one. It writes its token into a configuration.
    """

    def token() -> str:
        configuration = SimpleNamespace(api_key=dict[str, str]())
        credentials.refresh_api_key_hook(configuration)
        return configuration.api_key.get("authorization") or ""

    return token
