"""Odd but plausible ways to build a DAG: what the importer reads is what Airflow's DagBag finds, or it says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowyml.migration.airflow.model import DagModel
from flowyml.migration.airflow.reader.reading import read_file
from flowyml.migration.airflow.writer.verifying import load_dags
from tests.engines.airflow import airflow_python

IMPORTS = {
    3: """
from airflow.sdk import (
    DAG, Label, TaskGroup, chain, chain_linear, cross_downstream, dag, setup, task, task_group, teardown,
)
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
""",
    2: """
from airflow import DAG
from airflow.decorators import dag, setup, task, task_group, teardown
from airflow.models.baseoperator import chain, chain_linear, cross_downstream
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator
from airflow.utils.edgemodifier import Label
from airflow.utils.task_group import TaskGroup
""",
}
HEAD = """
import collections, functools, itertools, operator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
START = datetime(2024, 1, 1)
def E(name, **given): return EmptyOperator(task_id=name, **given)
"""
# What is read otherwise than Airflow has it, with a warning; one of them only on Airflow 3.
SAID = {
    "any_stop", "gen_group_list", "gen_outside_group", "generator_order", "group_without_parent", "lazy_gen",
    "remove_edges", "task_dict_pop", "topo", "upstream_ids_add", "without_a_module",
}  # fmt: skip
OF_AIRFLOW_3 = {"group_without_parent"}
# What is read as Airflow has it here, with a warning, since it may be otherwise elsewhere.
SURE_HERE = {"either_of_one_id", "version_gate"}


@pytest.mark.airflow
@pytest.mark.parametrize("major", [3, 2])
def test_dags_are_read_as_airflow_finds_them_or_it_is_said(major: int, tmp_path: Path) -> None:
    _, *parts = re.split(r"^### (\w+)\n", (Path(__file__).parent / "idioms.txt").read_text("utf-8"), flags=re.MULTILINE)
    files = {name: tmp_path / f"{name}.py" for name in parts[::2]}
    for name, body in zip(files, parts[1::2], strict=True):
        files[name].write_text(IMPORTS[major] + HEAD + body, "utf-8")
    (tmp_path / "config_file.ini").write_text("[dag]\nname = config_file\nfirst = start\n", "utf-8")
    found = load_dags(str(airflow_python(major)), list(files.values()))
    assert found["errors"] == {}
    wanted = {
        dag_id: {task: each["upstream"] for task, each in one["tasks"].items()} for dag_id, one in found["dags"].items()
    }
    read = {dag.dag_id: dag for path in files.values() for dag in read_file(path, root=tmp_path).dags}
    assert read.keys() == wanted.keys()
    differing = {name for name, dag in read.items() if _upstream(dag) != wanted[name]}
    assert differing == (SAID if major == 3 else SAID - OF_AIRFLOW_3)
    assert {name for name, dag in read.items() if dag.warnings} == SAID | SURE_HERE


def _upstream(dag: DagModel) -> dict[str, list[str]]:
    return {task.task_id: sorted(task.upstream) for task in dag.tasks}
