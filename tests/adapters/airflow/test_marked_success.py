"""A task that a person marks as success leaves no output: what takes one fails and says so.

No list of a loop silently lacks an item. The items of a loop are marked on both Airflows; what their tasks take of one
another goes by the same code on both, and runs on Airflow 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pytest

from flowyml import otherwise, pipeline, step, when
from flowyml.core.errors import OutputNotKeptError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml.core.submission_result import SubmissionResult
from flowyml_airflow.graph import TaskGraph
from flowyml_airflow.names import task_id
from tests.adapters.airflow.operating import orchestrator_of
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
FAILED, COMPLETED = ExecutionStatus.FAILED, ExecutionStatus.COMPLETED
TRIES = {"high": 1, "low": 1, "outer": 1, "grouped": 1}
"""What takes something of a marked task, and its tries when it has run."""


def mark(airflow: Airflow, handle: SubmissionResult, task: str, index: int = -1, *, state: str = "success") -> None:
    """As a person does on Airflow's page, which also clears what failed for a task that becomes a success."""
    client = orchestrator_of(airflow).client
    dag, run = handle.job_id.split("/")
    path = f"{client.api}/dags/{dag}/dagRuns/{quote(run, safe='')}/taskInstances/{task}"
    body = {"new_state": state, **({"dry_run": False} if airflow.major == 2 else {})}
    client.transport.call("PATCH", path if index < 0 else f"{path}/{index}", json=body)


def mark_until_run(
    airflow: Airflow, handle: SubmissionResult, marked: Sequence[tuple[str, int]], tries: Mapping[str, int]
) -> dict[str, StepRun]:
    """Mark tasks, wait until the steps of ``tries`` have ended after so many tries; return the steps by their labels.

    Airflow's scheduler may have read the states before, and then write over what marking cleared: those are retried.
    """
    for task, index in marked:
        mark(airflow, handle, task, index)

    def ended() -> dict[str, StepRun] | None:
        if handle.status is not FAILED:
            return None
        runs = {run.label: run for run in handle.step_runs()}
        waiting = [name for name, number in tries.items() if runs[name].attempt < number]
        if waiting:
            handle.retry(waiting)
        return None if waiting else runs

    return wait_until(ended)


@pytest.mark.beside
def test_what_takes_the_list_of_a_loop_names_the_items_without_an_output(airflow: Airflow) -> None:
    @step(retry=2)
    def half(n: int) -> float:
        if n % 2:
            raise ValueError(f"{n} is odd")
        return n / 2

    @step(retry=2)
    def total(halves: list[float]) -> str:
        return repr(halves)

    @pipeline(name="items marked")
    def made(numbers: list[int]) -> Any:
        return total(half.map(n=numbers))

    handle = made.submit({"numbers": [2, 3, 4, 5]}, on=orchestrator_of(airflow))
    assert handle.wait_for_completion(2400, progress=False).status is FAILED
    runs = mark_until_run(airflow, handle, [("half", 1), ("half", 3)], {"total": 1})
    assert {label: run.status for label, run in runs.items()} == {
        **{f"half[{index}]": COMPLETED for index in range(4)}, "total": FAILED,
    }  # fmt: skip
    assert runs["total"].attempt == 1, "another try would find no output either"
    assert (handle.error or "").startswith("step 'total': Airflow has no output of 'half[1]', 'half[3]'. A task")


@pytest.mark.beside
def test_the_output_of_a_loop_with_an_item_that_was_marked_as_failed_is_missing(airflow3: Airflow) -> None:
    """Marking an item of a completed run changes neither the run's state nor what the other steps took."""

    @step
    def double(n: int) -> int:
        return 2 * n

    @step
    def total(doubles: list[int]) -> int:
        return sum(doubles)

    @pipeline(name="item failed")
    def made() -> Any:
        doubles = double.map(n=[1, 2, 3])
        return {"doubles": doubles, "total": total(doubles)}

    handle = made.submit(on=orchestrator_of(airflow3))
    assert handle.wait_for_completion(2400, progress=False).outputs == {"doubles": [2, 4, 6], "total": 12}
    mark(airflow3, handle, "double", 1, state="failed")
    assert handle.status is COMPLETED, "as Airflow has it"
    assert handle.outputs["total"] == 12
    with pytest.raises(OutputNotKeptError, match=r"lacks 'double\[1\]', whose state in Airflow is 'failed'"):
        handle.outputs["doubles"]


