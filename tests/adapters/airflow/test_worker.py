"""What the tasks of a compiled DAG do, where no Airflow is needed for it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import Pipeline, context, pipeline, step
from flowyml.core.errors import StepError
from flowyml.core.hooks import PipelineHook
from flowyml.core.schedule import Schedule
from flowyml.testing import pipelines
from flowyml_airflow import external_dag, worker
from flowyml_airflow.beside import runtime
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.external_run import conf_of
from flowyml_airflow.names import ERROR_KEY
from flowyml_airflow.run_dates import dates_of
from tests.adapters.airflow.task_instance import Ti
from tests.engines.airflow import airflow_python


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


def test_the_conf_of_an_external_dag_is_plain_json() -> None:
    @step(outputs=["rows"])
    def count() -> int:
        return 5

    waits = external_dag("report", inputs=["rows", "day"])
    plan = Pipeline("around", context=context(day="monday")).add_step(count).add_step(waits).compile()
    assert conf_of(plan.by_name["report"], {"rows": [1]}, {"day": "friday"}) == {"rows": [1], "day": "friday"}
    with pytest.raises(StepError, match="gives 'rows' to another DAG, whose conf is plain JSON"):
        conf_of(plan.by_name["report"], {"rows": [{"$artifact": {"url": "file:///x"}}]}, {"day": "friday"})


@pytest.mark.airflow
def test_a_pipeline_file_may_import_all_of_the_adapter(tmp_path: Path) -> None:
    """As ``from flowyml_airflow import AirflowOrchestrator``: its file is loaded where no FlowyML is installed."""
    modules = sorted(path.stem for path in Path(worker.__file__).parent.glob("*.py"))
    script = (
        "import sys; from importlib import import_module; from pathlib import Path; from runpy import run_path\n"
        "bundle = Path(sys.argv[1])\n"
        "run_path(str(bundle), run_name='bundle')['make_importable'](bundle)\n"
        "for name in sys.argv[2:]: import_module(f'flowyml_airflow.{name}')\n"
    )
    (tmp_path / runtime().name).write_bytes(runtime().data)
    command = [str(airflow_python(3)), "-I", "-c", script, str(tmp_path / runtime().name), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2400)
    assert (done.returncode, done.stderr) == (0, "")


class Broken(PipelineHook):
    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
        raise ValueError("no use")


@step
def nothing() -> None: ...


def test_a_hook_that_raises_fails_no_start_and_a_worker_that_can_run_nothing_does(tmp_path: Path) -> None:
    """Airflow tries the start again then, perhaps on another worker; no step could run on this one either."""
    context = {"run_id": "r", "params": {}, "ti": (ti := Ti())}
    bundle = bundle_in(tmp_path, Pipeline("broken hook", hooks=[Broken()]).add_step(nothing))
    worker.start_run(None, context, lambda: bundle, sys.executable)
    assert ti.pushed == []
    with pytest.raises(FileNotFoundError):
        worker.start_run(None, context, lambda: bundle, "/no/such/python")
    with pytest.raises(FileNotFoundError):
        worker.start_run(None, context, lambda: tmp_path / "no-such-bundle.pyz", sys.executable)
    assert [(key, value["class"]) for key, value in ti.pushed] == [(ERROR_KEY, "FileNotFoundError")] * 2


def test_the_label_of_an_item_of_several_lists_fits_airflows_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL and MySQL refuse the end of a task with more than 250 characters."""
    names = [f"n{place}" for place in range(7)]

    @step(inputs=names)
    def of_several(**values: str) -> int:
        return len(values)

    @pipeline(name="of several lists")
    def made() -> Any:
        return of_several.map(**{name: [letter * 40 for letter in "ab"] for name in names})

    configuration = SimpleNamespace(conf=SimpleNamespace(getint=lambda *_, fallback: fallback))
    monkeypatch.setitem(sys.modules, "airflow.configuration", configuration)  # as above
    operator, bundle = SimpleNamespace(loop="of_several"), bundle_in(tmp_path, made)
    labels = worker.list_items(operator, {"ti": Ti()}, lambda: bundle, sys.executable, None)
    assert [(len(label), label[:2]) for label in labels] == [(250, "aa"), (250, "bb")]


@pytest.mark.parametrize(
    ("kind", "has_interval"),
    [("scheduled", True), ("backfill", True), ("manual", False), ("operator_triggered", False)],
)
def test_a_run_that_an_operator_started_has_no_interval_of_the_schedule(
    tmp_path: Path, kind: str, has_interval: bool
) -> None:
    """``TriggerDagRunOperator`` of Airflow 3."""
    file = tmp_path / "dag.py"
    schedule = Schedule(cron="0 6 * * *", start=datetime(2026, 1, 1, tzinfo=UTC))
    file.write_text(compile_dag(Pipeline("dated").add_step(nothing).bundle(), schedule=schedule).text)
    run = SimpleNamespace(run_type=kind, logical_date=datetime(2026, 3, 1, 6, tzinfo=UTC))
    dates = dates_of({"dag_run": run, "dag": SimpleNamespace(fileloc=str(file))})
    assert dates.logical_date == run.logical_date
    assert (dates.data_interval_start is not None) is has_interval


@pytest.mark.parametrize(
    ("cron", "month", "times"),
    [
        ("30 2 * * *", 3, [(27, 1), (28, 1), (29, 1), (30, 0)]),
        ("30 2 * * *", 10, [(23, 0), (24, 0), (25, 1), (26, 1)]),
        ("30 */2 * * *", 10, [(24, 20), (24, 22), (25, 1), (25, 3)]),
        ("30 * * * *", 10, [(24, 23), (25, 0), (25, 1), (25, 2)]),
    ],
)
def test_intervals_have_no_gap_where_the_clocks_change(
    tmp_path: Path, cron: str, month: int, times: Sequence[tuple[int, int]]
) -> None:
    """These are the runs that Airflow's ``CronTriggerTimetable`` makes, by day and hour in UTC."""
    file = tmp_path / "dag.py"
    schedule = Schedule(cron=cron, timezone="Europe/Berlin", start=datetime(2026, 1, 1, tzinfo=UTC))
    file.write_text(compile_dag(Pipeline("dated").add_step(nothing).bundle(), schedule=schedule).text)
    moments = [datetime(2026, month, day, hour, 30, tzinfo=UTC) for day, hour in times]
    for before, time in itertools.pairwise(moments):
        run = SimpleNamespace(run_type="scheduled", logical_date=time)
        dates = dates_of({"dag_run": run, "dag": SimpleNamespace(fileloc=str(file))})
        interval = dates.data_interval_start, dates.data_interval_end
        assert [each and each.astimezone(UTC) for each in interval] == [before, time]
