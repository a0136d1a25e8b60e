"""What the tasks of a compiled DAG do, where no Airflow is needed for it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml.testing import pipelines
from flowyml_airflow import worker
from flowyml_airflow.compiler import compile_dag


def journal_of(folder: Path, context: dict[str, Any]) -> str:
    """What the hooks write when a run has ended, of which Airflow tells this."""
    dag = compile_dag(pipelines.hooked(str(folder)).bundle())
    path = folder / dag.bundle.filename
    path.write_bytes(dag.bundle.data)
    worker.finish_run(context, path, sys.executable)
    return (folder / "journal").read_text()


def test_the_end_of_a_run_of_which_airflow_tells_next_to_nothing(tmp_path: Path) -> None:
    """Source: Airflow, ``dag_processing.processor._execute_dag_callbacks``: the minimal context."""
    told = journal_of(tmp_path, {"dag": None, "run_id": "bare", "reason": "timed_out"})
    assert told == "pipeline_end bare TIMEOUT False\n"


@pytest.mark.parametrize("conf", [{"rows": 3, "flowyml.run_id": "mine & yours/ü"}, {}, None])
def test_hooks_are_told_the_run_id_that_was_given(tmp_path: Path, conf: dict[str, Any] | None) -> None:
    run = SimpleNamespace(conf=conf, start_date=None, end_date=None)
    told = journal_of(tmp_path, {"run_id": "mine_yours", "reason": "success", "params": conf or {}, "dag_run": run})
    assert told == f"pipeline_end {'mine & yours/ü' if conf else 'mine_yours'} COMPLETED False\n"