@pytest.mark.beside
def test_what_takes_a_branch_a_list_of_items_or_a_value_of_a_marked_task_fails(airflow3: Airflow) -> None:
    @step
    def broken() -> Any:
        raise ValueError("broken")

    @step(retry=2)
    def quiet() -> str:
        return "done"

    @step(retry=2)
    def take(value: Any) -> str:
        return f"got {value}"

    @step(execution_group="group", retry=2)
    def grouped(value: Any) -> str:
        return f"got {value}"

    @step(execution_group="group")
    def after_it(grouped: str) -> str:
        return grouped

    @step
    def total(values: list[Any]) -> int:
        return len(values)

    @pipeline(name="inner")
    def inner() -> Any:
        return broken.options(name="inside")()

    @pipeline(name="others marked")
    def made() -> Any:
        number = broken.options(name="number")()
        with when(number > 1, name="is_high"):
            quiet.options(name="high")()
        with otherwise(name="is_low"):
            quiet.options(name="low")()
        called = inner()
        tolerant = take.options(name="tolerant", on_item_error="continue").map(value=broken.options(name="listed")())
        return {
            "outer": take.options(name="outer")(called),
            "after": after_it(grouped(called)),
            "total": total(tolerant),
        }  # fmt: skip

    handle = made.submit(on=orchestrator_of(airflow3))
    assert handle.wait_for_completion(2400, progress=False).status is FAILED
    ids = TaskGraph(made.compile()).ids
    marked = [(task, -1) for task in (ids.choices["is_high"], task_id("inner.inside"), ids.items["tolerant"])]
    runs = mark_until_run(airflow3, handle, marked, {**TRIES, "total": 2})  # the last one ran before that, too
    assert {name: runs[name].status for name in TRIES} == dict.fromkeys(TRIES, FAILED)
    assert {name: runs[name].attempt for name in TRIES} == TRIES, "another try would find no output either"
    assert runs["total"].status in (FAILED, ExecutionStatus.CANCELLED), "no list is not an empty one"
    inside = "Airflow has no output of 'inner.inside'. A task that was marked as success"
    assert inside in (runs["outer"].error or "")
    assert inside in (runs["grouped"].error or "")
    choice = f"Airflow has no output of '{ids.choices['is_high']}'. A task that was marked"
    assert choice in (runs["high"].error or "")
    assert choice in (runs["low"].error or "")


@pytest.mark.beside
def test_a_loop_whose_list_is_gone_names_the_task_that_makes_it(airflow3: Airflow) -> None:
    @step
    def numbers() -> list[int]:
        raise ValueError("broken")

    @step
    def half(n: int) -> float:
        return n / 2

    @step
    def total(halves: list[float]) -> float:
        return sum(halves)

    @pipeline(name="list marked")
    def made() -> Any:
        return total(half.map(n=numbers()))

    handle = made.submit(on=orchestrator_of(airflow3))
    assert handle.wait_for_completion(2400, progress=False).status is FAILED
    items = TaskGraph(made.compile()).ids.items["half"]
    for task in (items, "numbers"):  # in this order, so that the list is never made
        mark(airflow3, handle, task)
    gone = f"Airflow has no output of '{items}'. A task that was marked as success"
    wait_until(lambda: handle.status is FAILED and (handle.error or "").startswith(f"step 'half': {gone}"))
    said = {run.label: run.error or "" for run in handle.step_runs()}
    assert said.pop("numbers") == ""
    assert [(label, error.startswith(f"not run, since {gone}")) for label, error in said.items()] == [
        ("half", True), ("total", True),
    ]  # fmt: skip
