"""An execution group as one task, where no Airflow is needed for it; ``test_conformance`` runs one on real ones."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import Pipeline, pipeline, step
from flowyml.core.errors import StepCancelledError, StepFailedError, StepTimeoutError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml.runtime.decider import OK, End, Outcome
from flowyml.runtime.execution import AttemptOutputs
from flowyml_airflow import airflow_operator, worker
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.execution_groups import GroupRun
from flowyml_airflow.facts import TaskDecider
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.log_events import LogEvent
from flowyml_airflow.names import STEPS_KEY
from flowyml_airflow.pod_disks import check_outlives_pod
from flowyml_airflow.retrying import to_clear
from flowyml_airflow.step_runs import attributed, step_runs
from tests.adapters.airflow.task_instance import Ti

COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED
RUNNING, QUEUED, TIMEOUT = ExecutionStatus.RUNNING, ExecutionStatus.QUEUED, ExecutionStatus.TIMEOUT


def states_of(ti: Ti) -> list[dict[str, str]]:
    """What was written down of the steps, at each change."""
    written = [value["steps"] for key, value in ti.pushed if key == STEPS_KEY]
    return [{name: each["state"] for name, each in steps.items()} for steps in written]


@step(execution_group="g", retry=1)
def first() -> int:
    return 1


@step(execution_group="g")
def second(first: int) -> int:
    return first + 1


@step(execution_group="g")
def beside() -> int:
    return 5


@step
def after(second: int, beside: int) -> int:
    return second + beside


@pipeline
def three() -> Any:
    return after(second(first()), beside())


def group_of(call: Callable[..., Any], ti: Ti | None = None) -> GroupRun:
    flow = TaskGraph(three.compile())
    ti = ti or Ti()
    task = Task("together", "g")
    return GroupRun(flow, task, TaskDecider(flow, task, {"ti": ti}), ti, call, threading.Event())


def failing(*names: str) -> StepFailedError:
    error = StepFailedError("ValueError: no")
    error.names = names or ("ValueError",)
    return error


def test_what_does_not_need_a_step_that_failed_still_runs() -> None:
    def call(name: str, inputs: Mapping[str, Any], **options: Any) -> AttemptOutputs:
        if name == "first":
            raise failing()
        return AttemptOutputs({name: 1})

    group = group_of(call, ti := Ti(try_number=3))
    with pytest.raises(StepFailedError):
        group.run()
    assert group.failed.name == "first"
    assert states_of(ti)[-1] == {"first": "failed", "second": "upstream_failed", "beside": "success"}
    last = ti.pushed[-1][1]
    assert last["try"] == 3
    assert last["steps"]["first"] | {"began": 0, "ended": 0} == {
        "state": "failed", "attempt": 4, "began": 0, "ended": 0, "error": "ValueError: no", "late": False,
    }  # fmt: skip
    assert last["steps"]["second"]["error"] == "not run, since step 'first' ended FAILED"


def test_the_others_run_beside_a_step_whose_output_would_end_with_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    monkeypatch.delenv("FLOWYML_ARTIFACTS", raising=False)

    def call(name: str, inputs: Mapping[str, Any], **options: Any) -> AttemptOutputs:
        outputs = AttemptOutputs({name: {"$artifact": {"url": "file:///store/x"}} if name == "first" else 1})
        check_outlives_pod(name, outputs, None)
        return outputs

    group = group_of(call, ti := Ti())
    with pytest.raises(StepFailedError, match="a folder of this pod"):
        group.run()
    assert states_of(ti)[-1] == {"first": "failed", "second": "upstream_failed", "beside": "success"}


@pytest.mark.parametrize(("name", "state"), [("AirflowFailException", "failed"), ("AirflowSkipException", "skipped")])
def test_airflows_own_exceptions_are_not_tried_again(name: str, state: str) -> None:
    calls = []

    def call(step: str, inputs: Mapping[str, Any], **options: Any) -> AttemptOutputs:
        calls.append(step)
        if step == "first":
            raise failing(name)
        return AttemptOutputs({step: 1})

    group = group_of(call, ti := Ti())
    with pytest.raises(StepFailedError):
        group.run()
    assert calls == ["first", "beside"]
    assert states_of(ti)[-1] == {
        "first": state, "second": "skipped" if state == "skipped" else "upstream_failed", "beside": "success",
    }  # fmt: skip


def test_a_group_that_is_stopped_leaves_the_step_that_was_at_work() -> None:
    def call(name: str, inputs: Mapping[str, Any], **options: Any) -> AttemptOutputs:
        raise StepCancelledError("stopped")

    group = group_of(call, ti := Ti())
    with pytest.raises(StepCancelledError):
        group.run()
    assert states_of(ti) == [{"first": "running"}]

    def late(name: str, inputs: Mapping[str, Any], **options: Any) -> AttemptOutputs:
        group.stop.set()
        raise StepTimeoutError("too long")

    group = group_of(late, ti := Ti())
    with pytest.raises(StepCancelledError, match="while it waited to be tried again"):
        group.run()
    assert states_of(ti)[-1] == {"first": "up_for_retry"}


def said(state: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"state": state, "attempt": attempt, "began": "2026-01-01T00:00:00+00:00", **more}


def ended(state: str, error: str | None = None) -> StepRun:
    """The task of a group as a whole, in its second try."""
    status = {"late": TIMEOUT, "failed": FAILED, "stopped": CANCELLED, "running": RUNNING, "success": COMPLETED}[state]
    raw = "failed" if status in (TIMEOUT, CANCELLED) else state
    return StepRun(name="g", status=status, raw_status=raw, attempt=2, error=error)


GONE_ON = {"a": said("success"), "b": said("running", 3)}
TWO_FAILED = {"a": said("failed", error="E", late=True), "b": said("upstream_failed", 0), "c": said("success")}
AT_WORK = {"a": said("success"), "b": said("up_for_retry", error="E")}
DONE = (COMPLETED, "success", 1, None)


def not_run(step: str, state: str) -> tuple[Any, ...]:
    return (CANCELLED, "upstream_failed", 0, f"not run, since step '{step}' ended {state}")


@pytest.mark.parametrize(
    ("whole", "written", "tries", "expected"),
    [
        pytest.param(
            ended("failed", "killed"), GONE_ON, 2, (DONE, (FAILED, "failed", 3, "killed"), not_run("b", "FAILED")),
            id="its process was killed",
        ),
        pytest.param(
            ended("stopped"), GONE_ON, 2, (DONE, (CANCELLED, "failed", 3, None), (CANCELLED, "failed", 0, None)),
            id="it was cancelled",
        ),
        pytest.param(
            ended("late", "late"), GONE_ON, 2, (DONE, (TIMEOUT, "failed", 3, "late"), not_run("b", "TIMEOUT")),
            id="Airflow's own limit ends the step at work only",
        ),
        pytest.param(
            ended("late", "late"), {}, 2, ((TIMEOUT, "failed", 2, "late"), *[not_run("a", "TIMEOUT")] * 2),
            id="before anything was written",
        ),
        pytest.param(
            ended("failed", "killed"), {"a": said("success")}, 1,
            ((FAILED, "failed", 2, "killed"), *[not_run("a", "FAILED")] * 2), id="what an earlier try left is no more",
        ),
    ],
)  # fmt: skip
def test_what_a_task_tells_of_its_steps(whole: StepRun, written: Any, tries: int, expected: Sequence[Any]) -> None:
    assert [*read(whole, written, tries)] == [*expected]


def test_steps_that_failed_or_are_at_work_and_those_of_a_task_that_was_marked_by_hand() -> None:
    found = read(ended("failed", "killed"), TWO_FAILED)
    assert [(status, error) for status, _, _, error in found] == [(TIMEOUT, "E"), (CANCELLED, None), (COMPLETED, None)]
    assert [status for status, *_ in read(ended("running"), AT_WORK)] == [COMPLETED, RUNNING, QUEUED]
    assert [status for status, *_ in read(ended("success"), {})] == [COMPLETED] * 3


def read(whole: StepRun, written: Mapping[str, Any], tries: int = 2) -> list[tuple[Any, ...]]:
    runs = step_runs(["a", "b", "c"], whole, {"try_number": 2}, {"try": tries, "steps": written})
    return [(run.status, run.raw_status, run.attempt, run.error) for run in runs]


def turn(step: str, attempt: int) -> str:
    return f'flowyml-turn {{"step": "{step}", "attempt": {attempt}}}'


def test_each_line_of_the_log_is_of_a_step_as_marks_alone_say() -> None:
    half = 'flowyml-turn {"step": "a", "att'
    lines = [
        "loading", turn("a", 1), "one", turn("a", 2), "two", turn("b", 1), "three", turn("nobody", 1),
        "Step 'a', attempt 1 begins.", turn("a", 2), "E", half,
    ]  # fmt: skip
    found = [(each.step, each.attempt, each.message) for each in attributed(list(map(LogEvent, lines)), ["a", "b"], 1)]
    assert found == [
        ("a", 1, "loading"), ("a", 1, "one"), ("a", 2, "two"), ("b", 1, "three"), ("b", 1, turn("nobody", 1)),
        ("b", 1, "Step 'a', attempt 1 begins."), ("a", 2, "E"), ("a", 2, half),
    ]  # fmt: skip


def test_steps_share_a_process_and_no_line_is_taken_for_the_turn_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By a worker's function, with real processes, and in a second attempt too."""
    tried, shapes = tmp_path / "tried", [turn("last", 7), "Step 'last', attempt 7 begins."]

    @step(execution_group="shapes", retry=1)
    def talk() -> int:
        import os

        for line in shapes:
            print(line)
        if not tried.exists():
            tried.touch()
            raise ValueError(shapes[0])
        return os.getpid()

    @step(execution_group="shapes")
    def last(talk: int) -> bool:
        import os

        print("done")
        return talk == os.getpid()

    dag = compile_dag(Pipeline("shapes").add_step(talk).add_step(last).bundle())
    bundle = tmp_path / dag.bundle.filename
    bundle.write_bytes(dag.bundle.data)
    context = {"run_id": "r", "dag_run": SimpleNamespace(dag_id="shapes", conf={}), "ti": (ti := Ti())}
    operator = SimpleNamespace(steps=["talk", "last"], inputs={})
    caplog.set_level("INFO", "airflow.task")
    worker.run_together(operator, context, lambda: bundle, sys.executable, str(tmp_path / "store"))
    assert dict(ti.pushed)["last.last"] is True
    events = [LogEvent(record.getMessage()) for record in caplog.records]
    found = [(each.step, each.attempt, each.message) for each in attributed(events, ["talk", "last"], 1)]
    said = [each for each in found if "Traceback" not in each[2] and "tried again" not in each[2]]
    printed = [f" {shapes[0]}", shapes[1]]
    assert said == [*(("talk", attempt, line) for attempt in (1, 2) for line in printed), ("last", 1, "done")]
    assert [each[:2] for each in found if "Traceback" in each[2]] == [("talk", 1)]


