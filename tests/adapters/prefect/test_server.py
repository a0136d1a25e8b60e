"""The embedded Prefect: started once, shared, started again after a crash, and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowyml.core.alive import born

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

_RUN = """
import json, sys
from flowyml import Pipeline, step
from flowyml_prefect import PrefectOrchestrator

@step(outputs=["pid"])
def where():
    import os
    return os.getpid()

orchestrator = PrefectOrchestrator()
before = orchestrator.health().reachable
handle = orchestrator.run_pipeline(Pipeline("embedded").add_step(where)).wait_for_completion(120, 0.2)
print(json.dumps([before, str(handle.status), handle.url, orchestrator.health().url]))
"""

_SCHEDULE = """
import json, time
from flowyml import Pipeline, step
from flowyml.core.schedule import Schedule
from flowyml_prefect import PrefectOrchestrator

@step(outputs=["five"])
def five():
    return 5

orchestrator = PrefectOrchestrator()
made = orchestrator.schedule_pipeline(Pipeline("embedded schedule").add_step(five), Schedule.of("interval", 4))
deadline = time.monotonic() + 90
while not (ended := [run for run in orchestrator.runs("embedded schedule") if run.status.is_terminal]):
    assert time.monotonic() < deadline
    time.sleep(0.5)
orchestrator.delete_schedule(made.schedule_id)
print(json.dumps([str(ended[0].status), orchestrator.outputs(ended[0].job_id)]))
"""

_STOP = "from flowyml_prefect.server import stop_embedded_server; print(stop_embedded_server())"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("embedded")
    yield folder
    _output(_start(folder, _STOP))


def _start(home: Path, code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "FLOWYML_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _output(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.strip(), err


def test_two_processes_that_need_it_at_once_start_one(home: Path) -> None:
    outcomes = [_output(process) for process in [_start(home, _RUN) for _ in range(2)]]
    results = [json.loads(out) for out, _ in outcomes]
    assert [result[:2] for result in results] == [[False, "COMPLETED"]] * 2
    assert len({result[3] for result in results}) == 1
    assert all(result[2].startswith("http://127.0.0.1:") for result in results)
    told = sorted(err.splitlines()[0] for _, err in outcomes)
    assert told[0].startswith("Another process is starting")
    assert told[1].startswith("Starting Prefect at http://127.0.0.1:")


def test_after_a_crash_it_comes_back_at_the_same_address(home: Path) -> None:
    record = json.loads((home / "prefect" / "server.json").read_text())
    os.killpg(record["server"]["pid"], signal.SIGKILL)
    time.sleep(0.5)
    before, status, _, url = json.loads(_output(_start(home, _RUN))[0])
    assert (before, status, url) == (False, "COMPLETED", record["url"])


def test_it_is_used_again_and_a_schedule_brings_a_worker(home: Path) -> None:
    out, err = _output(_start(home, _SCHEDULE))
    assert "Starting Prefect" not in err
    assert json.loads(out) == ["COMPLETED", {"five": 5}]
    record = json.loads((home / "prefect" / "server.json").read_text())
    assert os.getpgid(record["worker"]["pid"]) == record["worker"]["pid"]


def test_it_stops_with_its_worker(home: Path) -> None:
    record = json.loads((home / "prefect" / "server.json").read_text())
    assert _output(_start(home, _STOP))[0] == "True"
    assert [born(record[who]["pid"]) for who in ("server", "worker")] == [None, None]
    assert _output(_start(home, _STOP))[0] == "False"
