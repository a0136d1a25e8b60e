"""Metrics of runs and steps, for one collector that the user chooses."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from flowyml.core.errors import ConfigurationError, MissingExtraError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.loading import is_loading
from flowyml.core.urls import redact_url, redact_urls

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

    from flowyml.core.otlp import Meters
    from flowyml.core.pushgateway import Pushgateway

__all__ = [
    "ConsoleMetricsCollector",
    "MetricsCollector",
    "OtlpMetricsCollector",
    "PrometheusMetricsCollector",
    "get_metrics_collector",
    "set_metrics_collector",
]

logger = logging.getLogger("flowyml.metrics")


class MetricsCollector(ABC):
    """Receives FlowyML's metrics, in the process that runs or waits for the run. Durations are in seconds.

    Exceptions of a collector are logged and never change the outcome of a run.
    """

    def check(self) -> None:
        """Raise ``ConfigurationError`` if metrics cannot be delivered. ``set_metrics_collector`` calls it."""

    def run_started(self, pipeline: str, run_id: str, orchestrator: str) -> None:
        """A run was started or submitted from this process."""

    @abstractmethod
    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        """A step reached a terminal status."""

    @abstractmethod
    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        """A run reached a terminal status. Called once per run, after its steps."""


class ConsoleMetricsCollector(MetricsCollector):
    """Writes one line for each metric to standard error."""

    def run_started(self, pipeline: str, run_id: str, orchestrator: str) -> None:
        self._line(f"run_started pipeline={pipeline!r} run_id={run_id!r} orchestrator={orchestrator!r}")

    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        self._line(f"step_finished pipeline={pipeline!r} step={step!r} status={status} seconds={duration:.3f}")

    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        self._line(f"run_finished pipeline={pipeline!r} run_id={run_id!r} status={status} seconds={duration:.3f}")

    def _line(self, text: str) -> None:
        from flowyml.core.following import say

        say(f"[metrics] {text}")


_BUCKETS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
"""Upper bounds of the histograms' buckets, in seconds."""


