"""Metrics of runs and steps for Prometheus, or for whatever you collect them with.

    python examples/metrics.py                                          # one JSON line for each metric
    PUSHGATEWAY=http://127.0.0.1:9091 python examples/metrics.py        # a Pushgateway
    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python examples/metrics.py  # what takes OTLP: a Collector

A collector belongs to the process that runs or waits for a run, whatever the engine: `run(on="prefect")` measures too.
"""

from __future__ import annotations

import json
import os

from flowyml import pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.observability import (
    MetricsCollector,
    OtlpMetricsCollector,
    PrometheusMetricsCollector,
    set_metrics_collector,
)


class JsonLines(MetricsCollector):
    """A collector of one's own: two methods."""

    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        """Write a line for the step."""
        print(json.dumps({"pipeline": pipeline, "step": step, "status": status.name, "seconds": round(duration, 3)}))

    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        """Write a line for the run."""
        print(json.dumps({"pipeline": pipeline, "status": status.name, "seconds": round(duration, 3)}))


@step(outputs=["rows"])
def extract(count: int) -> list[int]:
    return list(range(count))


@step(outputs=["total"])
def add_up(rows: list[int]) -> int:
    return sum(rows)


@pipeline(name="measured")
def measured(count: int = 1000) -> int:
    """Something to measure."""
    return add_up(extract(count))


if __name__ == "__main__":
    if "PUSHGATEWAY" in os.environ:
        set_metrics_collector(PrometheusMetricsCollector(os.environ["PUSHGATEWAY"]))
    elif "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        set_metrics_collector(OtlpMetricsCollector())
    else:
        set_metrics_collector(JsonLines())
    print("total:", measured.run()["total"])
