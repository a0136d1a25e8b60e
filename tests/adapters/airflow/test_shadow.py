"""A pipeline on the real Prefect runs beside a DAG of the real Airflow, is compared with it, and goes on alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.airflow.operating import wait_for_dag
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.prefect, pytest.mark.slow]

BEFORE = dict(os.environ)  # other tests change it meanwhile
STEP = timedelta(minutes=2)
DAG = """
from datetime import datetime
try:
    from airflow.sdk import dag, task
except ImportError:
    from airflow.decorators import dag, task

@dag(dag_id={dag_id!r}, schedule="*/2 * * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1,
     is_paused_upon_creation=False)
def shadowed():
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
    rows()
    who()

shadowed()
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

@pipeline(name={name!r})
def shadowed():
    note()
    rows()
    who()
"""


@dataclass
class _Desk:
    """Where commands are given for one Airflow: in processes of their own, since two of these work side by side."""

    airflow: Airflow
    folder: Path
    prefect_url: str
    pool: str

    @property
    def dag(self) -> str:
        return f"shadowed_{self.airflow.major}"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def flowyml(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **BEFORE,
            "FLOWYML_HOME": str(self.folder / "home"),
            "FLOWYML_AIRFLOW_URL": self.airflow.url,
            "FLOWYML_AIRFLOW_USERNAME": self.airflow.username,
            "FLOWYML_AIRFLOW_PASSWORD": self.airflow.password,
            "FLOWYML_ORCHESTRATORS__NEW__ENGINE": "prefect",
            "FLOWYML_ORCHESTRATORS__NEW__URL": self.prefect_url,
            "FLOWYML_ORCHESTRATORS__NEW__WORK_POOL": self.pool,
        }
        command = [sys.executable, "-m", "flowyml", *words]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def said(self, *words: str) -> Any:
        done = self.flowyml(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ticks(self, who: str) -> list[datetime]:
        lines = self.marks.read_text().splitlines() if self.marks.exists() else []
        return sorted(datetime.fromisoformat(line.split(" ")[1]) for line in lines if line.startswith(who))

    def planned(self) -> list[datetime]:
        """What the schedule beside the DAG will run, which was not made anew."""
        (schedule,) = [each for each in self.said("schedule", "list", "--on", "new") if each["pipeline"] == self.dag]
        return [datetime.fromisoformat(time) for time in schedule["next_runs"]]

    def compare(self) -> dict[str, Any]:
        done = self.flowyml("airflow", "compare", self.dag, "--json")
        assert done.returncode in (0, 1), done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def both_ran(self) -> dict[str, Any] | None:
        """An interval that both have run to its end."""
        ends = [(each, each["dag"], each["pipeline"]) for each in self.compare()["intervals"]]
        both = (each for each, *sides in ends if all(side and side["status"] == "COMPLETED" for side in sides))
        return next(both, None)


def test_both_run_the_same_intervals_until_one_goes_on_alone(shadows: list[Future[None]]) -> None:
    """Begun before the first test, since it is mostly waiting for the next interval."""
    for ended in shadows:
        ended.result()


def side_by_side(airflow: Airflow, prefect_url: str, pool: str, tmp_path: Path) -> None:
    desk = _Desk(airflow, tmp_path / str(airflow.major), prefect_url, pool)
    desk.folder.mkdir()
    file = desk.folder / "shadowed.py"
    file.write_text(PIPELINE.format(marks=str(desk.marks), name=desk.dag))
    dag_file = desk.airflow.dags_folder / f"{desk.dag}.py"
    dag_file.write_text(DAG.format(marks=str(desk.marks), dag_id=desk.dag))
    wait_for_dag(desk.airflow, desk.dag)

    begun = ("airflow", "cutover", desk.dag, "--shadow", "--to", "new", "--pipeline", str(file))
    made = desk.flowyml(*begun, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["phase"] == "shadow"
    assert "each writes its own files, sends its own mails" in made.stderr
    first = datetime.fromisoformat(json.loads(made.stdout)["shadow"])

    wait_until(lambda: {*desk.ticks("old")} & {*desk.ticks("new")}, every=1)
    seen = wait_until(desk.both_ran, every=10)
    assert seen["differences"] == [{"what": "output", "name": "who", "dag": '"old"', "pipeline": '"new"'}]

    done = desk.said("airflow", "cutover", desk.dag)
    assert (done["phase"], done["made_up"]) == ("done", [])
    last = datetime.fromisoformat(done["last"])
    wait_until(lambda: last + STEP in {*desk.ticks("new"), *desk.planned()}, every=5)
    old, new = desk.ticks("old"), desk.ticks("new")
    desk.said("airflow", "cutover", desk.dag, "--back")

    shared = [time for time in old if time >= first]
    assert new[0] == first <= old[-1] == last
    for times in (shared, new):
        assert all(later - earlier == STEP for earlier, later in pairwise(times)), times
    found = desk.compare()
    assert found["not_compared"] == []
    times = [datetime.fromisoformat(each["time"]) for each in found["intervals"]]
    assert (times[0], times[-1]) == (first, last)
    dag_file.unlink()
