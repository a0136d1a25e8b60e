"""A fan-out on a real Prefect beside the same with `task.map`, in turns: from the start of the flow to its end.

What is above the aim is the process of each item: see docs/decisions/010-processes.md.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import Row
from flowyml import Pipeline, pipeline, step
from flowyml.orchestrators.base import Orchestrator
from tests.engines.prefect import PrefectServer, prefect_server

SIZES = ((1000, 0.0), (200, 0.05))
REPEATS = 3
NATIVE = """
import sys, time
from prefect import flow, task

@task
def work(n, seconds):
    time.sleep(seconds)
    return n

@flow
def native(count, seconds):
    return len([future.result() for future in work.map(list(range(count)), seconds)])

native(int(sys.argv[1]), float(sys.argv[2]))
"""


def rows() -> Iterator[Row]:
    """Both on one server, which is left to work off the events of a run before the next one begins."""
    from flowyml_prefect import PrefectOrchestrator

    with tempfile.TemporaryDirectory() as folder, prefect_server(Path(folder)) as server:
        (Path(folder) / "native.py").write_text(NATIVE)
        orchestrator = PrefectOrchestrator(server.url)
        for count, seconds in SIZES:
            ours, theirs = [], []
            for _ in range(REPEATS + 1):
                ours.append(_ours(orchestrator, count, seconds))
                _settle(server)
                theirs.append(_native(server, Path(folder), count, seconds))
                _settle(server)
            each = [1e3 * statistics.median(times[1:]) / count for times in (ours, theirs)]
            what = f"Prefect, {count:,} items of {seconds * 1e3:g} ms: an item"
            yield Row(what, each[0], "ms", "task.map", each[1], "1.2 times")
        orchestrator.close()


def fan_out() -> Pipeline:
    """The same as ``NATIVE``."""

    @step
    def items(count: int) -> list[int]:
        return list(range(count))

    @step
    def work(n: int, seconds: float) -> int:
        time.sleep(seconds)
        return n

    @step
    def number(of: list[int]) -> int:
        return len(of)

    @pipeline(name="fan out")
    def made(count: int = 10, seconds: float = 0.0) -> Any:
        return number(work.partial(seconds=seconds).map(n=items(count)))

    return made


def _ours(orchestrator: Orchestrator, count: int, seconds: float) -> float:
    handle = orchestrator.run_pipeline(fan_out(), parameters={"count": count, "seconds": seconds})
    run = handle.wait_for_completion(timeout=600, poll_interval=0.5, progress=False).run
    assert handle.outputs == {"number": count}, run.error
    assert run.started_at
    assert run.ended_at
    return (run.ended_at - run.started_at).total_seconds()


def _native(server: PrefectServer, folder: Path, count: int, seconds: float) -> float:
    command = [sys.executable, "native.py", str(count), str(seconds)]
    subprocess.run(command, env=server.environment, cwd=folder, check=True, capture_output=True)
    body = {"flows": {"name": {"any_": ["native"]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    (run,) = httpx.post(f"{server.url}/api/flow_runs/filter", json=body).raise_for_status().json()
    began, ended = (datetime.fromisoformat(run[key]) for key in ("start_time", "end_time"))
    return (ended - began).total_seconds()


def _settle(server: PrefectServer) -> None:
    """Wait until the number of completed task runs stays the same."""
    known = -1
    while True:
        body = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        found = httpx.post(f"{server.url}/api/task_runs/count", json=body, timeout=60).raise_for_status().json()
        if found == known:
            return
        known = found
        time.sleep(3)
