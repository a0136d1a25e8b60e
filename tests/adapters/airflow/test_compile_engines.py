"""Compiled DAG files on the real Airflows, 3.3 and 2.11: the same files load and run on both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.schedule import Schedule
from flowyml_airflow.compiler import CompiledDag, compile_dag, version_tag
from flowyml_airflow.names import BUNDLES_FOLDER, START_TASK, task_id
from tests.adapters.airflow import dags
from tests.adapters.airflow.test_compile import example, hostile_plan
from tests.engines.airflow import Airflow, bare_airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

INSPECT = Path(__file__).with_name("inspect_dags.py")
ROOT = Path(__file__).resolve().parents[3]
HOSTILE = ["Step", "DAG", '"""', "'", "\\", "{{ 1/0 }}", "{% raw %}", "名前", START_TASK, "a.b", "../../etc", "worker"]


# What Airflow's operators, params and timetables import when they are first used.
AIRFLOWS_OWN = {
    "asgiref", "cron_descriptor", "croniter", "dateutil", "jsonschema", "jsonschema_specifications", "pendulum",
    "pytz", "referencing", "rfc3339_validator", "rpds", "tenacity",
}  # fmt: skip


def put(dag: CompiledDag, folder: Path) -> CompiledDag:
    for name, data in dag.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return dag


@pytest.fixture(scope="module", params=[3, pytest.param(2, id="2.11")])
def airflow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """An Airflow without servers."""
    return bare_airflow(request.param, tmp_path_factory.mktemp("bare"))


