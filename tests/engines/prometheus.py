"""Real servers of metrics for tests, Debian's own, on 127.0.0.1, and gone after the test.

VictoriaMetrics takes OTLP and answers queries as Prometheus does, whose package in Debian is built without OTLP.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.engines.processes import end_engine, free_port, start_engine
from tests.waiting import wait_until

__all__ = [
    "METERED", "METERED_BY_OTLP", "check_hook", "check_process", "is_pushed", "page", "prometheus", "pushgateway",
    "run_metered", "values", "victoria_metrics",
]  # fmt: skip

METERED = """
import sys
from flowyml import pipeline, step
from flowyml.core.observability import PrometheusMetricsCollector, set_metrics_collector

set_metrics_collector(PrometheusMetricsCollector(endpoint="{url}", job_name="flowyml"))

@step
def one() -> int:
    return 1

@pipeline
def {name}():
    return one()

if __name__ == "__main__":
    if sys.argv[1:] == ["submit"]:
        print({name}.submit().job_id)
    else:
        {name}.run()
"""
"""A script as the guide has it, whose process ends right after its run. Workers import it, and so does its set-up."""

METERED_BY_OTLP = METERED.replace("PrometheusMetricsCollector", "OtlpMetricsCollector")

METERED_BY_HOOK = """
from flowyml import pipeline, step
from flowyml.core.hooks import PipelineHook
from flowyml.core.observability import PrometheusMetricsCollector

class Measure(PipelineHook):
    def on_pipeline_end(self, pipeline_name, run_id, status, duration_seconds):
        collector = PrometheusMetricsCollector(endpoint="{url}", job_name="flowyml")
        collector.run_finished(pipeline_name, run_id, status, duration_seconds)

@step
def one() -> int:
    return 1

@pipeline(hooks=[Measure()], airflow={{"python": "{python}"}})  # Airflow's own Python has no prometheus-client
def {name}():
    return one()

if __name__ == "__main__":
    {name}.submit()
"""
"""The same for runs that no process waits for: a worker sends the metrics."""


def check_process(folder: Path, name: str, **environment: str) -> None:
    """Run that script as a process of its own, and wait until its run counts in a Pushgateway."""
    with pushgateway() as url:
        run_metered(folder, url, name, **environment)
        wait_until(lambda: is_pushed(url, name))


def check_hook(folder: Path, name: str, **environment: str) -> None:
    """Submit a run whose hook sends its metrics, by a process that ends at once, and wait until the run counts."""
    with pushgateway() as url:
        run_metered(folder, url, name, text=METERED_BY_HOOK, **environment)
        wait_until(lambda: is_pushed(url, name))


def run_metered(folder: Path, url: str, name: str, *words: str, text: str = METERED, **environment: str) -> None:
    """Run the script, whose pipeline has that name, and see it succeed."""
    script = folder / f"{name}.py"
    script.write_text(text.format(url=url, name=name, python=sys.executable))
    done = subprocess.run(
        [sys.executable, script, *words], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "failed" in done.stderr) == (0, False), done.stderr


def is_pushed(url: str, name: str) -> bool:
    """Whether a Pushgateway has one completed run of that pipeline."""
    counted = rf'^flowyml_runs_total\{{.*job="flowyml",pipeline="{name}",status="COMPLETED"\}} 1$'
    return re.search(counted, page(f"{url}/metrics"), re.MULTILINE) is not None


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """A Prometheus server, by its URL."""
    (folder / "prometheus.yml").write_text("global: {}\n")
    address = f"127.0.0.1:{free_port()}"
    options = [
        f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]  # fmt: skip
    with _running("prometheus", options, address) as url:
        yield url


@contextmanager
def victoria_metrics(folder: Path) -> Iterator[str]:
    """A server that takes OTLP at ``/opentelemetry/v1/metrics``, by its URL."""
    address = f"127.0.0.1:{free_port()}"
    options = [f"-storageDataPath={folder}/data", f"-httpListenAddr={address}", "-search.latencyOffset=0s"]
    with _running("victoria-metrics", options, address) as url:
        yield url


@contextmanager
def pushgateway() -> Iterator[str]:
    """A Pushgateway, by its URL."""
    address = f"127.0.0.1:{free_port()}"
    with _running("prometheus-pushgateway", [f"--web.listen-address={address}"], address) as url:
        yield url


def values(url: str, query: str) -> list[float]:
    """What VictoriaMetrics answers to a query: the value of each series, with all that it was sent by now."""
    page(f"{url}/internal/force_flush")  # it shows nothing for ten seconds otherwise
    answer = json.loads(page(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def page(url: str) -> str:
    """The text at a URL."""
    with urllib.request.urlopen(url, timeout=240) as answer:
        return str(answer.read().decode())


@contextmanager
def _running(name: str, options: list[str], address: str) -> Iterator[str]:
    program = shutil.which(name)
    if program is None:
        raise FileNotFoundError(f"{name} is not installed; `make test` installs it where it may")
    with Path(os.devnull).open("wb") as log:
        server = start_engine([program, *options], log=log)
    try:
        wait_until(lambda: _is_ready(address))
        yield f"http://{address}"
    finally:
        end_engine(server)


def _is_ready(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://{address}/-/ready", timeout=60) as answer:
        return bool(answer.status == 200)
    return False
