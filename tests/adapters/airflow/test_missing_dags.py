"""The DAG file of a run that goes on is deleted or gets other code: FlowyML says so. On a real 3.3 and 2.11."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow import missing_dags
from flowyml_airflow.names import dag_file
from tests.adapters.airflow.operating import orchestrator_of
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def two_steps(name: str, folder: Path) -> Pipeline:
    """The second waits for the first, which ends when it may."""

    @step(outputs=["one"])
    def first(folder: str) -> int:
        import time
        from pathlib import Path

        Path(folder, "begun").touch()
        while not Path(folder, "may end").exists():
            time.sleep(0.1)
        return 1

    @step(outputs=["two"])
    def second(one: int) -> int:
        return one + 1

    return Pipeline(name, context=context(folder=str(folder))).add_step(first).add_step(second)


def other_second_step(name: str, folder: Path) -> Pipeline:
    """The same pipeline with another second step."""

    @step(outputs=["two"])
    def second(one: int) -> int:
        return one + 99

    return (
        Pipeline(name, context=context(folder=str(folder))).add_step(two_steps(name, folder).steps[0]).add_step(second)
    )


def test_deploying_other_code_names_the_runs_that_go_on(
    airflow3: Airflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is as the warning says: the second step of the run is that of the new code."""
    name, orchestrator = "other code", orchestrator_of(airflow3)
    handle = orchestrator.run_pipeline(two_steps(name, tmp_path))
    wait_until((tmp_path / "begun").exists)
    orchestrator.deploy_pipeline(two_steps(name, tmp_path))
    assert "has not ended" not in caplog.text, "nothing has changed"
    orchestrator.deploy_pipeline(other_second_step(name, tmp_path))
    assert (
        f"Run {handle.run_id!r} of {name!r} has not ended, and this deployment changes the code of its DAG"
        in caplog.text
    )
    assert f"flowyml cancel {handle.job_id} --on airflow" in caplog.text
    (tmp_path / "may end").touch()
    assert handle.wait_for_completion(timeout=240, poll_interval=0.5).outputs == {"two": 100}
    caplog.clear()
    orchestrator.deploy_pipeline(two_steps(name, tmp_path))
    assert "has not ended" not in caplog.text, "no run is in progress"


@pytest.mark.parametrize("engine", ["airflow3", "airflow2"])
def test_a_run_whose_file_was_deleted_waits_and_says_so(
    engine: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(missing_dags, "YOUNG", timedelta(0))
    monkeypatch.setattr(missing_dags, "_EVERY", 1)
    airflow: Airflow = request.getfixturevalue(engine)
    pipeline = two_steps(f"missing on {engine}", tmp_path)
    orchestrator = orchestrator_of(airflow)
    handle = orchestrator.run_pipeline(pipeline)
    wait_until((tmp_path / "begun").exists)
    assert not handle.status.is_terminal
    assert "no longer has DAG" not in caplog.text
    (airflow.dags_folder / dag_file(pipeline.name)).unlink()
    wait_until(lambda: not handle.refresh().status.is_terminal and "no longer has DAG" in caplog.text)
    assert caplog.text.count("no longer has DAG") == 1
    assert f"flowyml cancel {handle.job_id} --on airflow" in caplog.text
    if engine == "airflow2":
        with pytest.raises(EngineError, match="is gone, and Airflow 2 cannot stop a run without it"):
            handle.cancel()
        assert not handle.refresh().status.is_terminal
    if engine == "airflow3":  # 2 may fail the task that it was about to start
        (tmp_path / "may end").touch()
        wait_until(lambda: handle.step_statuses()["first"] is ExecutionStatus.COMPLETED)
        assert handle.refresh().status is ExecutionStatus.RUNNING, "as Airflow has it"
    orchestrator.deploy_pipeline(pipeline)
    (tmp_path / "may end").touch()
    assert handle.wait_for_completion(timeout=240, poll_interval=0.5).outputs == {"two": 2}
