"""A pipeline on the real Prefect runs beside a DAG of the real Airflow, is compared with it, and goes on alone."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.airflow.operating import wait_for_dag
from tests.engines.airflow import Airflow, wait_until
from tests.engines.prefect import PrefectServer
from tests.unit.commands import flowyml

pytestmark = [pytest.mark.airflow, pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(1500)]

STEP = timedelta(minutes=2)
DAG = """
from datetime import datetime
from airflow.sdk import dag, task

@dag(dag_id="shadowed", schedule="*/2 * * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1,
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

@pipeline
def shadowed():
    note()
    rows()
    who()
"""


def _ticks(marks: Path, who: str) -> list[datetime]:
    lines = marks.read_text().splitlines() if marks.exists() else []
    return sorted(datetime.fromisoformat(line.split(" ")[1]) for line in lines if line.startswith(who))


def test_both_run_the_same_intervals_until_one_goes_on_alone(
    airflow3: Airflow, prefect: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    file = tmp_path / "shadowed.py"
    file.write_text(PIPELINE.format(marks=str(marks)))
    (airflow3.dags_folder / "shadowed.py").write_text(DAG.format(marks=str(marks)))
    wait_for_dag(airflow3, "shadowed")
    for name, value in {
        "FLOWYML_HOME": str(tmp_path / "home"),
        "FLOWYML_AIRFLOW_URL": airflow3.url,
        "FLOWYML_AIRFLOW_USERNAME": airflow3.username,
        "FLOWYML_AIRFLOW_PASSWORD": airflow3.password,
        "FLOWYML_ORCHESTRATORS__NEW__ENGINE": "prefect",
        "FLOWYML_ORCHESTRATORS__NEW__URL": prefect.url,
        "FLOWYML_ORCHESTRATORS__NEW__WORK_POOL": "shadow",
    }.items():
        monkeypatch.setenv(name, value)

    with prefect.worker("shadow"):
        made = flowyml("airflow", "cutover", "shadowed", "--shadow", "--to", "new", "--pipeline", str(file), "--json")
        assert made.code == 0, made.err
        assert made.json["phase"] == "shadow"
        assert "each writes its own files, sends its own mails" in made.err
        first = datetime.fromisoformat(made.json["shadow"])

        seen = wait_until(_both_ran, 900, every=2)
        assert seen["differences"] == [{"what": "output", "name": "who", "dag": '"old"', "pipeline": '"new"'}]

        done = flowyml("airflow", "cutover", "shadowed", "--json")
        assert done.code == 0, done.err
        assert (done.json["phase"], done.json["made_up"]) == ("done", [])
        last = datetime.fromisoformat(done.json["last"])
        wait_until(lambda: last + STEP in {*_ticks(marks, "new"), *_planned()}, 300)
        old, new = _ticks(marks, "old"), _ticks(marks, "new")
        undone = flowyml("airflow", "cutover", "shadowed", "--back")
        assert undone.code == 0, undone.err

    assert new[0] == first <= old[-1] == last
    for times in (old, new):
        assert all(later - earlier == STEP for earlier, later in pairwise(times)), times
    found = _compare()
    assert found["not_compared"] == []
    times = [datetime.fromisoformat(each["time"]) for each in found["intervals"]]
    assert (times[0], times[-1]) == (first, last)
    (airflow3.dags_folder / "shadowed.py").unlink()


def _planned() -> list[datetime]:
    """What the schedule beside the DAG will run, which was not made anew."""
    (schedule,) = json.loads(flowyml("schedule", "list", "--on", "new", "--json").out)
    return [datetime.fromisoformat(time) for time in schedule["next_runs"]]


def _compare() -> dict[str, Any]:
    found = flowyml("airflow", "compare", "shadowed", "--json")
    assert found.code in (0, 1), found.err
    report: dict[str, Any] = found.json
    return report


def _both_ran() -> dict[str, Any] | None:
    """An interval that both have run to its end."""
    ends = [(each, each["dag"], each["pipeline"]) for each in _compare()["intervals"]]
    return next((each for each, *sides in ends if all(side and side["status"] == "COMPLETED" for side in sides)), None)
