"""Compiled DAG files on the real Airflows, 3.3 and 2.11: the same files load and run on both."""

from __future__ import annotations

import json
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.schedule import Schedule
from flowyml.plan.model import FromParameter, FromStep, Input, Parameter, PipelineOutput, Plan, Step
from flowyml.testing.pipelines_nested import nested_in_groups
from flowyml.testing.samples import pack
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.compiler import CompiledDag, compile_dag
from flowyml_airflow.names import BUNDLES_FOLDER, START_TASK, task_id, version_note
from tests.adapters.airflow import dags
from tests.adapters.airflow.test_compiler import EXAMPLES, example
from tests.engines.airflow import Airflow, bare_airflow
from tests.refusals import lacks_of

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

INSPECT = Path(__file__).with_name("inspect_dags.py")
MAKING_PODS = ("KubernetesExecutor", "CeleryExecutor,KubernetesExecutor")
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


def hostile_plan(steps: list[str], pipeline: str, about: str, tags: list[str]) -> Plan:
    """A chain in which each name stands wherever a name can stand."""
    made = [
        Step(
            name=steps[0], function="m:f", inputs=(Input("p", FromParameter("p")),), outputs=("out",), description=about
        )
    ]
    for before, name in pairwise(steps):
        inputs = (Input("x", FromStep(before, "out")),)
        made.append(
            Step(name=name, function="m:f", inputs=inputs, outputs=("out",), after=(steps[0],), description=name)
        )
    return Plan(
        name=pipeline,
        steps=tuple(made),
        parameters=(
            Parameter(name="p", schema={"type": "string", "title": pipeline, "$comment": about}, default=about),
        ),
        outputs=(PipelineOutput(pipeline, FromStep(steps[-1], "out")),),
        tags=tuple(dict.fromkeys(tags)),
        description=about,
        options={"airflow": {"owner": pipeline}},
    )


def put(dag: CompiledDag, folder: Path) -> CompiledDag:
    for name, data in dag.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return dag


