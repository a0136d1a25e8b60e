"""Loops, branches and the like as tasks of Airflow. No Airflow here; ``test_conformance`` runs them on real ones."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from flowyml import Pipeline, either, elif_, for_each, otherwise, pipeline, step, when
from flowyml.plan.model import RUN_IF
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.names import Ids, task_id


@step
def numbers(count: int = 3) -> list[int]:
    return list(range(count))


@step
def double(n: Any) -> int:
    return 2 * int(n)


@step
def total(values: list[Any]) -> int:
    return sum(values)


@step
def same(value: Any = None) -> Any:
    return value


def tasks_of(made: Pipeline) -> dict[str, dict[str, Any]]:
    """The tasks of a compiled file, each with what it is called with: texts, and the source of the rest."""
    tree = ast.parse(compile_dag(made.bundle()).text)
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and any(word.arg == "task_id" for word in node.keywords):
            given = {word.arg: word.value for word in node.keywords if word.arg}
            shown = {
                name: value.value if isinstance(value, ast.Constant) else ast.unparse(value)
                for name, value in given.items()
            }
            found[str(shown["task_id"])] = {"": ast.unparse(node.func), **shown}
    return found


def edges_of(made: Pipeline) -> list[str]:
    """The lines that say what waits for what."""
    tree = ast.parse(compile_dag(made.bundle()).text)
    shown = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    return [line for line in shown if ">>" in line]


def rules_of(made: Pipeline) -> dict[str, str]:
    return {name: task.get("trigger_rule", "all_success") for name, task in tasks_of(made).items()}


def mapped_over(source: Any, **options: Any) -> Pipeline:
    @pipeline(name="mapped")
    def made() -> Any:
        return total(double.options(**options).map(n=source() if callable(source) else source))

    return made


@pytest.mark.parametrize(
    ("items", "labels"),
    [
        ([7, "text"], '["7", "text"]'),
        (["{{ 1/0 }}"], ""),
        ([], ""),
        (list(range(200)), ""),
        (["x" * 30, "y" * 30], ""),
    ],
)
def test_labels_of_a_short_constant_list_stand_in_the_file(items: list[Any], labels: str) -> None:
    """Others are listed by a task: Airflow would render a template, which an item is not; and files stay short."""
    compiled = compile_dag(mapped_over(items).bundle()).text
    assert f".expand(item={labels or 'double_items.output'})" in compiled
    assert "1/0" not in compiled


def branched() -> Pipeline:
    @pipeline(name="branched")
    def made(n: int = 5) -> Any:
        found = double(n)
        with when(found < 3, name="low"):
            low = same.options(name="a")(1)
        with elif_(found < 9, name="middle"):
            middle = same.options(name="b")(found)
            same.options(name="b2")(middle)
        with otherwise():
            high = same.options(name="c")(3)
        return same.options(name="joined")(either(low, middle, high))

    return made


def test_edges_of_a_second_choice_have_the_labels_of_the_first() -> None:
    @pipeline(name="twice")
    def made(n: int = 5) -> Any:
        for time in ("first", "second"):
            with when(double.options(name=time)(n) > 3, name=f"high {time}"):
                same.options(name=f"a {time}")(1)
            with otherwise():
                same.options(name=f"b {time}")(2)

    labels = [re.findall(r"Label\('(.*)'\)", edge) for edge in edges_of(made)]
    assert [label for found in labels for label in found] == ["high first", "otherwise", "high second", "otherwise"]


def ruled(rule: str, around: str) -> Pipeline:
    handler = step(name="handler", run_if=rule)(lambda value=None, other=None: value)

    @pipeline(name="ruled")
    def made() -> Any:
        one, other = double(1), double.options(name="other")(2)
        if around == "branch":
            with when(double.options(name="decides")(1) == 2):
                handler(one, other)
        elif around == "loop":
            with for_each([1, 2]) as n:
                handler(double.options(name="inside")(n), other)
        elif around == "list":
            handler(double.options(name="mapped").map(n=[1]), other)
        else:
            handler(one, other)

    return made


@pytest.mark.parametrize("rule", [rule for rule in RUN_IF if rule != "all_success"])
@pytest.mark.parametrize("around", ["branch", "loop", "list"])
def test_where_more_comes_before_it_the_worker_goes_by_the_rule(rule: str, around: str) -> None:
    """The task that chooses or lists would count as one that succeeded, and an item as a step."""
    made = ruled(rule, around)
    assert rules_of(made)["handler"] == "all_done"
    assert TaskGraph(made.compile()).is_checked(Task("step", "handler"))


def test_a_failure_wins_over_a_skip_that_came_first() -> None:
    @pipeline(name="skips")
    def made() -> Any:
        with when(double(1) == 3):
            double.options(name="skipped")(1)
        double.options(name="fails")(2)
        same.options(name="last", after=["skipped", "fails"])()

    assert rules_of(made)["last"] == "none_failed"


def test_a_join_in_a_loop_does_not_wait_for_all_items() -> None:
    """Airflow 3 makes no instance of a task with another rule until all that it waits for has ended for each item.

    Source: ``TriggerRuleDep``, its ``is_fast_triggered``.
    """

    @pipeline(name="joined in a loop")
    def made() -> Any:
        with for_each([1, 2]) as n:
            with when(double(n) > 2):
                one = same.options(name="one")(n)
            with otherwise():
                other = same.options(name="other")(n)
            same.options(name="joined")(either(one, other))

    assert rules_of(made)["joined"] == "none_failed"


def test_ids_are_never_the_same() -> None:
    @pipeline(name="ids")
    def made() -> Any:
        numbers.options(name="double_items")(2)
        same.options(name="watcher")(double.map(n=numbers()))
        same.options(name="settled")(1)

    plan = made.compile()
    ids = Ids(plan)
    helpers = [*ids.items.values(), *ids.groups.values(), ids.watcher, ids.settled]
    every = [*map(task_id, plan.by_name), *helpers]
    assert len(set(every)) == len(every)
    assert (ids.items["double"], ids.watcher) == ("double_items_2", "watcher_2")


def test_a_failure_that_reaches_a_last_task_needs_no_watcher() -> None:
    """Fifty steps before a choice: the choice does not run if one of them fails, nor do the last tasks after it."""

    @pipeline(name="chain")
    def made() -> None:
        found = double.options(name="step0")(1)
        for number in range(1, 50):
            found = double.options(name=f"step{number}")(found)
        with when(found > 3, name="high"):
            same.options(name="a")(found)
        with otherwise():
            same.options(name="b")(found)

    assert "watcher" not in tasks_of(made)


def test_a_watcher_waits_only_for_what_may_fail_unseen() -> None:
    handler = step(name="handler", run_if="all_done")(lambda value=None: value)

    @pipeline(name="hidden")
    def made() -> None:
        first = double.options(name="first")(1)
        with when(first > 3, name="high"):
            same.options(name="beside", after=["slow"])(1)
        double.options(name="slow")(double.options(name="before_slow")(1))
        handler(double.options(name="hides")(first))

    assert [edge for edge in edges_of(made) if edge.endswith("watcher")] == [
        "[hides, slow, handler, beside] >> watcher"
    ], "the choice may skip `beside` before `slow` fails"
