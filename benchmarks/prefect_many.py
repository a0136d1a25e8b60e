"""Submitting to the embedded Prefect from eight processes at once: how long one of 200 waits, and how many fail."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.measure import Row

PROCESSES, EACH = 8, 25

_SUBMIT = f"""
import json, sys, time
from flowyml import Pipeline, step
from flowyml_prefect import PrefectOrchestrator

number = sys.argv[1]
orchestrator = PrefectOrchestrator(work_pool="bench")  # without a worker: no run takes the cores away
orchestrator.client.ensure_process_pool("bench")
pipeline = Pipeline("bench").add_step(step(name="one")(lambda: 1))
orchestrator.run_pipeline(pipeline, run_id=f"first-{{number}}")
print("ready", flush=True)
sys.stdin.readline()
times, errors = [], []
for count in range({EACH}):
    started = time.perf_counter()
    try:
        orchestrator.run_pipeline(pipeline, run_id=f"run-{{number}}-{{count}}")
    except Exception as error:
        errors.append(repr(error))
    times.append(time.perf_counter() - started)
print(json.dumps([times, errors]))
"""
_STOP = "from flowyml_prefect.server import stop_embedded_server; stop_embedded_server()"


def rows() -> Iterator[Row]:
    """One process alone, then all at once; each with an orchestrator of its own, which it keeps."""
    with tempfile.TemporaryDirectory(prefix="flowyml-bench-") as home:
        environment = {**os.environ, "FLOWYML_HOME": home}
        try:
            alone, _ = _submitted(1, environment)
            together, errors = _submitted(PROCESSES, environment)
        finally:
            subprocess.run([sys.executable, "-c", _STOP], env=environment, check=True)
    what = f"Prefect, submit from {PROCESSES} processes at once"
    beside = f"one process alone, {PROCESSES} times"
    yield Row(f"{what}: p50", statistics.median(together), "s", beside, PROCESSES * statistics.median(alone), "0.3 s")
    yield Row(f"{what}: longest", max(together), "s", beside, PROCESSES * statistics.median(alone))
    yield Row(f"{what}: failed", len(errors), "", "all submissions", PROCESSES * EACH, "0")


def _submitted(processes: int, environment: dict[str, str]) -> tuple[list[float], list[str]]:
    """Seconds of each submission, and the errors. All begin when the slowest is ready."""
    command = [sys.executable, "-c", _SUBMIT]
    pipe = subprocess.PIPE
    at_work = [
        subprocess.Popen([*command, f"{processes}-{number}"], env=environment, stdin=pipe, stdout=pipe, text=True)
        for number in range(processes)
    ]
    for process in at_work:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    times: list[float] = []
    errors: list[str] = []
    for process in at_work:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in at_work:
        taken, failed = json.loads(process.communicate()[0])
        times += taken
        errors += failed
    return times, errors
