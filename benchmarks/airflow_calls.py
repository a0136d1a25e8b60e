"""Triggering and reading runs on a real Airflow 3, beside Airflow's own Python client, in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Row
from flowyml import Pipeline, step
from tests.engines.airflow import Airflow, airflow3

if TYPE_CHECKING:
    from flowyml_airflow import AirflowOrchestrator

COUNT = 60
DAG = "bench"
BESIDE = "apache-airflow-client"
AIM = "1.3 times"


def rows() -> Iterator[Row]:
    """The DAG is deployed, and then no scheduler runs, so that no run takes the cores away."""
    from flowyml_airflow import AirflowOrchestrator

    with tempfile.TemporaryDirectory() as folder, airflow3(Path(folder)) as airflow:
        orchestrator = AirflowOrchestrator(
            airflow.url, auth=(airflow.username, airflow.password), dags_folder=airflow.dags_folder,
            deploy_timeout=120,
        )  # fmt: skip
        pipeline = Pipeline(DAG).add_step(step(name="one")(lambda: 1))
        orchestrator.deploy_pipeline(pipeline)
        orchestrator.client.pause(DAG, False)
        for name in ("scheduler", "dag-processor"):
            airflow.stop(name)
        yield from _rows(orchestrator, pipeline, airflow)


def _rows(orchestrator: AirflowOrchestrator, pipeline: Pipeline, airflow: Airflow) -> Iterator[Row]:
    from airflow_client.client.api.dag_api import DAGApi
    from airflow_client.client.api.dag_run_api import DagRunApi
    from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody

    client = orchestrator.api_client()
    dags, runs = DAGApi(client), DagRunApi(client)

    def triggered(run_id: str) -> None:
        body = TriggerDAGRunPostBody(logical_date=None, conf={}, dag_run_id=run_id)
        runs.trigger_dag_run(DAG, body)

    def submitted(run_id: str) -> None:
        """By hand what a submission does: is this version there and not paused, start it, and read it back."""
        dags.get_dag_details(DAG)
        triggered(run_id)
        runs.get_dag_run(DAG, run_id)

    yield _row(
        "Airflow, trigger: the call", BESIDE,
        lambda number: orchestrator.client.trigger(DAG, f"ours-{number}", {}),
        lambda number: triggered(f"theirs-{number}"),
    )  # fmt: skip
    yield _row(
        "Airflow, run_pipeline()", f"{BESIDE}: details, trigger, run",
        lambda number: orchestrator.run_pipeline(pipeline, f"run-{number}"),
        lambda number: submitted(f"by-hand-{number}"),
    )  # fmt: skip
    handle = orchestrator.attach(f"{DAG}/run-0")
    yield _row("Airflow, status of a run", BESIDE, lambda _: handle.status, lambda _: runs.get_dag_run(DAG, "run-0"))
    yield _row(
        "Airflow, 50 runs", BESIDE,
        lambda _: orchestrator.runs(DAG, limit=50),
        lambda _: runs.get_dag_runs(DAG, limit=50),
    )  # fmt: skip


def _row(what: str, beside: str, ours: Callable[[int], object], theirs: Callable[[int], object]) -> Row:
    taken = _in_turns(ours, theirs)
    return Row(f"{what}: p50", statistics.median(taken[0]), "ms", beside, statistics.median(taken[1]), AIM)


def _in_turns(*calls: Callable[[int], object]) -> list[list[float]]:
    """Milliseconds of each call, the first few left out; who is first changes with every turn."""
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(COUNT + 5):
        turn = list(zip(calls, taken, strict=True))
        for call, times in turn if number % 2 else reversed(turn):
            started = time.perf_counter()
            call(number)
            times.append((time.perf_counter() - started) * 1e3)
    return [times[5:] for times in taken]
