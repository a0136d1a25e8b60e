"""One HTTP call to Airflow: credentials, transient failures, and answers that come from something else.

It stands on httpx for both majors: ``apache-airflow-client`` takes seconds to import, speaks no ``/api/v1``, and its
models refuse what a newer Airflow adds. ``AirflowOrchestrator.api_client`` gives it to those who want more of Airflow.
"""

from __future__ import annotations

import re
import ssl
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from flowyml.core.errors import AuthenticationError, ConfigurationError, EngineError, EngineUnreachableError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.urls import without_credentials
from flowyml_airflow.auth import Basic, Credentials, refusal
from flowyml_airflow.connection import Connection

if TYPE_CHECKING:
    import httpx

__all__ = ["ConflictError", "NotThereError", "RefusedError", "ServerTroubleError", "Transport", "refusal"]

PATIENCE = OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=0.2, max_delay_seconds=2)
_GATEWAY = frozenset({502, 503, 504})


class NotThereError(EngineError, LookupError):
    """Airflow answered 404."""


class ConflictError(EngineError):
    """Airflow answered 409: there is one already."""


class RefusedError(EngineError, ValueError):
    """Airflow answered 400 or 422: it does not take this."""


class ServerTroubleError(EngineError):
    """Airflow answered 500, which on a busy database often passes."""


