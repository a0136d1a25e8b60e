"""A schedule goes from the real Airflow to another engine and back, or a pipeline runs beside its DAG for a while."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.airflow.operating import ENVIRONMENT, wait_for_dag
from tests.engines.airflow import Airflow
from tests.engines.prefect import PrefectServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.prefect, pytest.mark.slow, pytest.mark.beside]

STEP = timedelta(minutes=2)
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

    @task
    def rows():
        return {{"rows": [1, 2.5, None]}}

    @task
    def who():
        return "old"

    note()
    if {gives_values}:
        rows()
        who()

every_second_minute()
"""
PIPELINE = """
from flowyml import current_run, pipeline, step

@step
def note() -> None:
    with open({marks!r}, "a") as file:
        file.write("new " + current_run().data_interval_end.isoformat() + "\\n")

@step
def rows() -> dict:
    return {{"rows": (1, 2.5, None)}}

@step
def who() -> str:
    return "new"

@pipeline(name={dag_id!r})
def marking():
    note()
    if {gives_values}:
        rows()
        who()
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


@dataclass
class Desk:
    """A DAG of an Airflow, a pipeline that does the same, and where commands about them are given: in processes of
    their own, since several work side by side."""

    airflow: Airflow
    dag: str
    prefect: PrefectServer
    pool: str
    folder: Path
    gives_values: bool = False

    def __post_init__(self) -> None:
        given = {"marks": str(self.marks), "dag_id": self.dag, "gives_values": self.gives_values}
        (self.folder / "marking.py").write_text(PIPELINE.format(**given))
        self.dag_file.write_text(DAG.format(**given))
        wait_for_dag(self.airflow, self.dag)

    @property
    def dag_file(self) -> Path:
        return self.airflow.dags_folder / f"{self.dag}.py"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    @property
    def environment(self) -> dict[str, str]:
        target = {"ENGINE": "prefect", "URL": self.prefect.url, "WORK_POOL": self.pool}
        target = {f"FLOWYML_ORCHESTRATORS__NEW__{name}": value for name, value in target.items()}
        return {**ENVIRONMENT, "FLOWYML_HOME": str(self.folder / "home"), **self.airflow.login, **target}

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def said(self, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
        """What a command prints as JSON."""
        done = self.python("-m", "flowyml", *words, "--json")
        assert done.returncode in codes, done.stderr
        return json.loads(done.stdout)

    def ticks(self) -> list[tuple[str, datetime]]:
        lines = self.marks.read_text().splitlines() if self.marks.exists() else []
        marks = ((who, datetime.fromisoformat(moment)) for who, moment in (line.split(" ") for line in lines))
        return sorted(marks, key=lambda tick: tick[1])

    def times(self, who: str) -> list[datetime]:
        return [moment for of, moment in self.ticks() if of == who]

    def planned(self) -> list[datetime]:
        """What the schedule beside the DAG will run, which was not made anew."""
        (schedule,) = [each for each in self.said("schedule", "list", "--on", "new") if each["pipeline"] == self.dag]
        return [datetime.fromisoformat(time) for time in schedule["next_runs"]]

    def compare(self) -> dict[str, Any]:
        report: dict[str, Any] = self.said("airflow", "compare", self.dag, codes=(0, 1))
        return report

    def both_ran(self) -> dict[str, Any] | None:
        """An interval that both have run to its end."""
        ends = [(each, each["dag"], each["pipeline"]) for each in self.compare()["intervals"]]
        both = (each for each, *sides in ends if all(side and side["status"] == "COMPLETED" for side in sides))
        return next(both, None)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Local schedules fire while this process lives."""
        with (self.folder / "served").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "flowyml", "schedule", "serve"], cwd=self.folder, env=self.environment,
                stderr=log,
            )  # fmt: skip
        try:
            yield
        finally:
            server.terminate()
            server.wait(2400)


WAYS = [("airflow3", "new"), ("airflow3", "local"), ("airflow2", "local")]


@pytest.mark.parametrize(("airflow", "to"), WAYS, indirect=["airflow"])
def test_each_interval_runs_once_though_the_command_is_killed_at_each_step(
    airflow: Airflow, to: str, prefect: PrefectServer, pool: str, tmp_path: Path
) -> None:
    """Of Airflow 2 only the API is another one: there the command is not killed."""
    is_killed = airflow.major == 3
    desk = Desk(airflow, f"cutover_{airflow.major}_to_{to}", prefect, pool, tmp_path)
    (tmp_path / "killed.py").write_text(KILLED)
    wait_until(desk.ticks)

    steps: list[str] = []

    def run(*words: str) -> int:
        """How often the command was killed."""
        done = desk.python("killed.py", "killed" if is_killed else "whole", "airflow", "cutover", desk.dag, *words)
        assert done.returncode == 0, done.stderr
        steps.append(done.stdout + done.stderr)
        return int(done.stdout.split()[-1])

    with desk.serving() if to == "local" else nullcontext():
        assert run("--to", to, "--pipeline", "marking.py") >= 10 * is_killed
        begun = len(desk.times("new"))
        wait_until(lambda: len(desk.times("new")) > begun)
        assert run("--back") >= 6 * is_killed
        last = max(desk.times("new"))
        wait_until(lambda: max(desk.times("old")) > last)
        time.sleep(5)  # nothing else runs
    listed = [desk.python("-m", "flowyml", "runs", "--pipeline", desk.dag, "--on", to).stdout]
    listed += [airflow.command("dags", "list-runs", *(["-d"] if airflow.major == 2 else []), desk.dag).stdout]
    listed += [(tmp_path / "served").read_text()] if to == "local" else []
    said = "\n".join([json.dumps(desk.ticks(), indent=1, default=str), *steps, *listed])
    assert all(later - earlier == STEP for (_, earlier), (_, later) in pairwise(desk.ticks())), said
    assert run("--back") == 0, "what is done is not done again"
    desk.dag_file.unlink()


def test_both_run_the_same_intervals_until_one_goes_on_alone(
    airflow: Airflow, prefect: PrefectServer, pool: str, tmp_path: Path
) -> None:
    desk = Desk(airflow, f"shadowed_{airflow.major}", prefect, pool, tmp_path, gives_values=True)
    begun = ("-m", "flowyml", "airflow", "cutover", desk.dag, "--shadow", "--to", "new", "--pipeline", "marking.py")
    made = desk.python(*begun, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["phase"] == "shadow"
    assert "each writes its own files, sends its own mails" in made.stderr
    first = datetime.fromisoformat(json.loads(made.stdout)["shadow"])

    wait_until(lambda: {*desk.times("old")} & {*desk.times("new")}, every=1)
    seen = wait_until(desk.both_ran, every=10)
    assert seen["differences"] == [{"what": "output", "name": "who", "dag": '"old"', "pipeline": '"new"'}]

    done = desk.said("airflow", "cutover", desk.dag)
    assert (done["phase"], done["made_up"]) == ("done", [])
    last = datetime.fromisoformat(done["last"])
    wait_until(lambda: last + STEP in {*desk.times("new"), *desk.planned()}, every=5)
    old, new = desk.times("old"), desk.times("new")
    desk.said("airflow", "cutover", desk.dag, "--back")

    shared = [time for time in old if time >= first]
    assert new[0] == first <= old[-1] == last
    for times in (shared, new):
        assert all(later - earlier == STEP for earlier, later in pairwise(times)), times
    found = desk.compare()
    assert found["not_compared"] == []
    times = [datetime.fromisoformat(each["time"]) for each in found["intervals"]]
    assert (times[0], times[-1]) == (first, last)
    desk.dag_file.unlink()
