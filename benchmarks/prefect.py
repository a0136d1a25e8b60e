"""Submitting to Prefect and reading runs back, beside raw HTTP on one connection, against a real server."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from benchmarks.measure import Row
from flowyml import Pipeline, step
from flowyml.orchestrators.base import Orchestrator
from tests.engines.prefect import prefect_server

COUNT = 60
_SETTLES_SECONDS = 0.1


def rows() -> Iterator[Row]:
    """The raw call and ours in turns; a work pool without a worker, so that no run takes the cores away."""
    from flowyml_prefect import PrefectOrchestrator

    with tempfile.TemporaryDirectory() as folder, prefect_server(Path(folder)) as server:
        orchestrator = PrefectOrchestrator(server.url, work_pool="bench")
        httpx.post(f"{server.url}/api/work_pools/", json={"name": "bench", "type": "process"}).raise_for_status()
        yield from _submitting(orchestrator, f"{server.url}/api")
        yield from _reading(orchestrator, f"{server.url}/api")


def _submitting(orchestrator: Orchestrator, api: str) -> Iterator[Row]:
    pipeline = Pipeline("bench").add_step(step(name="one")(lambda: 1))
    first = orchestrator.run_pipeline(pipeline)
    with httpx.Client(base_url=api) as raw:
        run = raw.get(f"/flow_runs/{first.job_id}").json()
        path = f"/deployments/{run['deployment_id']}/create_flow_run"
        ours, theirs = _in_turns(
            lambda _: orchestrator.run_pipeline(pipeline),
            lambda number: _created(raw, path, f"raw-{number}"),
        )
    beside = "raw HTTP on an open connection"
    yield Row("Prefect, submit: p50", statistics.median(ours), "ms", beside, statistics.median(theirs), "1.15 times")
    yield Row("Prefect, submit: mean", statistics.mean(ours), "ms", beside, statistics.mean(theirs), "30 ms")


def _reading(orchestrator: Orchestrator, api: str) -> Iterator[Row]:
    with httpx.Client(base_url=api) as raw:
        ours, theirs = _in_turns(
            lambda _: orchestrator.runs(limit=50),
            lambda _: raw.post("/flow_runs/filter", json={"limit": 50, "sort": "EXPECTED_START_TIME_DESC"}),
        )
    each = statistics.median(ours) / 50
    yield Row(
        "Prefect, status of 50 runs in one call: a run",
        each,
        "ms",
        "raw HTTP",
        statistics.median(theirs) / 50,
        "0.5 ms",
    )


def _created(raw: httpx.Client, path: str, key: str) -> None:
    """On SQLite, Prefect answers 503 when two of its own transactions meet; the caller must ask again."""
    while raw.post(path, json={"idempotency_key": key}).status_code == 503:
        time.sleep(0.03)


def _in_turns(*calls: Callable[[int], object]) -> list[list[float]]:
    """Milliseconds of each call, the first few left out.

    The order changes each time, and the server is left to finish what a call has set off, events and their records:
    else the second call pays for it.
    """
    turns: list[tuple[Callable[[int], object], list[float]]] = [(call, []) for call in calls]
    for number in range(COUNT + 5):
        for call, times in turns if number % 2 else turns[::-1]:
            time.sleep(_SETTLES_SECONDS)
            started = time.perf_counter()
            call(number)
            times.append((time.perf_counter() - started) * 1e3)
    return [times[5:] for _, times in turns]
