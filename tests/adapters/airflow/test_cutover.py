"""A schedule goes from the real Airflow to the real Prefect, or to the local engine, and back: each interval runs once.

The command is killed at each step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.adapters.airflow.operating import wait_for_dag
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.prefect, pytest.mark.slow]

BEFORE = dict(os.environ)  # other tests change it meanwhile
DAG = """
from datetime import datetime
try:
    from airflow.sdk import dag, task
except ImportError:
    from airflow.decorators import dag, task

@dag(dag_id={dag_id!r}, schedule="*/2 * * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1,
     is_paused_upon_creation=False)
def every_second_minute():
    @task
    def note(**context):
        with open({marks!r}, "a") as file:
            file.write("old " + context["data_interval_end"].isoformat() + "\\n")
    note()

every_second_minute()
"""
PIPELINE = """
from flowyml import Pipeline, current_run, step

@step
def note() -> None:
    with open({marks!r}, "a") as file:
        file.write("new " + current_run().data_interval_end.isoformat() + "\\n")

marking = Pipeline({name!r}).add_step(note)
"""
#: Runs the command in forks, each killed before or after it writes down that a further step was taken, until one ends.
KILLED = """
import os, signal, sys
import flowyml_airflow.orchestrator, flowyml_prefect.orchestrator
from flowyml.cli import main
from flowyml.migration.airflow import cutover

save = cutover.save

def state(record):
    return record and (record.phase, record.made_up)

def attempt(when):
    def kill(record):
        step = state(record) != state(cutover.Cutover.recorded(record.old, record.dag)) and when != "never"
        if step and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        save(record)
        if step:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    cutover.save = kill
    code = main(sys.argv[2:])
    sys.stdout.flush()
    os._exit(code)

killed = 0
while code := attempt(("before", "after")[killed % 2] if sys.argv[1] == "killed" else "never"):
    if code != -signal.SIGKILL:
        sys.exit(code)
    killed += 1
print("killed", killed)
"""


def _ticks(marks: Path) -> list[tuple[str, datetime]]:
    lines = marks.read_text().splitlines() if marks.exists() else []
    return sorted(
        ((who, datetime.fromisoformat(moment)) for who, moment in (line.split(" ") for line in lines)),
        key=lambda tick: tick[1],
    )


def test_each_interval_runs_once_though_the_command_is_killed_at_each_step(cutovers: list[Future[None]]) -> None:
    """Begun before the first test, since it is mostly waiting for the next interval."""
    for ended in cutovers:
        ended.result()


@contextmanager
def _serving(environment: Mapping[str, str]) -> Iterator[None]:
    """Local schedules fire while this process lives."""
    server = subprocess.Popen([sys.executable, "-m", "flowyml", "schedule", "serve"], env=environment)
    try:
        yield
    finally:
        server.terminate()
        server.wait(240)


def there_and_back(airflow: Airflow, to: str, prefect_url: str, pool: str, tmp_path: Path) -> None:
    """Of Airflow 2 only the API is another one: there the command is not killed."""
    name = f"cutover_{airflow.major}_to_{to}"
    folder = tmp_path / name
    marks = folder / "marks"
    folder.mkdir()
    (folder / "marking.py").write_text(PIPELINE.format(marks=str(marks), name=name))
    (folder / "killed.py").write_text(KILLED)
    (airflow.dags_folder / f"{name}.py").write_text(DAG.format(marks=str(marks), dag_id=name))
    wait_for_dag(airflow, name)
    wait_until(lambda: _ticks(marks))
    environment = {
        **BEFORE,
        "FLOWYML_HOME": str(folder / "home"),
        "FLOWYML_AIRFLOW_URL": airflow.url,
        "FLOWYML_AIRFLOW_USERNAME": airflow.username,
        "FLOWYML_AIRFLOW_PASSWORD": airflow.password,
        "FLOWYML_ORCHESTRATORS__NEW__ENGINE": "prefect",
        "FLOWYML_ORCHESTRATORS__NEW__URL": prefect_url,
        "FLOWYML_ORCHESTRATORS__NEW__WORK_POOL": pool,
    }

    def run(*words: str) -> int:
        """How often the command was killed."""
        how = "killed" if airflow.major == 3 else "whole"
        command = [sys.executable, "killed.py", how, "airflow", "cutover", name, *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[-1])

    with _serving(environment) if to == "local" else nullcontext():
        there = run("--to", to, "--pipeline", "marking.py")
        assert airflow.major == 2 or there >= 10
        begun = len([who for who, _ in _ticks(marks) if who == "new"])
        wait_until(lambda: len([who for who, _ in _ticks(marks) if who == "new"]) > begun)

        back = run("--back")
        assert airflow.major == 2 or back >= 6
        last_new = max(moment for who, moment in _ticks(marks) if who == "new")
        wait_until(lambda: any(who == "old" and moment > last_new for who, moment in _ticks(marks)))
        time.sleep(5)  # nothing else runs

    listed = subprocess.run(
        [sys.executable, "-m", "flowyml", "runs", "--pipeline", name, "--on", to], env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.dumps([(who, moment.isoformat()) for who, moment in _ticks(marks)], indent=1) + listed.stdout
    moments = [moment for _, moment in _ticks(marks)]
    assert all(later - earlier == timedelta(minutes=2) for earlier, later in pairwise(moments)), said

    assert run("--back") == 0, "what is done is not done again"
    (airflow.dags_folder / f"{name}.py").unlink()