@pytest.fixture(scope="module", params=[3, pytest.param(2, id="2.11")])
def airflow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """An Airflow without servers and database, with the package ``kubernetes``.

    The package is here through kfp, and so is what of its needs Airflow lacks.
    """
    folder = tmp_path_factory.mktemp("packages")
    (folder / "google").mkdir()
    installed = Path(import_module("kubernetes").__file__ or "").parents[1]
    for name in KUBERNETES:
        if (installed / name).exists():
            (folder / name).symlink_to(installed / name)
    settings = {"PYTHONPATH": str(folder), "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "7"}
    return bare_airflow(request.param, tmp_path_factory.mktemp("bare"), settings)


class Loaded:
    """Folders of DAG files, loaded as Airflow does, in one process."""

    def __init__(self, airflow: Airflow, tmp: Path) -> None:
        hostile = hostile_plan(HOSTILE, "Evil \"'\\ {{ 1/0 }}", '"""\\\n\x00{{', ["{{ x }}"])
        weekly = Schedule.of("weekly", "MON:09:00", timezone="Europe/Berlin")
        folder, alone = tmp / "dags", tmp / "alone"
        self.compiled = {
            "small": put(compile_dag(dags.small.bundle()), folder),
            "everything": put(compile_dag(dags.everything.bundle(), schedule=weekly), folder),
            "linked": put(compile_dag(dags.grouped.bundle(), artifact_links="https://a.example/{key}"), folder),
            "interval": put(compile_dag(dags.late.bundle(), schedule=Schedule(interval_seconds=5400)), folder),
            "optional": put(compile_dag(dags.optional.bundle()), folder),
            "hostile": put(compile_dag(dags.small.bundle().with_plan(hostile)), folder),
        }
        being_written = folder / BUNDLES_FOLDER / ".new-0a1b2c3d"
        being_written.write_bytes(self.compiled["small"].bundle.data)
        for made in (dags.flow, pack("nested", {"inner": nested_in_groups("/tmp")})):
            put(compile_dag(made.bundle()), alone)
        self.of_examples = {
            put(compile_dag(made.bundle()), tmp / "examples").dag_id
            for made in map(example, EXAMPLES)
            if not lacks_of(made.compile(), AirflowOrchestrator)
        }
        with_pods = [(str(folder), {"AIRFLOW__CORE__EXECUTOR": executor}) for executor in MAKING_PODS]
        folders = [(str(folder), {}), (str(alone), {}), *with_pods, (str(tmp / "examples"), {})]
        done = airflow.execute(str(airflow.python), str(INSPECT), json.dumps(folders))
        self.found, self.alone, *self.with_pods, self.examples = json.loads(done.stdout.rpartition("@@@")[2])

    def dag(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.found["dags"][self.compiled[name].dag_id]
        return found


@pytest.fixture(scope="module")
def loaded(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(airflow, tmp_path_factory.mktemp("dags"))


def test_all_load_without_errors_and_can_be_serialized(loaded: Loaded) -> None:
    assert loaded.found["errors"] == loaded.examples["errors"] == {}
    assert {*loaded.found["dags"]} == {dag.dag_id for dag in loaded.compiled.values()}
    assert {*loaded.examples["dags"]} == loaded.of_examples
    files = {dag.filename for dag in loaded.compiled.values()}
    assert {Path(file).name for file in loaded.found["files"]} == files, "Airflow takes no bundle for a DAG file"


def test_parsing_imports_only_airflow_and_the_standard_library(loaded: Loaded) -> None:
    imported = {*loaded.found["imported"]}
    assert not [name for name in imported if name.startswith("flowyml")]
    assert not imported & {"tests", "dags", "cloudpickle"}
    assert "kubernetes" not in imported, "a step asks for resources, and the package is there"
    foreign = {name for name in imported if not name.startswith(("unusual_prefix_", "_", "airflow"))}
    assert not foreign - {*loaded.found["stdlib"]} - AIRFLOWS_OWN


def test_the_version_and_real_names_are_shown(loaded: Loaded) -> None:
    for name, compiled in loaded.compiled.items():
        assert loaded.dag(name)["description"].endswith(version_note(compiled.version))
        assert compiled.structure in loaded.dag(name)["doc"]
    small, hostile = loaded.dag("small"), loaded.dag("hostile")
    assert small["display"] == "kleine Strecke/1"
    assert small["tasks"][task_id("Prüfung/3 '\"")]["display"] == "Prüfung/3 '\""
    assert hostile["display"] == "Evil \"'\\ {{ 1/0 }}"
    assert {task["display"] for task in hostile["tasks"].values()} == set(HOSTILE)


def test_what_was_asked_for_arrives(loaded: Loaded, airflow: Airflow) -> None:
    dag = loaded.dag("everything")
    assert (dag["timeout"], dag["max_active_runs"], dag["catchup"]) == (3600, 1, False)
    assert dag["tags"] == ["flowyml", "nightly", "team:ml"]
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
    assert (fit["retries"], dag["tasks"]["clean_up"]["retries"]) == (2, 0), "not 7, as Airflow's own setting is here"
    assert {task["pod"] is None for task in dag["tasks"].values()} == {True}, "no executor here makes pods"


def test_loops_branches_and_clean_up_are_airflows_own(loaded: Loaded) -> None:
    """On its own, since Airflow imports more of itself for it."""
    assert loaded.alone["errors"] == {}
    assert not [name for name in loaded.alone["imported"] if name.startswith("flowyml")]
    tasks = loaded.alone["dags"]["flow"]["tasks"]
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


def test_a_branch_in_a_called_pipeline_may_call_pipelines(loaded: Loaded) -> None:
    """What leads to them has a label, which in ``>>`` leads to the groups of the tasks, and in a circle."""
    tasks = loaded.alone["dags"]["nested"]["tasks"]
    called = {name for name, task in tasks.items() if "choose_taken" in task["upstream"]}
    assert {tasks[name]["group"] for name in called} >= {"inner_doubled", "inner_doubled_2"}


def test_executors_that_make_pods_get_what_a_step_asks_for(loaded: Loaded) -> None:
    limits = {"memory": "4Gi", "nvidia.com/gpu": "1"}
    container = {"name": "base", "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": limits}}
    selector = {"nvidia.com/gpu.product": "NVIDIA-A100"}
    for found in loaded.with_pods:
        tasks = found["dags"][loaded.compiled["everything"].dag_id]["tasks"]
        assert tasks["fit"]["pod"] == {"spec": {"containers": [container], "nodeSelector": selector}}
        assert tasks["extract"]["pod"] is None


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
