"""Metrics on real servers: a Pushgateway, a Prometheus that receives, and one that does not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from flowyml.cli import main
from flowyml.core.errors import ConfigurationError
from flowyml.core.observability import PrometheusMetricsCollector, get_metrics_collector, set_metrics_collector
from flowyml.testing.pipelines import greeting
from tests.waiting import wait_until

WRITE = "--web.enable-remote-write-receiver"
SCRIPT = """
import sys
from flowyml import pipeline, step
from flowyml.core.observability import PrometheusMetricsCollector, set_metrics_collector

set_metrics_collector(PrometheusMetricsCollector(endpoint="{url}", job_name="flowyml"))

@step
def one() -> int:
    return 1

@pipeline
def short():
    return one()

if __name__ == "__main__":
    if sys.argv[1:] == ["submit"]:
        print(short.submit().job_id)
    else:
        short.run()
"""


@pytest.fixture(autouse=True)
def _no_collector_afterwards() -> Iterator[None]:
    yield
    set_metrics_collector(None)


@contextmanager
def prometheus(folder: Path, *flags: str) -> Iterator[str]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus, which `make test` installs where it may")
    (folder / "prometheus.yml").write_text("global: {}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}", *flags,
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(f"http://{address}/-/ready"))
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait()


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def values(url: str, query: str) -> list[float]:
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10) as answer:
        return [float(series["value"][1]) for series in json.load(answer)["data"]["result"]]


def test_a_prometheus_server_gets_the_samples(tmp_path: Path) -> None:
    with prometheus(tmp_path, WRITE) as url:
        set_metrics_collector(PrometheusMetricsCollector(endpoint=url, job_name="flowyml"))
        for _ in range(2):
            assert greeting().run().success
        name = '{job="flowyml",pipeline="conformance greeting"}'
        wait_until(lambda: values(url, f"sum(flowyml_runs_total{name})") == [2])
        assert values(url, 'sum(flowyml_step_duration_seconds_count{step="gather",job="flowyml"})') == [2]
        assert values(url, 'flowyml_run_duration_seconds_bucket{job="flowyml",le="+Inf"}') == [2]
        (median,) = values(url, f"histogram_quantile(0.5, flowyml_run_duration_seconds_bucket{name})")
        assert 0 < median < 60
        (seconds,) = values(url, f"flowyml_run_duration_seconds_sum{name}")
        assert seconds > 0

        # Processes that end right after, one of them started by another: each counts for itself.
        script = tmp_path / "short.py"
        script.write_text(SCRIPT.format(url=url))
        environment = {**os.environ, "FLOWYML_HOME": str(tmp_path / "home")}
        for words in ([], [], ["submit"]):
            subprocess.run([sys.executable, str(script), *words], env=environment, check=True, timeout=60)
        wait_until(lambda: values(url, 'sum(flowyml_runs_total{pipeline="short"})') == [3])
        assert len(values(url, 'flowyml_runs_total{pipeline="short",status="COMPLETED"}')) == 3


def test_a_server_without_a_receiver_is_an_error_that_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with prometheus(tmp_path) as url:
        with pytest.raises(ConfigurationError, match=rf"with {WRITE}, or give endpoint= the URL of a Push"):
            set_metrics_collector(PrometheusMetricsCollector(endpoint=url, job_name="flowyml"))
        assert get_metrics_collector() is None
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "unmeasured.py").write_text(SCRIPT.format(url=url))
        assert main(["run", "unmeasured.py"]) == 2
        assert f"error: The Prometheus server at {url} accepts no samples" in capsys.readouterr().err


def test_where_nothing_answers_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    set_metrics_collector(PrometheusMetricsCollector(endpoint=url))
    assert f"nothing answers at {url}" in caplog.text
    assert greeting().run().success
    assert f"Metrics were not sent to {url}" in caplog.text
