"""What the tasks of a compiled DAG do, where no Airflow is needed for it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.hooks import PipelineHook
from flowyml.testing import pipelines
from flowyml_airflow import worker
from flowyml_airflow.compiler import compile_dag


def bundle_in(folder: Path, pipeline: Pipeline | None = None) -> Path:
    dag = compile_dag((pipeline or pipelines.hooked(str(folder))).bundle())
    path = folder / dag.bundle.filename
    path.write_bytes(dag.bundle.data)
    return path


def journal_of(folder: Path, context: dict[str, Any]) -> str:
    """What the hooks write when a run has ended, of which Airflow tells this."""
    worker.finish_run(context, bundle_in(folder), sys.executable)
    return (folder / "journal").read_text()


def test_the_end_of_a_run_of_which_airflow_tells_next_to_nothing(tmp_path: Path) -> None:
    """Source: Airflow, ``dag_processing.processor._execute_dag_callbacks``: the minimal context."""
    journal = journal_of(tmp_path, {"dag": None, "run_id": "bare", "reason": "timed_out"})
    assert journal == "pipeline_end bare TIMEOUT False\n"


@pytest.mark.parametrize("conf", [{"rows": 3, "flowyml.run_id": "mine & yours/ü"}, {}, None])
def test_hooks_get_the_run_id_that_was_given(tmp_path: Path, conf: dict[str, Any] | None) -> None:
    run = SimpleNamespace(conf=conf, start_date=None, end_date=None)
    journal = journal_of(tmp_path, {"run_id": "mine_yours", "reason": "success", "params": conf or {}, "dag_run": run})
    assert journal == f"pipeline_end {'mine & yours/ü' if conf else 'mine_yours'} COMPLETED False\n"


def test_the_conf_of_a_run_wins_over_params(tmp_path: Path) -> None:
    """Airflow leaves it out of the params when ``[core] dag_run_conf_overrides_params`` is off."""
    run = SimpleNamespace(conf={"fails": True, "flowyml.run_id": "mine"})
    worker.start_run({"run_id": "r", "params": {"fails": False}, "dag_run": run}, bundle_in(tmp_path), sys.executable)
    assert (tmp_path / "journal").read_text() == "pipeline_start mine True\n"


class Broken(PipelineHook):
    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
        raise ValueError("no use")


@step
def nothing() -> None: ...


def test_a_hook_that_raises_fails_no_start_and_a_worker_that_can_run_nothing_does(tmp_path: Path) -> None:
    """Airflow tries the start again then, perhaps on another worker; no step could run on this one either."""
    context = {"run_id": "r", "params": {}}
    bundle = bundle_in(tmp_path, Pipeline("broken hook", hooks=[Broken()]).add_step(nothing))
    worker.start_run(context, bundle, sys.executable)
    with pytest.raises(FileNotFoundError):
        worker.start_run(context, bundle, "/no/such/python")
    with pytest.raises(FileNotFoundError):
        worker.start_run(context, tmp_path / "no-such-bundle.pyz", sys.executable)
