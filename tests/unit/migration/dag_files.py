"""Reads DAG files that a test writes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from flowyml.migration.airflow.model import FileModel
from flowyml.migration.airflow.reader.machine import Options
from flowyml.migration.airflow.reader.reading import read_file

HEAD = """
from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from airflow.decorators import dag, task, task_group
from airflow.utils.task_group import TaskGroup
from airflow.utils.edgemodifier import Label
from airflow.models import Variable
from airflow.models.param import Param
from airflow.models.baseoperator import chain, chain_linear, cross_downstream
from datetime import datetime, timedelta
import os
import pendulum
"""


def read(folder: Path, text: str, files: dict[str, str] | None = None, **options: Any) -> FileModel:
    """Writes files below a root, by their paths, and reads ``dags/flow.py``, which says ``text``."""
    root = folder / "repository"
    for name, content in {"dags/flow.py": text, **(files or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content), encoding="utf-8")
    return read_file(root / "dags/flow.py", root=root, options=Options(**options))


def edges(file: FileModel) -> set[str]:
    """The edges of a file's only DAG, as ``a>b``."""
    (dag,) = file.dags
    return {f"{before}>{after}" for before, after in dag.edges()}


def ids(file: FileModel) -> list[str]:
    """The task ids of a file's only DAG."""
    (dag,) = file.dags
    return [task.task_id for task in dag.tasks]


def codes(file: FileModel) -> set[str]:
    """The codes of what is not certain."""
    return {one.code for one in (*file.warnings, *(one for dag in file.dags for one in dag.warnings))}
