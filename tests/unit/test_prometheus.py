"""Metrics on real servers: a Pushgateway, one that takes OTLP, and a Prometheus, which takes no pushes."""

from __future__ import annotations

import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowyml.cli import main
from flowyml.core.errors import ConfigurationError, MissingExtraError
from flowyml.core.observability import (
    OtlpMetricsCollector,
    PrometheusMetricsCollector,
    get_metrics_collector,
    set_metrics_collector,
)
from flowyml.testing.pipelines import greeting
from tests.engines.prometheus import (
    METERED,
    METERED_BY_OTLP,
    check_hook,
    is_pushed,
    prometheus,
    pushgateway,
    run_metered,
    values,
    victoria_metrics,
)
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _no_collector_afterwards() -> Iterator[None]:
    yield
    set_metrics_collector(None)


@pytest.mark.processes
def test_a_server_that_takes_otlp_gets_metrics(tmp_path: Path) -> None:
    with victoria_metrics(tmp_path) as url:
        endpoint = f"{url}/opentelemetry/v1/metrics"
        set_metrics_collector(OtlpMetricsCollector(endpoint, job_name="nightly"))
        for _ in range(2):
            assert greeting().run().success
        name = '{service.name="nightly",pipeline="conformance greeting"}'
        wait_until(lambda: values(url, f"sum(flowyml_runs_total{name})") == [2])
        assert values(url, 'sum(flowyml_step_duration_seconds_count{step="gather",status="COMPLETED"})') == [2]
        assert values(url, f'flowyml_run_duration_seconds_bucket{{le="+Inf",{name[1:]}') == [2]
        (seconds,) = values(url, f"flowyml_run_duration_seconds_sum{name}")
        assert 0 < seconds < 1000

        # Processes that end right after, one of them started by another: each counts for itself.
        for words in ([], [], ["submit"]):
            run_metered(tmp_path, endpoint, "short", *words, text=METERED_BY_OTLP, FLOWYML_HOME=str(tmp_path / "home"))
        wait_until(lambda: values(url, 'sum(flowyml_runs_total{pipeline="short"})') == [3])
        assert len(values(url, 'flowyml_runs_total{pipeline="short",status="COMPLETED"}')) == 3


def test_a_pushgateway_gets_those_of_a_process_that_ends_right_after(tmp_path: Path) -> None:
    with pushgateway() as url:
        for name, words in (("short", []), ("brief", ["submit"])):
            run_metered(tmp_path, url, name, *words, FLOWYML_HOME=str(tmp_path / "home"))
            wait_until(lambda name=name: is_pushed(url, name))


@pytest.mark.processes
def test_a_hook_measures_runs_that_no_process_waits_for(tmp_path: Path) -> None:
    check_hook(tmp_path, "unattended", FLOWYML_HOME=str(tmp_path / "home"))


@pytest.mark.processes
def test_a_worker_needs_no_library_for_a_collector_that_the_script_sets(tmp_path: Path) -> None:
    """It loads the script and measures nothing; a pod, and Airflow's own Python, have none."""
    venv.EnvBuilder().create(tmp_path / "bare")
    for text in (METERED, METERED_BY_OTLP):
        (tmp_path / "short.py").write_text(text.format(url="http://127.0.0.1:9", name="short"))
        write = "from pathlib import Path; from short import short; print(short.bundle().write(Path.cwd()))"
        made = subprocess.run([sys.executable, "-c", write], cwd=tmp_path, capture_output=True, text=True, check=True)
        command = [str(tmp_path / "bare/bin/python"), "-I", made.stdout.strip(), "step", "one"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, '{"one": 1}\n'), done.stderr


def test_a_prometheus_server_is_an_error_that_says_what_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with prometheus(tmp_path) as url:
        with pytest.raises(ConfigurationError, match=rf"use OtlpMetricsCollector\('{url}/api/v1/otlp/v1/metrics'\)"):
            set_metrics_collector(PrometheusMetricsCollector(endpoint=url, job_name="flowyml"))
        assert get_metrics_collector() is None
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "unmeasured.py").write_text(METERED.format(url=url, name="unmeasured"))
        assert main(["run", "unmeasured.py"]) == 2
        assert f"error: A Prometheus server is at {url}, and" in capsys.readouterr().err


def test_where_nothing_answers_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    set_metrics_collector(PrometheusMetricsCollector(endpoint=url))
    assert f"nothing answers at {url}" in caplog.text
    assert greeting().run().success
    assert f"Metrics were not sent to {url}" in caplog.text
    set_metrics_collector(OtlpMetricsCollector(f"{url}/v1/metrics", timeout_seconds=1))
    assert greeting().run().success
    assert f"Metrics were not sent to {url}/v1/metrics" in caplog.text
    assert "The next run of this process sends them with its own." in caplog.text


def test_without_the_extra_the_collector_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    monkeypatch.delitem(sys.modules, "flowyml.core.otlp", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'flowyml\[otlp\]'"):
        set_metrics_collector(OtlpMetricsCollector("http://127.0.0.1:9/v1/metrics"))
