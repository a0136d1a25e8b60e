"""What the importer reads in Airflow's own example DAGs is what Airflow's DagBag makes of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flowyml.migration.airflow.model import AssetRef, DagModel, FileModel, TaskModel
from flowyml.migration.airflow.reader.reading import find_files, read_files
from tests.engines.airflow import airflow_python

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

PLACES = ("airflow/example_dags", "airflow/providers/standard/example_dags")
# What these look for when they are parsed (the Kubernetes client, virtualenv) is not in the environment of the tests.
GUARDED = {
    "example_kubernetes_executor",
    "example_local_kubernetes_executor",
    "example_branch_operator",
    "example_branch_python_operator_decorator",
    "tutorial_taskflow_api_virtualenv",
}
# What cannot be read: the modules of Airflow itself are not evaluated, and these make their sub-DAGs in one.
APART = {"example_subdag_operator.section-1", "example_subdag_operator.section-2"}


def _folders(python: Path) -> list[Path]:
    (site,) = python.parent.parent.glob("lib/python3.*/site-packages")
    return [site / place for place in PLACES if (site / place).is_dir()]


def _by_dagbag(python: Path, folders: list[Path], home: Path) -> dict[str, Any]:
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db"}
    environment = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", **database}
    migrated = [str(python), "-m", "airflow", "db", "migrate"]
    subprocess.run(migrated, env=environment, check=True, capture_output=True, timeout=200)
    command = [str(python), str(Path(__file__).with_name("list_dags.py")), *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("DAGS ")]
    found: dict[str, Any] = json.loads(line.removeprefix("DAGS "))
    return found


def _names(ref: AssetRef) -> set[str]:
    return {one for part in ref.parts for one in _names(part)} if ref.parts else {ref.name or ref.uri}


def _schedule(dag: DagModel) -> str:
    if isinstance(dag.schedule_value, AssetRef):
        return "dataset:" + ",".join(sorted(_names(dag.schedule_value)))
    if isinstance(dag.schedule_value, list):
        return "dataset:" + ",".join(sorted({one for part in dag.schedule_value for one in _names(part)}))
    return str(dag.schedule)


def _task(task: TaskModel) -> dict[str, Any]:
    return {
        "upstream": list(task.upstream),
        "trigger_rule": task.trigger_rule,
        "retries": task.retries,
        "retry_delay": task.retry_delay,
        "execution_timeout": task.execution_timeout,
        "mapped": task.mapped,
        "group": task.group,
    }


def _differences(dag: DagModel, wanted: dict[str, Any], major: int) -> list[str]:
    tasks = {task.task_id: _task(task) for task in dag.tasks}
    found = [] if list(tasks) and set(tasks) == set(wanted["tasks"]) else ["task ids"]
    for name, task in tasks.items():
        other = wanted["tasks"].get(name, {})
        found += [f"{name}.{key}: {task[key]} is {other[key]}" for key in other if task[key] != other[key]]
    omitted = dag.schedule_omitted and (wanted["schedule"] == "None" or major == 2)
    of_assets = wanted["schedule"].startswith(("dataset:", "timetable:Dataset", "timetable:Partitioned"))
    if not omitted and not of_assets and _schedule(dag) != wanted["schedule"]:
        found.append(f"schedule: {dag.schedule} is {wanted['schedule']}")
    if of_assets and not str(dag.schedule).startswith(("dataset:", "timetable:")):
        found.append("schedule of assets")
    found += ["tags"] * (list(dag.tags) != wanted["tags"])
    return found


@pytest.mark.parametrize("major", [3, 2])
def test_shipped_examples_are_read_as_dagbag_loads_them(major: int, tmp_path: Path) -> None:
    python = airflow_python(major)
    folders = _folders(python)
    files: list[FileModel] = list(read_files(find_files(map(str, folders))))
    read = {dag.dag_id: dag for file in files for dag in file.dags}
    wanted = _by_dagbag(python, folders, tmp_path)
    assert len(wanted) > 60
    missing = set(wanted) - set(read) - APART
    assert not missing
    assert set(read) - set(wanted) <= GUARDED
    differences = {name: _differences(dag, wanted[name], major) for name, dag in read.items() if name in wanted}
    wrong = {name: found for name, found in differences.items() if found}
    assert len(wrong) <= 0.03 * len(wanted), wrong
    unsaid = {name: found for name, found in wrong.items() if not read[name].warnings}
    assert not unsaid
