"""Compiled DAG files on the real Airflows, 3.3 and 2.11: the same files load and run on both."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.schedule import Schedule
from flowyml_airflow.compiler import CompiledDag, compile_dag
from flowyml_airflow.names import BUNDLES_FOLDER, START_TASK, task_id, version_tag
from tests.adapters.airflow import dags
from tests.adapters.airflow.test_compiler import example
from tests.adapters.airflow.test_compiler_names import hostile_plan
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


# The package and what it imports. Airflow has the rest.
KUBERNETES = (
    "cachetools", "durationpy", "google/auth", "google/oauth2", "kubernetes", "oauthlib", "pyasn1", "pyasn1_modules",
    "requests_oauthlib", "rsa", "websocket",
)  # fmt: skip


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


@pytest.fixture(scope="module")
def with_kubernetes(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """The same with the package ``kubernetes``, which is here through kfp, and what of its needs Airflow lacks."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "google").mkdir()
    installed = Path(import_module("kubernetes").__file__ or "").parents[1]
    for name in KUBERNETES:
        if (installed / name).exists():
            (folder / name).symlink_to(installed / name)
    return replace(airflow, settings={"PYTHONPATH": str(folder)})


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
            "optional": put(compile_dag(dags.optional.bundle()), folder),
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
        self.found = inspected(airflow, folder)

    def dag(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.found["dags"][self.compiled[name].dag_id]
        return found


def inspected(airflow: Airflow, folder: Path) -> dict[str, Any]:
    done = airflow.execute(str(airflow.python), str(INSPECT), str(folder))
    found: dict[str, Any] = json.loads(done.stdout.rpartition("@@@")[2])
    return found


@pytest.fixture(scope="module")
def loaded(with_kubernetes: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(with_kubernetes, tmp_path_factory.mktemp("dags"))


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
    assert "kubernetes" not in loaded.found["imported"], "a step asks for resources, and the package is there"
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
    assert extract["doc"] == "Reads *all* rows.\n\nTags: io"
    assert (fit["timeout"], fit["upstream"]) == (0.5, ["extract"])
    assert dag["tasks"]["clean_up"]["upstream"] == ["fit"]
    assert dag["tasks"]["extract"]["upstream"] == [START_TASK]
    start = dag["tasks"][START_TASK]
    assert (start["retries"], start["retry_delay"]) == (3, 10), "as often as the step that is tried most often"
    assert {task["pod"] is None for task in dag["tasks"].values()} == {True}, "no executor here makes pods"


def test_loops_branches_and_clean_up_are_airflows_own(airflow: Airflow, tmp_path: Path) -> None:
    """On its own, since Airflow imports more of itself for it."""
    dag = put(compile_dag(dags.flow.bundle()), tmp_path)
    found = inspected(airflow, tmp_path)
    assert found["errors"] == {}
    assert not [name for name in found["imported"] if name.startswith("flowyml")]
    tasks = found["dags"][dag.dag_id]["tasks"]
    mapped = {name for name, task in tasks.items() if task["mapped"]}
    assert mapped == {task_id("survey.measure"), "tolerant", "drop_each"}
    groups = {name: task["group"] for name, task in tasks.items()}
    assert {name for name, group in groups.items() if group == "letters"} == {
        "measure", "choose_long", "refine", "tell_short", "tell_either",
    }  # fmt: skip
    assert groups[task_id("survey.cities")] == groups[task_id("survey.measure")] == "survey"
    assert {name for name, task in tasks.items() if task["teardown"]} == {"drop", "drop_each"}
    assert tasks["tell_all"]["rule"] == "none_failed_min_one_success"
    assert "choose_many" not in tasks["watcher"]["upstream"], "it would skip what it does not choose"


@pytest.mark.parametrize("executor", ["KubernetesExecutor", "CeleryExecutor,KubernetesExecutor"])
def test_executors_that_make_pods_get_what_a_step_asks_for(
    with_kubernetes: Airflow, tmp_path: Path, executor: str
) -> None:
    dag = put(compile_dag(dags.everything.bundle()), tmp_path)
    settings = {**with_kubernetes.settings, "AIRFLOW__CORE__EXECUTOR": executor}
    tasks = inspected(replace(with_kubernetes, settings=settings), tmp_path)["dags"][dag.dag_id]["tasks"]
    limits = {"memory": "4Gi", "nvidia.com/gpu": "1"}
    container = {"name": "base", "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": limits}}
    selector = {"nvidia.com/gpu.product": "NVIDIA-A100"}
    assert tasks["fit"]["pod"] == {"spec": {"containers": [container], "nodeSelector": selector}}
    assert tasks["extract"]["pod"] is None


def test_airflows_own_retries_do_not_reach_steps(airflow: Airflow, tmp_path: Path) -> None:
    dag = put(compile_dag(dags.everything.bundle()), tmp_path)
    eager = replace(airflow, settings={"AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "2"})
    tasks = inspected(eager, tmp_path)["dags"][dag.dag_id]["tasks"]
    assert {name: task["retries"] for name, task in tasks.items()} == {
        "extract": 3, "fit": 2, "clean_up": 0, START_TASK: 3,
    }  # fmt: skip


def test_parameters_have_a_schema_for_the_form(loaded: Loaded) -> None:
    assert loaded.dag("everything")["params"]["limit"]["type"] == "integer"
    assert loaded.dag("optional")["params"] == {
        "rows": {"type": ["integer", "null"]},
        "mode": {"type": ["string", "integer"]},
        "names": {"anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}]},
    }


def test_schedules_are_airflows_own(loaded: Loaded) -> None:
    weekly, interval = loaded.dag("everything")["schedule"], loaded.dag("interval")["schedule"]
    assert all(part in weekly for part in ("CronTriggerTimetable", "0 9 * * 1", "Europe/Berlin"))
    assert all(part in interval for part in ("DeltaTriggerTimetable", "5400"))


def run(airflow: Airflow, dag: CompiledDag, *options: str) -> tuple[str, str]:
    """Run a DAG by ``airflow dags test``: its state, and what was logged."""
    put(dag, airflow.dags_folder)
    done = airflow.command("dags", "test", dag.dag_id, *options, check=False)
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


def test_loops_branches_and_clean_up(airflow: Airflow) -> None:
    state, log = run(airflow, compile_dag(dags.flow.bundle()))
    assert state == "success", log
    assert "sum of [40, 40, 40]" in log
    assert "tell many" in log
    assert "tell few" not in log
    assert "drop tables 120" in log
    assert "drop one" in log
    assert "page somebody" not in log
    assert "HOOK end flow COMPLETED True" in log


def test_the_conf_of_a_run_wins_whatever_airflows_settings_are(airflow: Airflow) -> None:
    strict = replace(airflow, settings={"AIRFLOW__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS": "False"})
    _, log = run(strict, compile_dag(dags.small.bundle()), "--conf", '{"rows": 5}')
    assert "hello on stdout, rows=5" in log
    assert "HOOK start kleine Strecke/1 {'rows': 5}" in log


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
