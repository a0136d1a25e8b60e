"""Metrics of runs on Prefect reach a real Prometheus server, also from a process that ends right after its run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.prefect import PrefectServer
from tests.unit.test_prometheus import WRITE, prometheus, values
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

SCRIPT = """
from flowyml import Pipeline, step
from flowyml.core.observability import PrometheusMetricsCollector, set_metrics_collector
from flowyml_prefect import PrefectOrchestrator

set_metrics_collector(PrometheusMetricsCollector(endpoint={endpoint!r}, job_name="flowyml"))

@step(outputs=["one"])
def one() -> int:
    return 1

if __name__ == "__main__":
    Pipeline("measured on Prefect").add_step(one).run(on=PrefectOrchestrator({server!r}))
"""


def test_a_process_that_ends_after_its_run_has_sent_its_metrics(prefect: PrefectServer, tmp_path: Path) -> None:
    with prometheus(tmp_path, WRITE) as endpoint:
        script = tmp_path / "measured.py"
        script.write_text(SCRIPT.format(endpoint=endpoint, server=prefect.url))
        subprocess.run([sys.executable, script], env={**os.environ}, check=True, timeout=240)
        name = '{job="flowyml",pipeline="measured on Prefect"}'
        wait_until(lambda: values(endpoint, f"sum(flowyml_runs_total{name})") == [1])
