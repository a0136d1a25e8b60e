"""Steps that did not run say why, as on the other engines: from a DAG file's facts, and on a real Airflow 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from flowyml import Pipeline, elif_, for_each, pipeline, step, when
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.deployed_dag import facts_of
from flowyml_airflow.step_runs import with_causes
from tests.adapters.airflow.dags import Telling
from tests.adapters.airflow.operating import failed_group, orchestrator_of
from tests.engines.airflow import Airflow

FAILED, CANCELLED, COMPLETED = ExecutionStatus.FAILED, ExecutionStatus.CANCELLED, ExecutionStatus.COMPLETED
MARK = 'flowyml-turn {"step": "evaluate", "attempt": 7}'
SENTENCE = "Step 'evaluate', attempt 7 begins."


@step
def numbers() -> list[int]:
    return [1, 2]


@step
def half(n: int) -> float:
    return 1 / (n - 2)


@step
def third(half: float) -> float:
    return half / 3


@step
def total(values: list[float]) -> float:
    return sum(values)


@step
def report(total: float) -> float:
    return total


@pipeline(name="not run in loops")
def looped() -> Any:
    with for_each(numbers()) as n:
        made = third(half(n))
    return {"report": report(total(made))}


@pipeline(name="not run for a parameter")
def of_a_parameter(given: list[int]) -> Any:
    return {"total": total(half.map(n=given))}


@pipeline(name="not run from the start", hooks=[Telling()])
def hooked() -> Any:
    return {"report": report(total(half.map(n=numbers())))}


@pipeline(name="not run in branches")
def branched() -> Any:
    found = total([1.0])
    with when(found > 1, name="high"):
        report.options(name="one")(1.0)
    with elif_(found > 0):
        report.options(name="other")(2.0)


@pytest.mark.parametrize(
    ("made", "failed", "causes", "helpers"),
    [
        pytest.param(
            looped, {"half[1]": 1}, dict.fromkeys(("third[1]", "total", "report"), "step 'half[1]' ended FAILED"), [],
            id="a failed item keeps its own steps and what takes the list from running",
        ),
        pytest.param(
            looped, {"half[0]": 3, "half[1]": 2},
            {"third[0]": "step 'half[0]' ended FAILED",
             **dict.fromkeys(("third[1]", "total"), "step 'half[1]' ended FAILED")}, [],
            id="the first failure is named",
        ),
        pytest.param(
            looped, {"numbers": 1}, {"half": "step 'numbers' ended FAILED"}, ["half_items"],
            id="items that were never listed",
        ),
        pytest.param(
            looped, {"numbers": 0}, {"half": "step 'numbers' ended TIMEOUT"}, ["half_items"], id="a timeout",
        ),
        pytest.param(
            of_a_parameter, {"half_items": 1}, dict.fromkeys(("half", "total"), "task 'half_items' ended FAILED"), [],
            id="a list of a parameter that cannot be read",
        ),
        pytest.param(
            hooked, {"on_pipeline_start": 1},
            dict.fromkeys(("numbers", "half", "total", "report"), "task 'on_pipeline_start' ended FAILED"),
            ["half_items"], id="a start that failed",
        ),
        pytest.param(
            branched, {"choose_high": 1}, {"one": "task 'choose_high' ended FAILED"}, [],
            id="a choice that cannot be made",
        ),
    ],
)  # fmt: skip
def test_steps_that_did_not_run_say_why(
    made: Pipeline, failed: Mapping[str, int], causes: Mapping[str, str], helpers: Sequence[str]
) -> None:
    """``failed`` says on which day a task failed, or 0 of one that timed out. ``helpers`` did not run, either."""
    facts = facts_of(compile_dag(made.bundle()).text)
    tasks, steps = [], {}
    for label in (*failed, *causes, *helpers):
        task, _, item = label.removesuffix("]").partition("[")
        ended = datetime(2026, 1, failed.get(label) or 1, tzinfo=UTC)
        state = "failed" if label in failed else "upstream_failed"
        marker = (task, int(item or -1))
        tasks.append({"task_id": task, "map_index": marker[1], "state": state, "end_date": ended.isoformat()})
        if task in facts["steps"]:
            status = CANCELLED if label not in failed else FAILED if failed[label] else ExecutionStatus.TIMEOUT
            items = (int(item),) if item else ()
            steps[marker] = [StepRun(name=task, index=items, status=status, raw_status=state, ended_at=ended)]
    found = with_causes(steps, tasks, facts)
    said = {run.label: run.error for runs in found.values() for run in runs if run.raw_status == "upstream_failed"}
    assert said == {label: f"not run, since {cause}" for label, cause in causes.items()}


def test_what_was_deployed_by_an_earlier_release_has_no_notes() -> None:
    run = StepRun(name="b", status=CANCELLED, raw_status="upstream_failed")
    assert with_causes({("b", -1): [run]}, [{"task_id": "b", "state": "upstream_failed"}], {}) == {("b", -1): [run]}


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.beside
def test_a_run_whose_execution_group_failed(airflow3: Airflow) -> None:
    run = orchestrator_of(airflow3).run_pipeline(failed_group("not run", [MARK, SENTENCE]))
    assert run.wait_for_completion(timeout=2400, poll_interval=1).status is FAILED
    found = {each.name: (each.status, each.error) for each in run.step_runs()}
    why = "not run, since step 'train' ended FAILED"
    assert found == {
        "load": (COMPLETED, None), "train": (FAILED, "ZeroDivisionError: division by zero"),
        **dict.fromkeys(("evaluate", "publish", "announce"), (CANCELLED, why)),
    }  # fmt: skip
    lines = [(line.step, line.attempt, line.message) for line in run.logs() if "evaluate" in line.message]
    assert lines == [("load", 1, f" {MARK}"), ("load", 1, SENTENCE)]
