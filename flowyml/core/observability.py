"""Metrics of runs and steps, handed to one collector that the user chooses."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flowyml.core.credentials import Login
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.urls import shown, shown_in, without_credentials

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = [
    "ConsoleMetricsCollector",
    "MetricsCollector",
    "PrometheusMetricsCollector",
    "get_metrics_collector",
    "set_metrics_collector",
]

logger = logging.getLogger("flowyml.metrics")


class MetricsCollector(ABC):
    """Receives what FlowyML measures, in the process that runs or waits for the run. Durations are seconds.

    What a collector raises is logged and never changes the outcome of a run.
    """

    def run_started(self, pipeline: str, run_id: str, orchestrator: str) -> None:
        """A run was started or submitted from this process."""

    @abstractmethod
    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        """A step reached a terminal status."""

    @abstractmethod
    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        """A run reached a terminal status. Called once a run, after its steps."""


class ConsoleMetricsCollector(MetricsCollector):
    """Writes one line a metric to standard error."""

    def run_started(self, pipeline: str, run_id: str, orchestrator: str) -> None:
        self._line(f"run_started pipeline={pipeline!r} run_id={run_id!r} orchestrator={orchestrator!r}")

    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        self._line(f"step_finished pipeline={pipeline!r} step={step!r} status={status} seconds={duration:.3f}")

    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        self._line(f"run_finished pipeline={pipeline!r} run_id={run_id!r} status={status} seconds={duration:.3f}")

    def _line(self, text: str) -> None:
        import sys

        print(f"[metrics] {text}", file=sys.stderr)


class PrometheusMetricsCollector(MetricsCollector):
    """Pushes to a Prometheus Pushgateway at the end of each run.

    Metrics: ``flowyml_runs_total{pipeline,status}``, ``flowyml_run_duration_seconds{pipeline}`` (histogram),
    ``flowyml_step_duration_seconds{pipeline,step,status}`` (histogram). ``endpoint`` is the gateway's URL: a
    Prometheus server scrapes and takes no pushes (source: Prometheus, *When to use the Pushgateway*). A user and a
    password in it are sent to it with each push. Give a
    ``registry`` to add these metrics to an exporter of your own; with ``endpoint=None`` nothing is pushed.
    """

    _BUCKETS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)

    def __init__(
        self,
        endpoint: str | None = None,
        job_name: str = "flowyml",
        *,
        registry: CollectorRegistry | None = None,
        timeout_seconds: float = 5,
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.endpoint = endpoint
        self._login = Login.in_url(endpoint or "")
        self.job_name = job_name
        self.timeout_seconds = timeout_seconds
        self.registry = registry or CollectorRegistry()
        self._runs = Counter("flowyml_runs", "Finished runs.", ["pipeline", "status"], registry=self.registry)
        self._run_seconds = Histogram(
            "flowyml_run_duration_seconds", "Duration of runs.", ["pipeline"],
            registry=self.registry, buckets=self._BUCKETS,
        )  # fmt: skip
        self._step_seconds = Histogram(
            "flowyml_step_duration_seconds", "Duration of steps.", ["pipeline", "step", "status"],
            registry=self.registry, buckets=self._BUCKETS,
        )  # fmt: skip

    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        self._step_seconds.labels(pipeline, step, status.name).observe(duration)

    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        self._runs.labels(pipeline, status.name).inc()
        self._run_seconds.labels(pipeline).observe(duration)
        if self.endpoint is not None:
            self._push(self.endpoint)

    def _push(self, endpoint: str) -> None:
        from http.client import HTTPException

        from prometheus_client import pushadd_to_gateway

        try:
            pushadd_to_gateway(
                without_credentials(endpoint), self.job_name, self.registry, timeout=self.timeout_seconds,
                handler=self._sent,
            )  # fmt: skip
        except (OSError, HTTPException, ValueError) as error:
            logger.warning("Metrics were not pushed: %s cannot be reached (%s).", shown(endpoint), shown_in(error))

    def _sent(
        self, url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        """How prometheus_client shall send: bounded, and to the gateway itself, of which a redirect is no answer."""
        from flowyml.core.web import exchange

        def send() -> None:
            answer = exchange(
                url, method=method, headers={**dict(headers), **self._login.headers()}, body=data,
                timeout=timeout or self.timeout_seconds, limit=65536, cut=True,
            )  # fmt: skip
            if answer.status >= 300:
                hint = _HINTS.get(answer.status, "")
                logger.warning("Metrics were not pushed: %s answered %d.%s", shown(url), answer.status, hint)

        return send


_SCRAPES = " Is it a Prometheus server? It scrapes; pushes go to a Pushgateway."
_MOVED = " It redirects; metrics and credentials go to the address that was given alone."
_HINTS = {404: _SCRAPES, 405: _SCRAPES, **dict.fromkeys((301, 302, 303, 307, 308), _MOVED)}

_collector: MetricsCollector | None = None
_lock = threading.Lock()


def set_metrics_collector(collector: MetricsCollector | None) -> None:
    """Use ``collector`` for every run of this process from now on; None turns metrics off."""
    global _collector
    if collector is not None and not isinstance(collector, MetricsCollector):
        raise TypeError(f"{collector!r} is no MetricsCollector. Subclass flowyml.core.observability.MetricsCollector.")
    with _lock:
        _collector = collector


def get_metrics_collector() -> MetricsCollector | None:
    """The collector in use, or None."""
    return _collector


def measure(event: str, *args: object) -> None:
    """Tell the collector, if there is one; what it raises is logged."""
    collector = _collector
    if collector is None:
        return
    try:
        getattr(collector, event)(*args)
    except Exception as error:
        import traceback

        told = shown_in("".join(traceback.format_exception(error)))
        logger.error("%s.%s failed; the run goes on.\n%s", type(collector).__name__, event, told)
