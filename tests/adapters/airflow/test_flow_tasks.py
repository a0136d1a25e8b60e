"""Loops and branches on Airflow: what a task finds when it runs. No Airflow here."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flowyml import Pipeline, either, elif_, for_each, pipeline, when
from flowyml.core.errors import StepError
from flowyml.plan.model import FromItem, FromStep, Source
from flowyml.runtime.decider import End, Gathered
from flowyml_airflow.facts import TAKEN, TaskDecider
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.task_exceptions import no_output
from tests.adapters.airflow.task_instance import Ti
from tests.adapters.airflow.test_flow import branched, double, mapped_over, numbers, rules_of, same


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
    xcoms = {("double", "double", int(key[-1])): value for key, value in done.items() if key != "double_items"}
    ti = Ti({**LISTED, **states}, {**xcoms, ("double_items", "return_value", -1): items})
    found = asked(mapped_over(numbers), ti, "total")
    assert end_of(found, FromStep("double", "double")) is end
    if values is not None:
        assert found.value(FromStep("double", "double"), "", ()) == Gathered(values)


def test_items_that_succeeded_come_with_their_indexes() -> None:
    made = mapped_over([7, 8, 9], on_item_error="continue")
    ti = Ti(
        {"double_0": "success", "double_1": "failed", "double_2": "success"},
        {("double", "double", 0): 14, ("double", "double", 2): 18},
    )
    assert asked(made, ti, "total").value(FromStep("double", "double"), "", ()) == Gathered([14, 18], [0, 2])


@pytest.mark.parametrize(
    ("left", "named"),
    [
        ({0: 14, 1: 16}, "'double[2]'. A task that was marked as success by hand leaves none, nor does one that did"),
        ({1: 16}, "'double[0]', 'double[2]'. A task"),  # one that failed after it had left its output
    ],
)
def test_an_item_that_completed_without_an_output_is_named(left: dict[int, int], named: str) -> None:
    """And the output of an item that failed is not taken in its place."""
    states = {"double_0": "success", "double_1": "failed", "double_2": "success"}
    ti = Ti(states, {("double", "double", index): value for index, value in left.items()})
    found = asked(mapped_over([7, 8, 9], on_item_error="continue"), ti, "total")
    with pytest.raises(StepError, match=re.escape(f"Airflow has no output of {named}")):
        found.value(FromStep("double", "double"), "", ())


def test_of_many_items_without_an_output_the_error_names_a_few() -> None:
    error = no_output("double", range(9))
    assert "'double[4]' and 4 more. A task" in str(error)
    assert "Clear them" in str(error)


@pytest.mark.parametrize("on_item_error", ["fail", "continue"])
def test_a_list_of_items_that_was_not_made_is_no_empty_list(on_item_error: str) -> None:
    """A person marked the task that lists the items as success, so Airflow maps nothing."""
    ti = Ti({**LISTED, "double": "upstream_failed"})
    found = asked(mapped_over(numbers, on_item_error=on_item_error), ti, "total")
    assert end_of(found, FromStep("double", "double")) is End.FAILED


def test_an_item_of_a_list_that_was_not_made_is_missing() -> None:
    apart = {("numbers", "numbers", -1): {"$artifact": {"url": "file:///x"}}}
    with pytest.raises(StepError, match="Airflow has no output of 'double_items'"):
        asked(mapped_over(numbers), Ti(LISTED, apart, 1), "double").value(FromItem("double", "n"), "double", (1,))


def test_none_is_a_value() -> None:
    ti = Ti({"double_0": "success"}, {("double", "double", 0): {"$json": "null"}})
    assert asked(mapped_over([7]), ti, "total").value(FromStep("double", "double"), "", ()) == Gathered([None])


def test_a_choice_that_chose_nothing_is_missing() -> None:
    with pytest.raises(StepError, match="Airflow has no output of 'choose_low'"):
        decided(branched(), Ti({"choose_low": "success"}), "a")


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
    whole = {("numbers", "numbers", -1): {"$json": "[5, 6]"}}
    assert asked(mapped_over(numbers), Ti(LISTED, whole, 1), "double").value(item, "double", (1,)) == 6
    apart = {
        ("numbers", "numbers", -1): {"$artifact": {"url": "file:///x"}},
        ("double_items", "n.1", -1): "the second",
    }
    assert asked(mapped_over(numbers), Ti(LISTED, apart, 1), "double").value(item, "double", (1,)) == "the second"


@pytest.mark.parametrize(
    ("choice", "taken", "end"),
    [("success", "low", End.OK), ("success", "otherwise", End.SKIPPED), ("skipped", None, End.SKIPPED),
     ("failed", None, End.FAILED), ("running", None, None)],
)  # fmt: skip
def test_a_step_runs_if_its_branch_is_taken(choice: str, taken: str | None, end: End | None) -> None:
    ti = Ti({"choose_low": choice}, {("choose_low", TAKEN, -1): taken})
    assert decided(branched(), ti, "a") is end


def partly_known(first: str = "") -> Pipeline:
    """The condition of the second branch needs what that of the first does not."""

    @pipeline(name="partly known")
    def made(go: bool = True) -> Any:
        one, other = double(1), double.options(name="other")(2)
        conditions = {"": one == 2, "parameter": go, "both": (one == 2) & (other == 4)}
        with when(conditions[first], name="low"):
            a = same.options(name="a")(1)
        with elif_(other > 3, name="high"):
            b = same.options(name="b")(2)
        same.options(name="joined")(either(a, b))

    return made


@pytest.mark.parametrize(("first", "rule"), [("", "all_done"), ("parameter", "all_done"), ("both", "none_failed")])
def test_a_choice_is_made_though_something_failed_that_it_may_not_need(first: str, rule: str) -> None:
    made = partly_known(first)
    assert rules_of(made)["choose_low"] == rule