class Transport:
    """Calls under one base URL. Safe for many threads."""

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: float,
        verify: bool | str = True,
        policy: OrchestratorRetryPolicy | None = None,
    ) -> None:
        self.connection = connection
        self.credentials = Credentials()
        self.policy = policy or PATIENCE
        self._timeout = timeout
        self.verify = verify
        self._http: httpx.Client | None = None

    @property
    def http(self) -> httpx.Client:
        """The pool of connections; httpx is imported when it is first used."""
        if self._http is None:
            self._http = self._opened(self.connection.checked_address())
            weakref.finalize(self, self._http.close)
        return self._http

    def _opened(self, address: str) -> httpx.Client:
        import httpx

        limits = httpx.Timeout(self._timeout, connect=min(self._timeout, 10))
        accept = {"Accept": "application/json"}
        try:
            return httpx.Client(base_url=address, timeout=limits, verify=_trust(self.verify), headers=accept)
        except (ImportError, ValueError) as error:  # a SOCKS proxy needs a package, and what is no URL is no proxy
            raise ConfigurationError(
                f"the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names for {address} cannot be used: {error}"
            ) from error

    def get(self, path: str, **params: Any) -> Any:
        """The JSON at a path. Parameters that are None are left out."""
        return self.call("GET", path, params={name: value for name, value in params.items() if value is not None})

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] = {},
        json: Any = None,
        again: bool = True,
        anonymous: bool = False,
    ) -> Any:
        """One call, tried again after transient failures unless ``again`` is false. Raises kinds of ``EngineError``."""
        delays = iter(self.policy.delays if again else ())
        while True:
            try:
                return self._authorized(method, path, params, json, anonymous)
            except (EngineUnreachableError, ServerTroubleError) as error:
                delay = next(delays, None)
                if delay is None or isinstance(error.__cause__, ssl.SSLError):
                    raise
                time.sleep(delay)

    def _authorized(self, method: str, path: str, params: Mapping[str, Any], json: Any, anonymous: bool) -> Any:
        headers = {} if anonymous else self.credentials.headers()
        answer = self._send(method, path, params, json, headers)
        if answer.status_code in (401, 403) and not anonymous and self.credentials.renew(headers):
            answer = self._send(method, path, params, json, self.credentials.headers())
        return self._checked(answer, f"{method} {path}")

    def _send(
        self, method: str, path: str, params: Mapping[str, Any], json: Any, headers: Mapping[str, str]
    ) -> httpx.Response:
        import httpx

        try:
            return self.http.request(method, path, params=params, json=json, headers=headers)
        except httpx.TransportError as error:
            raise self._unreachable(error) from (_tls_cause(error) or error)

    def _unreachable(self, error: Exception) -> EngineUnreachableError:
        where = self.connection.url
        if tls := _tls_cause(error):
            return EngineUnreachableError(
                f"TLS with Airflow at {where} fails: {getattr(tls, 'verify_message', '') or tls.reason or tls}. Give "
                f"verify='/path/to/ca.pem' for a private authority, or check that the server speaks https."
            )
        reason = str(error) or type(error).__name__
        return EngineUnreachableError(f"Airflow at {where} does not answer: {reason}. Is its API server running?")

    def _checked(self, answer: httpx.Response, what: str) -> Any:
        status = answer.status_code
        if status == 204 or (status < 300 and not answer.content):
            return None
        content = _json_of(answer)
        if content is None:
            raise self._stranger(answer)
        if status < 300:
            return content
        raise self._error(status, f"Airflow at {self.connection.url} answered {status} to {what}: {_detail(content)}")

    def _error(self, status: int, message: str) -> EngineError:
        if status in (401, 403):
            return refusal(self.connection, status, known=not isinstance(self.credentials, Basic))
        if status in _GATEWAY:
            return EngineUnreachableError(message)
        kind = {404: NotThereError, 409: ConflictError, 400: RefusedError, 422: RefusedError}.get(status)
        return kind(message) if kind else ServerTroubleError(message) if status >= 500 else EngineError(message)

    def _moved(self, what: str, target: str) -> EngineError:
        """A redirect within the same host is a matter of the address; one that leads elsewhere is a login's."""
        shown = without_credentials(target)
        if urlsplit(target).hostname == urlsplit(self.connection.url).hostname and "login" not in shown:
            root = re.split(r"/(?:api/v\d|auth)/", shown)[0]
            return EngineError(f"{what}: it redirects to {shown}. Give url={root!r}.")
        return AuthenticationError(
            f"{what}: it redirects to {shown}. A proxy in front of Airflow wants a login of its own, or it has moved."
        )

    def _stranger(self, answer: httpx.Response) -> EngineError:
        """What is no JSON comes from something in front of Airflow, or Airflow is not there at all."""
        status = answer.status_code
        media_type = answer.headers.get("content-type", "").partition(";")[0] or "nothing"
        title = re.search(r"<title[^>]*>\s*(.*?)\s*</title", answer.text[:20000], re.IGNORECASE | re.DOTALL)
        shown = f" titled {title[1][:80]!r}" if title else ""
        what = (
            f"{self.connection.url} answered with a page{shown} ({status}, {media_type}) and not as Airflow's API does"
        )
        if status in _GATEWAY:
            return EngineUnreachableError(f"{what}. The proxy in front of Airflow cannot reach it.")
        if target := answer.headers.get("location"):
            return self._moved(what, urljoin(str(answer.url), target))
        if status in (401, 403, 407) or 300 <= status < 400:
            return AuthenticationError(f"{what}. A proxy in front of Airflow wants a login of its own.")
        if status >= 500:
            return ServerTroubleError(f"{what}. Its own log says why.")
        if status == 404:
            return NotThereError(f"{what}. Is the address right?")
        return EngineError(f"{what}. A proxy or a login page stands in front of it, or the address is another site's.")


def _trust(verify: bool | str) -> ssl.SSLContext | bool:
    """What httpx takes for ``verify``. Raises ``ConfigurationError`` for a file of authorities that cannot be read."""
    if not isinstance(verify, str):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:  # SSLError too
        raise ConfigurationError(
            f"verify={verify!r} is no file of authorities in PEM format: {error.strerror or error}."
        ) from error


def _json_of(answer: httpx.Response) -> Any:
    if "json" not in answer.headers.get("content-type", ""):
        return None
    try:
        return answer.json()
    except ValueError:
        return None


def _detail(content: Any) -> str:
    detail = content.get("detail", content) if isinstance(content, dict) else content
    if isinstance(detail, dict):
        detail = detail.get("message") or detail.get("reason") or detail
    if isinstance(detail, list):
        detail = "; ".join(str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail)
    return f"{detail:.500}" if isinstance(detail, str) else f"{detail!r:.500}"


def _tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None