def test_a_named_step_of_a_group_runs_again_with_the_group() -> None:
    tasks = [{"task_id": "g", "map_index": index, "state": "failed"} for index in (0, 1)]
    facts = {"together": {"g": ["left", "right"]}}
    assert to_clear(tasks, {}, facts, steps=["right[1]"], was_stopped=False) == {("g", 1)}
    assert to_clear(tasks, {}, facts, steps=["left"], was_stopped=False) == {("g", 0), ("g", 1)}


def test_a_group_is_a_task_with_an_id_of_its_own() -> None:
    @step(name="g")
    def named_as_the_group(second: int) -> int:
        return second

    @pipeline(name="same names")
    def made() -> Any:
        return named_as_the_group(second(first()))

    flow = TaskGraph(made.compile())
    group = flow.steps["first"]
    assert flow.steps["second"] == group == Task("together", "g")
    assert flow.id(group) != flow.id(flow.steps["g"]) == "g"
    assert flow.upstream(flow.steps["g"]) == [group]
    assert [task.kind for task in flow.tasks] == ["together", "step"]


def test_a_step_may_have_completed_in_a_task_that_failed() -> None:
    flow = TaskGraph(three.compile())
    written = {"try": 1, "steps": {"first": said("failed"), "beside": said("success")}}
    ti = Ti({"g": "failed"}, {("g", STEPS_KEY, -1): written})
    seen = TaskDecider(flow, flow.steps["after"], {"ti": ti})
    ends = {source.step: seen.end(source, "", ()) for source in flow.outputs(flow.steps["after"])}
    assert ends == {"second": Outcome(End.FAILED), "beside": OK}


def test_operators_of_airflows_own_are_beside_groups() -> None:
    fetch = airflow_operator("airflow.operators.bash.BashOperator", task_id="fetch", bash_command="true")
    with pytest.raises(UnsupportedFeatureError, match="'fetch' is an Airflow operator, which needs its own task"):
        compile_dag(Pipeline("inside").add_step(fetch.options(execution_group="g")).bundle())

    @pipeline(name="behind")
    def behind() -> Any:
        return {"done": fetch(env=second(first()))}

    with pytest.raises(UnsupportedFeatureError, match="an output of execution_group='g'"):
        compile_dag(behind.bundle())