class Loaded:
    """A folder of DAG files, loaded as Airflow does."""

    def __init__(self, airflow: Airflow, folder: Path) -> None:
        self.compiled = {
            "small": put(compile_dag(dags.small.bundle()), folder),
            "everything": put(
                compile_dag(
                    dags.everything.bundle(), schedule=Schedule.of("weekly", "MON:09:00", timezone="Europe/Berlin")
                ),
                folder,
            ),
            "interval": put(compile_dag(dags.late.bundle(), schedule=Schedule(interval_seconds=5400)), folder),
            "hostile": put(
                compile_dag(
                    dags.small.bundle().with_plan(
                        hostile_plan(HOSTILE, "Evil \"'\\ {{ 1/0 }}", '"""\\\n\x00{{', ["{{ x }}"])
                    )
                ),
                folder,
            ),
        }
        being_written = folder / BUNDLES_FOLDER / ".new-0a1b2c3d"
        being_written.write_bytes(self.compiled["small"].bundle.data)
        done = airflow.execute(str(airflow.python), str(INSPECT), str(folder))
        self.found: dict[str, Any] = json.loads(done.stdout.rpartition("@@@")[2])

    def dag(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.found["dags"][self.compiled[name].dag_id]
        return found


@pytest.fixture(scope="module")
def loaded(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(airflow, tmp_path_factory.mktemp("dags"))


def test_all_load_without_errors_and_can_be_serialized(loaded: Loaded) -> None:
    assert loaded.found["errors"] == {}
    assert set(loaded.found["dags"]) == {dag.dag_id for dag in loaded.compiled.values()}


def test_airflow_does_not_take_bundles_for_dag_files(loaded: Loaded) -> None:
    assert sorted(Path(file).name for file in loaded.found["files"]) == sorted(
        dag.filename for dag in loaded.compiled.values()
    )


def test_parsing_imports_only_airflow_and_the_standard_library(loaded: Loaded) -> None:
    ours = [
        name
        for name in loaded.found["imported"]
        if name.startswith("flowyml") or name in ("tests", "dags", "cloudpickle")
    ]
    assert ours == []
    foreign = {name for name in loaded.found["imported"] if not name.startswith(("unusual_prefix_", "_", "airflow"))}
    assert not foreign - set(loaded.found["stdlib"]) - AIRFLOWS_OWN


def test_the_version_shows(loaded: Loaded) -> None:
    for name, compiled in loaded.compiled.items():
        assert version_tag(compiled.version) in loaded.dag(name)["tags"]
        assert compiled.version in loaded.dag(name)["doc"]


def test_real_names_are_shown(loaded: Loaded) -> None:
    assert loaded.dag("small")["display"] == "kleine Strecke/1"
    tasks = loaded.dag("small")["tasks"]
    assert tasks[task_id("Prüfung/3 '\"")]["display"] == "Prüfung/3 '\""
    hostile = loaded.dag("hostile")
    assert hostile["display"] == "Evil \"'\\ {{ 1/0 }}"
    assert {task["display"] for task in hostile["tasks"].values()} == set(HOSTILE)


def test_what_was_asked_for_arrives(loaded: Loaded, airflow: Airflow) -> None:
    dag = loaded.dag("everything")
    assert (dag["timeout"], dag["max_active_runs"], dag["catchup"]) == (3600, 1, False)
    assert {"nightly", "team:ml", "flowyml"} < set(dag["tags"])
    extract, fit = dag["tasks"]["extract"], dag["tasks"]["fit"]
    assert (extract["retries"], extract["retry_delay"], extract["max_retry_delay"]) == (3, 10, 90)
    assert extract["backoff"] == (3.0 if airflow.major == 3 else True)
    assert (extract["timeout"], extract["pool"], extract["queue"], extract["owner"]) == (
        600,
        "warehouse",
        "big",
        "ml-team",
    )
    assert extract["doc"] == "Reads *all* rows."
    assert (fit["timeout"], fit["upstream"]) == (0.5, ["extract"])
    assert dag["tasks"]["clean_up"]["upstream"] == ["fit"]
    assert dag["tasks"]["extract"]["upstream"] == [START_TASK]


def test_parameters_have_a_schema_for_the_form(loaded: Loaded) -> None:
    assert loaded.dag("everything")["params"]["limit"]["type"] == "integer"


def test_schedules_are_airflows_own(loaded: Loaded) -> None:
    weekly, interval = loaded.dag("everything")["schedule"], loaded.dag("interval")["schedule"]
    assert all(part in weekly for part in ("CronTriggerTimetable", "0 9 * * 1", "Europe/Berlin"))
    assert all(part in interval for part in ("DeltaTriggerTimetable", "5400"))


def run(airflow: Airflow, dag: CompiledDag) -> tuple[str, str]:
    """Run a DAG by ``airflow dags test``: its state, and what was logged."""
    put(dag, airflow.dags_folder)
    done = airflow.command("dags", "test", dag.dag_id, check=False)
    output = done.stdout + done.stderr
    ended = next((line for line in output.splitlines() if "DagRun Finished" in line), "")
    return ("success" if " state=success," in ended else "failed"), output


def test_values_parameters_and_hooks(airflow: Airflow) -> None:
    """None, plain data and a large text go from step to step: the last step checks them."""
    state, log = run(airflow, compile_dag(dags.small.bundle()))
    assert state == "success", log
    assert "hello on stdout, rows=3" in log
    assert "hello on stderr" in log
    assert "HOOK start kleine Strecke/1 {'rows': 3}" in log
    assert "HOOK end of nothing: ['nothing']" in log
    assert "HOOK end kleine Strecke/1 COMPLETED True" in log


def test_a_final_error_is_not_retried_and_stops_no_independent_step(airflow: Airflow) -> None:
    state, log = run(airflow, compile_dag(dags.failing.bundle()))
    assert state == "failed"
    assert "ValueError: no use in trying again" in log
    assert "AirflowFailException" in log
    assert "HOOK error in final_error: ValueError" in log
    assert "HOOK end of independent: ['independent']" in log
    assert "HOOK end failing FAILED True" in log


def test_a_step_that_takes_too_long_is_stopped(airflow: Airflow) -> None:
    state, log = run(airflow, compile_dag(dags.late.bundle()))
    assert state == "failed"
    assert "HOOK error in sleeping: StepTimeoutError" in log


def test_the_example_runs_with_the_dependencies_of_another_python(airflow: Airflow) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from train_classifier import train_classifier
    finally:
        sys.path.pop(0)
    assert train_classifier.compile() == example()
    state, log = run(airflow, compile_dag(train_classifier.bundle(), python=sys.executable))
    assert state == "success", log
    assert "569 tumours" in log
