"""Odd but plausible ways to build a DAG: what the importer reads is what Airflow's DagBag finds, or it says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowyml.migration.airflow.model import DagModel
from flowyml.migration.airflow.reader.reading import read_file
from flowyml.migration.airflow.writer.verifying import load_dags
from tests.engines.airflow import airflow_python

HEAD = """
import collections, functools, itertools, operator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from airflow.sdk import (
    DAG, Label, TaskGroup, chain, chain_linear, cross_downstream, dag, setup, task, task_group, teardown,
)
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
START = datetime(2024, 1, 1)
def E(name, **given): return EmptyOperator(task_id=name, **given)
"""
# What is read otherwise than Airflow has it, with a warning.
SAID = {
    "any_stop", "gen_group_list", "gen_outside_group", "generator_order", "lazy_gen", "remove_edges", "task_dict_pop",
    "topo", "upstream_ids_add",
}  # fmt: skip


@pytest.mark.airflow
def test_dags_are_read_as_airflow_finds_them_or_it_is_said(tmp_path: Path) -> None:
    _, *parts = re.split(r"^### (\w+)\n", (Path(__file__).parent / "idioms.txt").read_text("utf-8"), flags=re.MULTILINE)
    files = {name: tmp_path / f"{name}.py" for name in parts[::2]}
    for name, body in zip(files, parts[1::2], strict=True):
        files[name].write_text(HEAD + body, "utf-8")
    found = load_dags(str(airflow_python(3)), list(files.values()))
    assert found["errors"] == {}
    wanted = {
        dag_id: {task: each["upstream"] for task, each in one["tasks"].items()} for dag_id, one in found["dags"].items()
    }
    read = {dag.dag_id: dag for path in files.values() for dag in read_file(path, root=tmp_path).dags}
    assert read.keys() == wanted.keys()
    differing = {name for name, dag in read.items() if _upstream(dag) != wanted[name]}
    assert differing == SAID
    assert {name for name, dag in read.items() if dag.warnings} == SAID


def _upstream(dag: DagModel) -> dict[str, list[str]]:
    return {task.task_id: sorted(task.upstream) for task in dag.tasks}