class PrometheusMetricsCollector(MetricsCollector):
    """Pushes to a Pushgateway at the end of each run.

    Metrics: ``flowyml_runs_total{pipeline,status}``, ``flowyml_run_duration_seconds{pipeline}`` (histogram),
    ``flowyml_step_duration_seconds{pipeline,step,status}`` (histogram), with ``job`` from ``job_name``.

    ``endpoint`` is the URL of a Pushgateway. If a Prometheus server answers there, ``set_metrics_collector`` raises
    ``ConfigurationError``: a server takes metrics from ``OtlpMetricsCollector``. If nothing answers, runs continue and
    a warning is logged. A user and a password in the URL are sent to it with each request.

    Workers of an engine load the script that sets the collector too. They send nothing, and need no
    ``prometheus-client``, so that a run counts once: in the process that waits for it. For runs that no process waits
    for, such as scheduled ones, give the pipeline a hook whose ``on_pipeline_end(pipeline_name, run_id, status,
    duration_seconds)`` creates a collector and calls its ``run_finished`` with the same values. It runs once per run,
    on a worker, which then needs ``prometheus-client``.

    Pass a ``registry`` to add these metrics to your own exporter; with ``endpoint=None`` nothing is sent.
    ``timeout_seconds`` limits each request.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        job_name: str = "flowyml",
        *,
        registry: CollectorRegistry | None = None,
        timeout_seconds: float = 5,
    ) -> None:
        self.endpoint = endpoint if endpoint is None or "://" in endpoint else f"http://{endpoint}"
        self.job_name = job_name
        self.timeout_seconds = timeout_seconds
        if registry is not None:
            self.registry = registry
        self._made: tuple[Counter, Histogram, Histogram] | None = None
        self._making = threading.Lock()
        if registry is not None or not is_loading():
            self._metrics()  # an exporter shows them from now on, and a missing package fails at once

    @cached_property
    def registry(self) -> CollectorRegistry:
        """The registry of the metrics."""
        from prometheus_client import CollectorRegistry

        return CollectorRegistry()

    def _metrics(self) -> tuple[Counter, Histogram, Histogram]:
        """Return the metrics of runs, of their durations and of those of steps.

        They are created on demand, since a worker that loads the user's code measures nothing, and may lack the
        library.
        """
        from prometheus_client import Counter, Histogram

        with self._making:
            self._made = self._made or (
                Counter("flowyml_runs", "Finished runs.", ["pipeline", "status"], registry=self.registry),
                Histogram(
                    "flowyml_run_duration_seconds", "Duration of runs.", ["pipeline"],
                    registry=self.registry, buckets=_BUCKETS,
                ),
                Histogram(
                    "flowyml_step_duration_seconds", "Duration of steps.", ["pipeline", "step", "status"],
                    registry=self.registry, buckets=_BUCKETS,
                ),
            )  # fmt: skip
            return self._made

    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        _, _, step_seconds = self._metrics()
        step_seconds.labels(pipeline, step, status.name).observe(duration)

    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        runs, run_seconds, _ = self._metrics()
        runs.labels(pipeline, status.name).inc()
        run_seconds.labels(pipeline).observe(duration)
        if self.endpoint is not None:
            self._send(self.endpoint)

    @cached_property
    def _gateway(self) -> Pushgateway:
        from flowyml.core.pushgateway import Pushgateway

        return Pushgateway(self.endpoint or "", self.job_name, self.timeout_seconds)

    def check(self) -> None:
        """Ask what answers at ``endpoint``. Raises ``ConfigurationError`` if that takes no pushes."""
        from flowyml.core.pushgateway import HTTP_ERRORS

        if self.endpoint is None:
            return
        try:
            self._gateway.check()
        except HTTP_ERRORS as error:
            where, why = redact_url(self.endpoint), redact_urls(error)
            logger.warning("Metrics cannot be sent yet, since nothing answers at %s: %s", where, why)

    def _send(self, endpoint: str) -> None:
        from flowyml.core.pushgateway import HTTP_ERRORS

        try:
            self._gateway.push(self.registry)
        except (*HTTP_ERRORS, ConfigurationError) as error:
            logger.warning("Metrics were not sent to %s: %s", redact_url(endpoint), redact_urls(error))


class OtlpMetricsCollector(MetricsCollector):
    """Sends by OTLP over HTTP at the end of each run: to a Prometheus server, an OpenTelemetry Collector, a service.

    Needs the extra ``otlp``. Sends the metrics of ``PrometheusMetricsCollector``. ``service.name`` is
    ``job_name``, and each process has its own ``service.instance.id``; Prometheus makes ``job`` and ``instance`` of
    them.

    ``endpoint`` is the whole URL, such as ``http://prometheus:9090/api/v1/otlp/v1/metrics`` for a Prometheus server
    that was started with ``--web.enable-otlp-receiver``, or ``http://collector:4318/v1/metrics``. Without it,
    OpenTelemetry's ``OTEL_EXPORTER_OTLP_…`` variables count, which also hold headers and a client certificate; these
    are sent to no other ``endpoint``. A user and a password in the URL are sent with each request; redirects are not
    followed.

    What is not accepted within ``timeout_seconds`` is logged, and is part of what the next run sends. Workers of an
    engine send nothing and do not need the extra, as with ``PrometheusMetricsCollector``.
    """

    def __init__(
        self, endpoint: str | None = None, job_name: str = "flowyml", *, timeout_seconds: float = 5
    ) -> None:  # fmt: skip
        self.endpoint = endpoint
        self.job_name = job_name
        self.timeout_seconds = timeout_seconds
        self._making = threading.Lock()

    @cached_property
    def _made(self) -> Meters:
        try:
            from flowyml.core.otlp import Meters
        except ImportError as error:
            raise MissingExtraError(
                "OtlpMetricsCollector needs OpenTelemetry's exporter: pip install 'flowyml[otlp]'."
            ) from error
        return Meters(self.endpoint, self.job_name, self.timeout_seconds, _BUCKETS)

    def _meters(self) -> Meters:
        with self._making:  # steps end in threads
            return self._made

    def check(self) -> None:
        """Raise ``MissingExtraError`` if OpenTelemetry's exporter is not installed."""
        self._meters()

    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        labels = {"pipeline": pipeline, "step": step, "status": status.name}
        self._meters().step_seconds.record(duration, labels)

    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        meters = self._meters()
        meters.runs.add(1, {"pipeline": pipeline, "status": status.name})
        meters.run_seconds.record(duration, {"pipeline": pipeline})
        try:
            meters.send()
        except OSError as error:
            where = redact_url(self.endpoint) if self.endpoint else "where OpenTelemetry's variables say"
            logger.warning(
                "Metrics were not sent to %s: %s. The next run of this process sends them with its own.", where,
                redact_urls(error),
            )  # fmt: skip


_collector: MetricsCollector | None = None
_lock = threading.Lock()


def set_metrics_collector(collector: MetricsCollector | None) -> None:
    """Use ``collector`` for every run of this process from now on; None turns metrics off.

    Raises ``ConfigurationError`` at once if the collector knows that its metrics cannot arrive; not on workers, where a
    run continues without metrics.
    """
    global _collector
    if collector is not None and not isinstance(collector, MetricsCollector):
        raise TypeError(
            f"{collector!r} is not a MetricsCollector. Subclass flowyml.core.observability.MetricsCollector."
        )
    if collector is not None and not is_loading():
        collector.check()
    with _lock:
        _collector = collector


def get_metrics_collector() -> MetricsCollector | None:
    """Return the collector in use, or None."""
    return _collector


def measure(event: str, *args: object) -> None:
    """Call the collector, if there is one; its exceptions are logged."""
    collector = _collector
    if collector is None:
        return
    try:
        getattr(collector, event)(*args)
    except Exception as error:
        import traceback

        text = redact_urls("".join(traceback.format_exception(error)))
        logger.error("%s.%s failed; the run goes on.\n%s", type(collector).__name__, event, text)
