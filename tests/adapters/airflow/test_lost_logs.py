"""A pod that has ended takes its log and its disk along: what is known of a step does not depend on either."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml import Pipeline, for_each, pipeline, step
from flowyml.core.errors import AuthenticationError, StepFailedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml_airflow import worker
from flowyml_airflow.beside import runtime
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.dag_file import parts
from flowyml_airflow.log_events import LogEvent, log_events, text_log_events
from flowyml_airflow.logs import RECORDING, TaskLogs
from flowyml_airflow.names import BUNDLES_FOLDER
from flowyml_airflow.pod_disks import check_outlives_pod
from flowyml_airflow.task_exceptions import recorded
from tests.adapters.airflow.operating import orchestrator_of, set_variable
from tests.engines.airflow import Airflow

PASSWORD = "planted-in-a-variable"
STORED = {"model": {"$artifact": {"url": "file:///store/model"}}}


def failing() -> Pipeline:
    @step
    def logs_in() -> None:
        try:
            from airflow.sdk import Variable
        except ImportError:  # Airflow 2
            from airflow.models import Variable

        raise ValueError(f"refused: {Variable.get('flowyml_password')}")

    @step(timeout=12)
    def late() -> None:
        import time

        time.sleep(60)

    @step(execution_group="together")
    def first() -> int:
        return 1

    @step(execution_group="together")
    def second(first: int) -> None:
        raise KeyError(first)

    @step
    def third(n: int) -> None:
        raise ArithmeticError(n)

    @pipeline(name="lost logs")
    def made() -> None:
        logs_in()
        late()
        second(first())
        with for_each([5, 6]) as n:
            third(n)

    return made


@step
def nothing() -> None: ...


def lose_logs(airflow: Airflow, dag: str) -> None:
    for folder in (airflow.home / "logs").glob(f"dag_id={dag}*"):
        shutil.rmtree(folder)


@pytest.mark.airflow
@pytest.mark.slow
def test_errors_are_known_and_airflows_reason_is_handed_on_when_logs_are_gone(airflow: Airflow) -> None:
    set_variable(airflow, "flowyml_password", PASSWORD)
    handle = orchestrator_of(airflow).run_pipeline(failing())
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    lose_logs(airflow, "lost_logs")
    errors = {(run.name, run.index): str(run.error) for run in handle.step_runs()}
    assert errors.pop(("first", ())) == "None"
    assert errors.pop(("late", ())).startswith("AirflowTaskTimeout: Timeout")
    assert errors == {
        ("logs_in", ()): "ValueError: refused: ***",
        ("second", ()): "KeyError: 1",
        ("third", (0,)): "ArithmeticError: 5",
        ("third", (1,)): "ArithmeticError: 6",
    }
    statuses = {run.name: run.status for run in handle.step_runs()}
    assert statuses["late"] is ExecutionStatus.TIMEOUT
    said = {line.message for line in handle.logs() if line.step == "logs_in"}
    assert [line for line in said if line.startswith("Airflow has no log of this attempt: Could not read served logs")]
    assert PASSWORD not in str(handle.error)


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "error"),
    [
        ("code", "step 'nothing': EngineError: The files in .* one was changed or is missing"),
        ("runtime", "the hooks' on_pipeline_start: FileNotFoundError: .*flowyml-0.pyz"),
    ],
)
def test_the_error_of_a_task_without_its_code_needs_no_log(airflow: Airflow, lost: str, error: str) -> None:
    """As with a git-sync that is half done. The runtime, which all DAGs share, is missing for this DAG file alone."""
    orchestrator, dag = orchestrator_of(airflow), f"lost_{lost}"
    orchestrator.deploy_pipeline(Pipeline(dag, hooks=[PipelineHook()] if lost == "runtime" else []).add_step(nothing))
    if lost == "code":
        (code,) = (airflow.dags_folder / BUNDLES_FOLDER / dag).rglob("test_lost_logs.py")
        code.write_text(f"{code.read_text()}\n")
    else:
        dag_file = airflow.dags_folder / f"{dag}.py"
        dag_file.write_text(dag_file.read_text().replace(f'/ "{runtime().name}"', '/ "flowyml-0.pyz"'))
    handle = orchestrator.trigger(dag)
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    lose_logs(airflow, dag)
    assert re.match(error, str(handle.error)), handle.error


def test_the_head_of_a_log_is_handed_on_only_where_there_is_no_log() -> None:
    head = [{"event": "::group::Log message source details"}, {"event": "Could not read served logs: refused"},
            {"event": "::endgroup::"}]  # fmt: skip
    line = {"event": "hello", "timestamp": "2026-01-01T00:00:00Z"}
    assert [(event.message, event.is_reason) for event in log_events(head)] == [
        ("Airflow has no log of this attempt: Could not read served logs: refused", True)
    ]
    assert [event.message for event in log_events([*head, line])] == ["hello"]
    text = "*** Could not read served logs: refused\n"
    assert [event.message for event in text_log_events(text)] == [
        "Airflow has no log of this attempt: Could not read served logs: refused"
    ]
    written = f"{text}[2026-01-01T00:00:00.000+0000] {{m.py:1}} INFO - hello"
    assert [event.message for event in text_log_events(written)] == ["hello"]


def test_errors_are_asked_of_the_tasks_that_record_them() -> None:
    texts = [text for text in vars(parts).values() if isinstance(text, str) and text.startswith("class ")]
    classes = {node.name: node for node in ast.parse("\n".join(texts)).body if isinstance(node, ast.ClassDef)}
    wrapper = recorded(print).__code__

    def records(name: str) -> bool:
        if name not in classes:
            return False
        calls = [node for node in ast.walk(classes[name]) if isinstance(node, ast.Attribute)]
        called = [node.attr for node in calls if ast.unparse(node.value) == "worker(context)"]
        bases = [ast.unparse(base) for base in classes[name].bases]
        return any(getattr(worker, each).__code__ is wrapper for each in called) or any(map(records, bases))

    assert set(filter(records, classes)) == RECORDING


def test_a_log_that_was_found_empty_is_not_called_missing() -> None:
    places = ["/opt/airflow/logs/dag_id=d/attempt=1.log", "s3://logs/dag_id=d/attempt=1.log"]
    head = ["::group::Log message source details", *places, "::endgroup::"]
    assert log_events([{"event": text} for text in head]) == []
    assert text_log_events("*** Found local files:\n***   * /opt/airflow/logs/dag_id=d/attempt=1.log\n") == []


def test_who_may_not_read_xcoms_gets_the_error_from_the_log() -> None:
    class Client:
        def xcom(self, *_: Any) -> Any:
            raise AuthenticationError("403")

        def log(self, *_: Any) -> list[LogEvent]:
            return [LogEvent("no connection", "ERROR")]

    run = {"dag_id": "d", "dag_run_id": "r"}
    task = {"task_id": "t", "operator": "Step", "try_number": 1, "map_index": -1}
    assert TaskLogs(cast(AirflowClient, Client())).error(run, task) == ("no connection", "")


def test_the_log_says_why_an_error_is_in_no_xcom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Ti:
        try_number = 1

        def xcom_push(self, key: str, value: Any) -> None:
            raise OSError("no connection to the API")

    @recorded
    def fails(operator: Any, context: Any, bundle: Path) -> None:
        raise ValueError("no rows")

    with pytest.raises(ValueError, match="no rows"):
        fails(None, {"ti": Ti()}, lambda: tmp_path)
    assert [record.message for record in caplog.records] == [
        "Airflow refused the XCom of the error below, so only this log has it: OSError('no connection to the API')"
    ]


def test_of_a_task_that_airflow_ended_itself_its_reason_is_said() -> None:
    """The error of an earlier try is not that of this one."""

    class Client:
        def xcom(self, *_: Any) -> Any:
            return {"class": "KeyError", "said": "'rows'", "try": 1}

        def log(self, *_: Any) -> list[LogEvent]:
            return []

        def why_ended(self, run: Any, task: Any) -> str:
            return "Task did not emit heartbeat within time limit."

    run = {"dag_id": "d", "dag_run_id": "r"}
    task = {"task_id": "t", "operator": "Step", "try_number": 2, "map_index": -1}
    said = TaskLogs(cast(AirflowClient, Client())).error(run, task)
    assert said == ("Airflow ended the task: Task did not emit heartbeat within time limit.", "")


@pytest.mark.parametrize(
    ("variables", "artifacts", "outputs", "is_refused"),
    [
        ({"AIRFLOW_IS_K8S_EXECUTOR_POD": "True"}, None, STORED, True),
        ({"AIRFLOW_IS_K8S_EXECUTOR_POD": "True"}, None, {"rows": [1, 2]}, False),
        ({"AIRFLOW_IS_K8S_EXECUTOR_POD": "True"}, "/mnt/shared", STORED, False),
        ({"AIRFLOW_IS_K8S_EXECUTOR_POD": "True", "FLOWYML_ARTIFACTS": "s3://bucket"}, None, STORED, False),
        ({}, None, STORED, False),
    ],
)
def test_a_value_on_the_disk_of_a_pod_is_refused_with_its_cure(
    variables: dict[str, str], artifacts: str | None, outputs: dict[str, Any], is_refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("FLOWYML_ARTIFACTS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not is_refused:
        check_outlives_pod("train", outputs, artifacts)
        return
    with pytest.raises(StepFailedError, match=r"'train': output 'model' .* this pod.* FLOWYML_ARTIFACTS") as raised:
        check_outlives_pod("train", outputs, artifacts)
    assert raised.value.names == ("AirflowFailException",)  # it is not tried again
