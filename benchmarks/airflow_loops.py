"""A fan-out on a real Airflow 3 beside the same with `expand`: from the start of the run to its end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from benchmarks.prefect_loops import fan_out
from flowyml.core.submission_result import SubmissionResult
from tests.engines.airflow import airflow3, wait_until

SIZES = ((200, 0.0), (200, 0.05))  # a thousand take as long an item, and a quarter of an hour
NATIVE = """
import time
from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1), params={"count": 10, "seconds": 0.0})
def native():
    @task
    def items(params):
        return list(range(params["count"]))

    @task
    def work(n, params):
        time.sleep(params["seconds"])
        return n

    @task
    def number(of):
        return len(list(of))

    number(work.expand(n=items()))


native()
"""


def rows() -> Iterator[Row]:
    """One run of each, after a small one of each that is not measured."""
    from flowyml_airflow import AirflowOrchestrator

    with tempfile.TemporaryDirectory() as folder, airflow3(Path(folder)) as airflow:
        orchestrator = AirflowOrchestrator(
            airflow.url, auth=(airflow.username, airflow.password), dags_folder=airflow.dags_folder,
            deploy_timeout=120,
        )  # fmt: skip
        (airflow.dags_folder / "native.py").write_text(NATIVE)
        wait_until(lambda: orchestrator._deployer.found("native") is not None, 60)
        orchestrator.client.pause("native", False)

        def native(parameters: dict[str, Any]) -> SubmissionResult:
            run_id = f"run-{parameters['count']}-{parameters['seconds']}"
            orchestrator.client.trigger("native", run_id, parameters)
            return orchestrator.attach(f"native/{run_id}")

        def ours(parameters: dict[str, Any]) -> SubmissionResult:
            return orchestrator.run_pipeline(fan_out(), parameters=parameters)

        for count, seconds in ((2, 0.0), *SIZES):
            parameters = {"count": count, "seconds": seconds}
            each, base = (1e3 * _seconds(start(parameters)) / count for start in (ours, native))
            if count > 2:
                what = f"Airflow, {count:,} items of {seconds * 1e3:g} ms: an item"
                yield Row(what, each, "ms", "expand", base, "1.2 times")


def _seconds(run: SubmissionResult) -> float:
    ended = run.wait_for_completion(timeout=1800, poll_interval=2, progress=False).run
    assert ended.status.is_successful, ended.error
    assert ended.started_at
    assert ended.ended_at
    return (ended.ended_at - ended.started_at).total_seconds()
