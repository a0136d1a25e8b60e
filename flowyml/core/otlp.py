"""Send metrics by OTLP, with OpenTelemetry's own exporter."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import requests  # type: ignore[import-untyped]  # the exporter's own
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource

from flowyml.core.credentials import Auth
from flowyml.core.errors import ConfigurationError
from flowyml.core.urls import same_address, without_credentials

__all__ = ["Meters"]

# Those that a request needs, and that hold no credential.
_PLAIN = frozenset({"connection", "content-encoding", "content-length", "content-type", "host", "user-agent"})


class Meters:
    """The instruments of one process and the exporter that sends them."""

    def __init__(self, endpoint: str | None, job: str, timeout: float, buckets: Sequence[float]) -> None:
        """Create them. Without ``endpoint``, OpenTelemetry's environment variables name the target."""
        own = None if endpoint is None or _is_of_variables(endpoint) else Auth.in_url(endpoint).headers()
        session = requests.Session() if own is None else _Session(own)
        session.hooks["response"].append(_refuse_redirect)
        session.headers["Connection"] = "close"  # the next run may end much later, or never
        self._exporter = OTLPMetricExporter(
            endpoint and without_credentials(endpoint), timeout=timeout, session=session,
            headers=Auth.in_url(endpoint).headers() if endpoint else None,
        )  # fmt: skip
        self._reader = InMemoryMetricReader()
        instance = f"{platform.node()}:{os.getpid()}-{os.urandom(4).hex()}"
        resource = Resource.create({"service.name": job, "service.instance.id": instance})
        meter = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False).get_meter("flowyml")
        self.runs = meter.create_counter("flowyml_runs_total", description="Finished runs.")
        self.run_seconds, self.step_seconds = (
            meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=[float(bucket) for bucket in buckets]
            )
            for name, description in (
                ("flowyml_run_duration_seconds", "Duration of runs."),
                ("flowyml_step_duration_seconds", "Duration of steps."),
            )
        )

    def send(self) -> None:
        """Send all that was measured in this process.

        Raises ``OSError`` if it was not accepted.
        """
        data = self._reader.get_metrics_data()
        if data is not None and self._exporter.export(data) is not MetricExportResult.SUCCESS:
            raise OSError("OpenTelemetry's log, above, says why")  # older exporters raise one themselves


class _Session(requests.Session):  # type: ignore[misc]  # untyped
    """Sends credentials of its own, instead of those in OpenTelemetry's variables and ``~/.netrc``.

    The exporter merges the variables' headers and client certificate with what it is given, and requests prefers a
    password in ``~/.netrc``, whatever the address.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._own = headers

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request without foreign credentials."""
        for name in [*request.headers]:
            if name.lower() not in _PLAIN:
                del request.headers[name]
        request.headers.update(self._own)
        return super().send(request, **{**options, "cert": None})


def _is_of_variables(endpoint: str) -> bool:
    """Return whether OpenTelemetry's variables name this endpoint, so that their headers and certificate are for it."""
    of_all = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    named = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or (of_all and f"{of_all.rstrip('/')}/v1/metrics")
    try:
        return bool(named) and same_address(str(named), endpoint)
    except ConfigurationError:  # of a URL that the exporter refuses
        return False


def _refuse_redirect(answer: requests.Response, **_: object) -> None:
    """Raise ``OSError`` for a redirect: the exporter would take it for success, and send credentials elsewhere."""
    if answer.is_redirect:
        answer.close()
        raise OSError(f"it redirects ({answer.status_code}): set the endpoint to the address that it redirects to")
