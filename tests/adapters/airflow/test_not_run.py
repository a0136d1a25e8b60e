"""Steps that did not run say why, as on the other engines: from a DAG file's facts, and on a real Airflow 3."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from flowyml import Pipeline, elif_, for_each, pipeline, step, when
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.deployed_dag import facts_of
from flowyml_airflow.not_run import with_causes
from flowyml_airflow.step_runs import Marker
from tests.adapters.airflow.dags import Telling
from tests.adapters.airflow.operating import failed_group, orchestrator_of
from tests.engines.airflow import Airflow

FAILED, CANCELLED, COMPLETED = ExecutionStatus.FAILED, ExecutionStatus.CANCELLED, ExecutionStatus.COMPLETED
TIMEOUT = ExecutionStatus.TIMEOUT
KNOWN = {"failed": FAILED, "upstream_failed": CANCELLED, "success": COMPLETED}
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


def explained(
    made: Pipeline, states: Mapping[Marker, str], ended: Mapping[Marker, int] = {}, *, late: Collection[Marker] = ()
) -> dict[str, str | None]:
    """What the steps of a run say that did not run.

    ``states`` are those of its tasks, ``ended`` the day on which a task failed, and ``late`` the tasks that timed out.
    """
    facts = facts_of(compile_dag(made.bundle()).text)
    tasks, steps = [], {}
    for marker, state in states.items():
        when = datetime(2026, 1, ended.get(marker, 1), tzinfo=UTC)
        task, index = marker
        tasks.append({"task_id": task, "map_index": index, "state": state, "end_date": when.isoformat()})
        if task in facts["steps"]:
            items = (index,) if index >= 0 else ()
            status = TIMEOUT if marker in late else KNOWN[state]
            steps[marker] = [StepRun(name=task, index=items, status=status, raw_status=state, ended_at=when)]
    found = with_causes(steps, tasks, facts)
    return {run.label: run.error for runs in found.values() for run in runs if run.raw_status == "upstream_failed"}


def test_a_failed_item_keeps_its_own_steps_and_what_takes_the_list_from_running() -> None:
    states = {
        ("numbers", -1): "success", ("half", 0): "success", ("half", 1): "failed", ("third", 0): "success",
        ("third", 1): "upstream_failed", ("total", -1): "upstream_failed", ("report", -1): "upstream_failed",
    }  # fmt: skip
    assert explained(looped, states) == dict.fromkeys(
        ("third[1]", "total", "report"), "not run, since step 'half[1]' ended FAILED"
    )


def test_the_first_failure_is_named() -> None:
    states = {("half", 0): "failed", ("half", 1): "failed", ("total", -1): "upstream_failed"}
    states |= {("third", 0): "upstream_failed", ("third", 1): "upstream_failed"}
    found = explained(looped, states, {("half", 0): 3, ("half", 1): 2})
    assert found["total"] == "not run, since step 'half[1]' ended FAILED"
    assert found["third[0]"] == "not run, since step 'half[0]' ended FAILED"


def test_steps_of_items_that_were_never_listed() -> None:
    states = {("numbers", -1): "failed", ("half_items", -1): "upstream_failed", ("half", -1): "upstream_failed"}
    assert explained(looped, states) == {"half": "not run, since step 'numbers' ended FAILED"}


def test_a_step_that_timed_out_is_a_cause() -> None:
    states = {("numbers", -1): "failed", ("half_items", -1): "upstream_failed", ("half", -1): "upstream_failed"}
    found = explained(looped, states, late=[("numbers", -1)])
    assert found == {"half": "not run, since step 'numbers' ended TIMEOUT"}


def test_a_list_of_a_parameter_that_cannot_be_read() -> None:
    @pipeline(name="not run for a parameter")
    def made(given: list[int]) -> Any:
        return {"total": total(half.map(n=given))}

    states = {("half_items", -1): "failed", ("half", -1): "upstream_failed", ("total", -1): "upstream_failed"}
    why = "not run, since task 'half_items' ended FAILED"
    assert explained(made, states) == {"half": why, "total": why}


def test_a_start_that_failed_keeps_every_step_from_running() -> None:
    @pipeline(name="not run from the start", hooks=[Telling()])
    def made() -> Any:
        return {"report": report(total(half.map(n=numbers())))}

    waiting = ("numbers", "half_items", "half", "total", "report")
    states = {("on_pipeline_start", -1): "failed", **{(task, -1): "upstream_failed" for task in waiting}}
    steps = ("numbers", "half", "total", "report")
    assert explained(made, states) == dict.fromkeys(steps, "not run, since task 'on_pipeline_start' ended FAILED")


def test_a_choice_that_cannot_be_made() -> None:
    @pipeline(name="not run in branches")
    def branched() -> Any:
        found = total([1.0])
        with when(found > 1):
            report.options(name="one")(1.0)
        with elif_(found > 0):
            report.options(name="other")(2.0)

    choice = facts_of(compile_dag(branched.bundle()).text)["helpers"][0]
    states = {("total", -1): "success", (choice, -1): "failed", ("one", -1): "upstream_failed"}
    assert explained(branched, states) == {"one": f"not run, since task {choice!r} ended FAILED"}


def test_what_was_deployed_by_an_earlier_release_has_no_notes() -> None:
    run = StepRun(name="b", status=CANCELLED, raw_status="upstream_failed")
    assert with_causes({("b", -1): [run]}, [{"task_id": "b", "state": "upstream_failed"}], {}) == {("b", -1): [run]}


@pytest.mark.airflow
@pytest.mark.slow
def test_a_run_whose_execution_group_failed(airflow3: Airflow) -> None:
    run = orchestrator_of(airflow3).run_pipeline(failed_group("not run", [MARK, SENTENCE]))
    assert run.wait_for_completion(timeout=400, poll_interval=0.5).status is FAILED
    found = {each.name: (each.status, each.error) for each in run.step_runs()}
    why = "not run, since step 'train' ended FAILED"
    assert found == {
        "load": (COMPLETED, None), "train": (FAILED, "ZeroDivisionError: division by zero"),
        **dict.fromkeys(("evaluate", "publish", "announce"), (CANCELLED, why)),
    }  # fmt: skip
    lines = [(line.step, line.attempt, line.message) for line in run.logs() if "evaluate" in line.message]
    assert lines == [("load", 1, f" {MARK}"), ("load", 1, SENTENCE)]
