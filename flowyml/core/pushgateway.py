"""Push metrics to a Pushgateway, with prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException

from prometheus_client import CollectorRegistry, pushadd_to_gateway

from flowyml.core.credentials import Auth
from flowyml.core.errors import ConfigurationError
from flowyml.core.urls import redact_url, without_credentials
from flowyml.core.web import Answer, exchange

__all__ = ["HTTP_ERRORS", "Pushgateway"]

HTTP_ERRORS = (OSError, HTTPException)
"""The errors of requests if nothing answers, or the answer is wrong."""

_LONGEST_ANSWER = 65536


class Pushgateway:
    """A Pushgateway at a URL. A user and a password in the URL are sent with each request.

    Asking and pushing raise ``OSError`` and ``HTTPException`` if nothing answers, or the answer is wrong. Redirects
    are not followed: metrics and credentials go only to the given address.
    """

    def __init__(self, url: str, job: str, timeout: float) -> None:
        self._root = without_credentials(url).rstrip("/")
        self._auth = Auth.in_url(url)
        self._job = job
        self._timeout = timeout
        self._is_checked = False

    def check(self) -> None:
        """Check which server answers at the URL.

        Raises ``ConfigurationError`` for a Prometheus server, which takes no pushes.
        """
        about = self._exchange("GET", f"{self._root}/api/v1/status/buildinfo", {}, None).json()
        if isinstance(about, dict) and about.get("status") == "success":
            server = redact_url(self._root)
            raise ConfigurationError(
                f"A Prometheus server is at {server}, and PrometheusMetricsCollector pushes to a Pushgateway. Give "
                f"endpoint= the URL of a Pushgateway, or start the server with --web.enable-otlp-receiver and use "
                f"OtlpMetricsCollector('{server}/api/v1/otlp/v1/metrics')."
            )
        self._is_checked = True

    def push(self, registry: CollectorRegistry) -> None:
        """Push the metrics in the registry, and return when they were accepted."""
        if not self._is_checked:
            self.check()
        try:
            pushadd_to_gateway(self._root, self._job, registry, timeout=self._timeout, handler=self._sender)
        except HTTP_ERRORS:
            self._is_checked = False  # something else may answer next time
            raise

    def _sender(
        self, url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        """Return the function with which prometheus-client sends a request."""
        return lambda: _check(self._exchange(method, url, dict(headers), data))

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        return exchange(
            url, method=method, headers={**headers, **self._auth.headers()}, body=body, timeout=self._timeout,
            limit=_LONGEST_ANSWER, cut=True,
        )  # fmt: skip


def _check(answer: Answer) -> None:
    if 300 <= answer.status < 400:
        raise OSError(f"it redirects ({answer.status}). Set endpoint= to the address that it redirects to.")
    if answer.status >= 400:
        raise OSError(f"it answered {answer.status}: {answer.body[:300].decode(errors='replace').strip()}")
