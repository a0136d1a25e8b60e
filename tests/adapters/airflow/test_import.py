"""What the importer reads is what Airflow's DagBag makes of it: Airflow's own examples, and idioms of all kinds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowyml.migration.airflow.model import DagModel
from flowyml.migration.airflow.reader.reading import find_files, read_file, read_files
from tests.engines.airflow import airflow_python
from tests.unit.migration.dag_files import codes
from tests.unit.migration.idioms import as_listed, idioms, write_golden, write_idioms

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


@dataclass(frozen=True)
class Listed:
    """What one process of an Airflow found in its examples and in the idioms: by file, and by DAG."""

    major: int
    examples: list[Path]
    idioms: Mapping[str, Path]
    found: Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module", params=[3, 2])
def listed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Listed:
    python, home, folder = airflow_python(request.param), *(tmp_path_factory.mktemp(name) for name in ("home", "dags"))
    (site,) = python.parent.parent.glob("lib/python3.*/site-packages")
    examples = [site / place for place in PLACES if (site / place).is_dir()]
    paths = write_idioms(folder, request.param)
    environment = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db"
    environment["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = "1000"  # 30 seconds on a machine that may be busy
    command = [str(python), str(Path(__file__).with_name("list_dags.py")), *map(str, examples), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("DAGS ")]
    return Listed(request.param, examples, paths, json.loads(line.removeprefix("DAGS ")))


def differences(dag: DagModel, wanted: Mapping[str, Any], major: int) -> list[str]:
    seen = as_listed(dag)
    if dag.schedule_omitted and major == 2:
        seen["schedule"] = wanted["schedule"]  # that version has one of its own then
    of_assets = wanted["schedule"].startswith(("dataset:", "timetable:Dataset", "timetable:Partitioned"))
    if of_assets and seen["schedule"].startswith(("dataset:", "timetable:")):
        seen["schedule"] = wanted["schedule"]  # aliases and partitions have no such text
    found = [
        f"{name}: {seen[name]} is {wanted[name]}" for name in seen if name != "tasks" and seen[name] != wanted[name]
    ]
    for task in seen["tasks"].keys() | wanted["tasks"].keys():
        one, other = seen["tasks"].get(task), wanted["tasks"].get(task)
        found += [f"{task}: {one} is {other}"] * (one != other)
    return found


def test_shipped_examples_are_read_as_dagbag_loads_them(listed: Listed) -> None:
    files = list(read_files(find_files(map(str, listed.examples))))
    read = {dag.dag_id: dag for file in files for dag in file.dags}
    dags = [dags for stem, dags in listed.found.items() if stem not in listed.idioms]
    wanted = {dag_id: each for found in dags for dag_id, each in found.items()}
    assert len(wanted) > 60
    missing = set(wanted) - set(read) - APART
    assert not missing
    assert set(read) - set(wanted) <= GUARDED
    differing = {name: differences(dag, wanted[name], listed.major) for name, dag in read.items() if name in wanted}
    wrong = {name: found for name, found in differing.items() if found}
    assert len(wrong) <= 0.03 * len(wanted), wrong
    unsaid = {name: found for name, found in wrong.items() if not read[name].warnings}
    assert not unsaid


def test_idioms_are_read_as_airflow_finds_them_or_it_is_said(listed: Listed, request: pytest.FixtureRequest) -> None:
    found = {name: listed.found.get(name, {}) for name in listed.idioms}
    if listed.major == 3 and request.config.getoption("--update-golden"):
        write_golden({name: found[name] for name, idiom in idioms().items() if not idiom.codes})
    wrong = {}
    for name, path in listed.idioms.items():
        file = read_file(path, root=path.parent)
        read = {dag.dag_id: dag for dag in file.dags}
        if read.keys() != found[name].keys():
            wrong[name] = [f"{[*read]} are {[*found[name]]}"]
        elif not codes(file):
            wrong[name] = [
                each for dag in file.dags for each in differences(dag, found[name][dag.dag_id], listed.major)
            ]
    assert {name: each for name, each in wrong.items() if each} == {}
