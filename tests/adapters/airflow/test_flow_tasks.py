"""Loops and branches on Airflow: what a task finds when it runs. No Airflow here."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flowyml import Pipeline, for_each, pipeline
from flowyml.core.errors import StepError
from flowyml.plan.model import FromItem, FromStep, Source
from flowyml.runtime.decider import End, Gathered
from flowyml_airflow.facts import TaskDecider
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.names import RETURNED
from tests.adapters.airflow.task_instance import Ti
from tests.adapters.airflow.test_flow import double, mapped_over, numbers, same


def asked(made: Pipeline, ti: Ti, step: str) -> TaskDecider:
    return TaskDecider(TaskGraph(made.compile()), Task("step", step), {"ti": ti})


def end_of(decider: TaskDecider, source: Source) -> End | None:
    outcome = decider.end(source, "", ())
    return outcome.end if outcome else None


def decided(made: Pipeline, ti: Ti, step: str) -> End | None:
    decider = asked(made, ti, step)
    outcome = decider.decide(decider.plan.by_name[step], decider.index)
    return outcome.end if outcome else None


LISTED = {"numbers": "success", "double_items": "success"}


@pytest.mark.parametrize(
    ("states", "items", "end", "values"),
    [
        ({"double_0": "success", "double_1": "success"}, ["0", "1"], End.OK, [0, 2]),
        ({"double_0": "success", "double_1": "skipped"}, ["0", "1"], End.OK, [0]),
        ({"double_0": "skipped", "double_1": "skipped"}, ["0", "1"], End.SKIPPED, None),
        ({"double_0": "success", "double_1": "failed"}, ["0", "1"], End.FAILED, None),
        ({"double_0": "success", "double_1": "running"}, ["0", "1"], None, None),
        ({"double_0": "success", "double_1": "removed"}, ["0"], End.OK, [0]),  # cleared, and the list is shorter
        ({"double": "removed"}, ["0"], End.FAILED, None),
        ({"double": "skipped"}, [], End.OK, []),
        ({"double": "skipped", "double_items": "skipped"}, None, End.SKIPPED, None),
        ({"double": "upstream_failed"}, ["0"], End.FAILED, None),
    ],
)
def test_a_list_is_collected_as_everywhere(states: Any, items: Any, end: End | None, values: Any) -> None:
    done = {key: 2 * int(key[-1]) for key, state in states.items() if state == "success" and key.startswith("double_")}
    xcoms = {("double", RETURNED, int(key[-1])): value for key, value in done.items() if key != "double_items"}
    ti = Ti({**LISTED, **states}, {**xcoms, ("double_items", RETURNED, -1): items})
    found = asked(mapped_over(numbers), ti, "total")
    assert end_of(found, FromStep("double", "double")) is end
    if values is not None:
        assert found.value(FromStep("double", "double"), "", ()) == Gathered(values)


def test_the_output_of_an_item_that_failed_is_not_taken_in_place_of_one_that_is_missing() -> None:
    states = {"double_0": "success", "double_1": "failed", "double_2": "success"}
    left_before_it_failed = {("double", RETURNED, 1): 16}
    found = asked(mapped_over([7, 8, 9], on_item_error="continue"), Ti(states, left_before_it_failed), "total")
    with pytest.raises(StepError, match=re.escape("Airflow has no output of 'double[0]', 'double[2]'. A task")):
        found.value(FromStep("double", "double"), "", ())


def test_a_task_of_an_item_reads_no_other_items() -> None:
    """There may be 10,000, and each of their tasks would read all others."""

    @pipeline(name="items")
    def made() -> Any:
        with for_each(numbers()) as n:
            same(double(n))

    ti = Ti({**LISTED, **{f"double_{index}": "success" for index in range(50)}}, map_index=7)
    assert decided(made, ti, "same") is End.OK
    assert ti.read == [1]


def test_an_item_is_taken_by_its_index() -> None:
    item = FromItem("double", "n")
    whole = {("numbers", RETURNED, -1): {"$json": "[5, 6]"}}
    assert asked(mapped_over(numbers), Ti(LISTED, whole, 1), "double").value(item, "double", (1,)) == 6
    apart = {
        ("numbers", RETURNED, -1): {"$artifact": {"url": "file:///x"}},
        ("double_items", "n.1", -1): "the second",
    }
    assert asked(mapped_over(numbers), Ti(LISTED, apart, 1), "double").value(item, "double", (1,)) == "the second"
