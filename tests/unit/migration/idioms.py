"""The DAG files of ``idioms.txt``, and what is read of a DAG in the words in which ``list_dags.py`` lists it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowyml.migration.airflow.model import AssetRef, DagModel

TESTS = Path(__file__).resolve().parents[2]
GOLDEN = TESTS / "golden/idioms.json"
IMPORTS = {
    3: """
from airflow.sdk import (
    DAG, Asset, BaseOperator, Label, TaskGroup, chain, chain_linear, cross_downstream, dag, setup, task, task_group,
    teardown,
)
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
""",
    2: """
from airflow import DAG
from airflow.datasets import Dataset as Asset
from airflow.decorators import dag, setup, task, task_group, teardown
from airflow.models.baseoperator import BaseOperator, chain, chain_linear, cross_downstream
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator
from airflow.utils.edgemodifier import Label
from airflow.utils.task_group import TaskGroup
""",
}
HEAD = """
import collections, functools, itertools, operator, random
import pendulum
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
START = datetime(2024, 1, 1)
def E(name, **given): return EmptyOperator(task_id=name, **given)
"""
DEFAULTS = {
    "upstream": [], "trigger_rule": "all_success", "retries": 0, "retry_delay": 300.0, "execution_timeout": None,
    "mapped": False, "group": None,
}  # fmt: skip


@dataclass(frozen=True)
class Idiom:
    """What a DAG file says, and the codes of what the reader is not certain of."""

    body: str
    codes: set[str]
    only_airflow_3: bool


def idioms() -> Mapping[str, Idiom]:
    text = (TESTS / "adapters/airflow/idioms.txt").read_text("utf-8")
    _, *parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)
    found = {}
    for header, body in zip(parts[::2], parts[1::2], strict=True):
        name, *words = header.split()
        found[name] = Idiom(body, {*words} - {"only-3"}, "only-3" in words)
    return found


def write_idioms(folder: Path, major: int) -> Mapping[str, Path]:
    """Writes a file for each that this version of Airflow can load."""
    chosen = {name: idiom for name, idiom in idioms().items() if major == 3 or not idiom.only_airflow_3}
    paths = {name: folder / f"{name}.py" for name in chosen}
    for name, idiom in chosen.items():
        paths[name].write_text(IMPORTS[major] + HEAD + idiom.body, "utf-8")
    (folder / "config_file.ini").write_text("[dag]\nname = config_file\nfirst = start\n", "utf-8")
    return paths


def as_listed(dag: DagModel) -> dict[str, Any]:
    return {"schedule": _schedule(dag), "tags": list(dag.tags), "timezone": dag.timezone, "tasks": _tasks(dag)}


def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text("utf-8"))
    return found


def write_golden(found: Mapping[str, Any]) -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(found[name], sort_keys=True)}" for name in sorted(found)]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def _tasks(dag: DagModel) -> dict[str, Any]:
    listed = {}
    for task in dag.tasks:
        of_task = {name: getattr(task, name) for name in DEFAULTS} | {"upstream": sorted(task.upstream)}
        listed[task.task_id] = {name: value for name, value in of_task.items() if value != DEFAULTS[name]}
    return listed


def _schedule(dag: DagModel) -> str:
    refs = dag.schedule_value if isinstance(dag.schedule_value, list) else [dag.schedule_value]
    if refs and all(isinstance(ref, AssetRef) for ref in refs):
        return "dataset:" + ",".join(sorted({name for ref in refs for name in _names(ref)}))
    return str(dag.schedule)


def _names(ref: AssetRef) -> set[str]:
    return {one for part in ref.parts for one in _names(part)} if ref.parts else {ref.name or ref.uri}
