"""Loops, branches and the like as tasks of Airflow. No Airflow here; ``test_conformance`` runs them on real ones."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import pytest

from flowyml import Pipeline, cleanup, either, elif_, for_each, otherwise, pipeline, step, when
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.runs import Outputs
from flowyml.plan.model import RUN_IF, FromItem, FromStep
from flowyml.runtime.nodes import End
from flowyml_airflow.client import NotThereError
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.deployed import facts_of
from flowyml_airflow.flow import Flow, Task
from flowyml_airflow.flow_reading import Seen, part_name
from flowyml_airflow.names import Ids, task_id
from flowyml_airflow.reading import RunReader
from flowyml_airflow.upstream import TAKEN, Upstream


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


def test_a_map_is_a_mapped_task_with_labels() -> None:
    made = mapped_over(numbers, max_parallel=4)
    tasks = tasks_of(made)
    assert tasks["double"][""] == "ItemStep.partial"
    assert tasks["double"]["map_index_template"] == "{{ task.item }}"
    assert tasks["double"]["max_active_tis_per_dagrun"] == 4
    assert tasks["double_items"][""] == "Items"
    assert ".expand(item=double_items.output)" in compile_dag(made.bundle()).text
    assert tasks["total"]["trigger_rule"] == "none_failed", "an empty list is a skipped task"


def test_labels_of_a_short_constant_list_stand_in_the_file() -> None:
    assert '.expand(item=["7", "text"])' in compile_dag(mapped_over([7, "text"]).bundle()).text


@pytest.mark.parametrize("items", [["{{ 1/0 }}"], [], list(range(200)), ["x" * 30, "y" * 30]])
def test_others_are_listed_by_a_task(items: list[Any]) -> None:
    """Airflow would render a template, which an item is not; and files stay short."""
    compiled = compile_dag(mapped_over(items).bundle()).text
    assert ".expand(item=double_items.output)" in compiled
    assert "1/0" not in compiled


def test_a_loop_of_several_steps_is_a_mapped_task_group() -> None:
    @pipeline(name="block")
    def made() -> Any:
        with for_each([1, 2], name="rows", max_parallel=2) as n:
            last = same(double(n))
        return total(last)

    compiled = compile_dag(made.bundle()).text
    assert '@task_group(group_id="rows", prefix_group_id=False, tooltip="rows")' in compiled
    assert 'double, same = rows.expand(item=["1", "2"])' in compiled
    assert {tasks_of(made)[name]["max_active_tis_per_dagrun"] for name in ("double", "same")} == {2}


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


def test_a_choice_is_a_branch_task_with_labelled_edges() -> None:
    tasks, edges = tasks_of(branched()), edges_of(branched())
    assert tasks["choose_low"][""] == "Choose"
    assert ast.literal_eval(tasks["choose_low"]["branches"]) == {"low": ["a"], "middle": ["b"], "otherwise": ["c"]}
    assert edges[:3] == [
        f"choose_low >> Label('{label}') >> {task}"
        for label, task in (("low", "a"), ("middle", "b"), ("otherwise", "c"))
    ]
    assert tasks["joined"]["trigger_rule"] == "none_failed_min_one_success"
    assert "trigger_rule" not in tasks["b2"], "it is skipped with what it takes"


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


def test_what_joins_steps_that_may_run_both_is_decided_by_the_worker() -> None:
    """One of them may fail, and the other one's output is there."""

    @pipeline(name="neighbours")
    def made(n: int = 5) -> Any:
        with when(double(n) > 3, name="one"):
            one = same.options(name="a")(1)
        with when(double.options(name="again")(n) > 3, name="two"):
            two = same.options(name="b")(2)
        return same.options(name="joined")(either(one, two))

    assert tasks_of(made)["joined"]["trigger_rule"] == "all_done"


def test_no_choice_could_skip_the_watcher_or_a_teardown() -> None:
    """A branch task skips all that comes right after it and is not chosen."""

    @pipeline(name="watched")
    def made() -> Any:
        with when(double(1) == 2):
            same(1)
        with cleanup():
            same.options(name="tidy", after=["same"])()

    flow = Flow(branched().compile())
    assert Task("choice", "low") not in flow.watched
    assert all(task.kind != "choice" for task in Flow(made.compile()).before_cleanup)
    assert tasks_of(branched())["watcher"] == {"": "Watcher", "task_id": "watcher", "trigger_rule": "one_failed"}


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


@pytest.mark.parametrize("rule", RUN_IF)
def test_run_if_is_airflows_own_trigger_rule(rule: str) -> None:
    assert rules_of(ruled(rule, "nothing"))["handler"] == rule


@pytest.mark.parametrize("rule", [rule for rule in RUN_IF if rule != "all_success"])
@pytest.mark.parametrize("around", ["branch", "loop", "list"])
def test_where_more_comes_before_it_the_worker_goes_by_the_rule(rule: str, around: str) -> None:
    """The task that chooses or lists would count as one that succeeded, and an item as a step."""
    made = ruled(rule, around)
    assert rules_of(made)["handler"] == "all_done"
    assert Flow(made.compile()).is_checked(Task("step", "handler"))


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


def test_what_cleans_up_is_a_teardown_after_all_others() -> None:
    @pipeline(name="tidied")
    def made() -> Any:
        value = double(1)
        double.options(name="beside")(2)
        with cleanup():
            same.options(name="tidy")(value)

    assert 'inputs={"value": double.output["double"]}).as_teardown()' in compile_dag(made.bundle()).text
    assert edges_of(made) == ["[double, beside] >> tidy"]
    assert "watcher" not in tasks_of(made), "Airflow looks past teardowns by itself"


def test_a_pipeline_in_a_pipeline_is_a_task_group() -> None:
    @pipeline
    def inner() -> Any:
        """Adds up."""
        return total(double.map(n=numbers()))

    @pipeline
    def outer() -> Any:
        return inner()

    @pipeline(name="outermost")
    def made() -> Any:
        return outer()

    compiled = compile_dag(made.bundle()).text
    assert 'TaskGroup("outer", prefix_group_id=False, tooltip="outer")' in compiled
    assert 'TaskGroup("outer_inner", prefix_group_id=False, tooltip="Adds up.", parent_group=outer)' in compiled
    assert {task["task_group"] for task in tasks_of(made).values()} == {"outer_inner"}


def test_items_that_may_fail_are_not_the_last_tasks() -> None:
    @pipeline(name="goes on")
    def made() -> Any:
        double.options(on_item_error="continue").map(n=[1])

    assert edges_of(made) == ["double >> settled"]


def test_a_loop_in_a_loop_is_refused() -> None:
    @pipeline(name="nested")
    def made() -> Any:
        with for_each([[1], [2]], name="outer") as row, for_each(row, name="inner") as n:
            double(n)

    with pytest.raises(
        UnsupportedFeatureError, match="Loop 'inner' stands in loop 'outer', and Airflow does not expand"
    ):
        compile_dag(made.bundle())


def test_clean_up_with_a_timeout_is_refused() -> None:
    @pipeline(name="tidied late", timeout=60)
    def made() -> Any:
        with cleanup():
            double(1)

    with pytest.raises(UnsupportedFeatureError, match="has a timeout and 'clean-up', and Airflow runs no teardown"):
        compile_dag(made.bundle())


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


# What a task finds when it runs.


class Ti:
    """As much of Airflow 3's task instance as is asked for."""

    dag_id = run_id = "x"

    def __init__(self, states: Mapping[str, str], xcoms: Mapping[Any, Any] = {}, map_index: int = -1) -> None:
        self.states, self.xcoms, self.map_index = states, xcoms, map_index

    def get_task_states(self, *, dag_id: str, task_ids: list[str], run_ids: list[str]) -> Any:
        (task,) = task_ids
        found = {
            key: state for key, state in self.states.items()
            if key == task or (key.startswith(f"{task}_") and key.removeprefix(f"{task}_").isdigit())
        }  # fmt: skip
        return {"x": found}

    def xcom_pull(self, *, task_ids: Any, key: str, map_indexes: int = -1) -> Any:
        if isinstance(task_ids, str):
            return self.xcoms.get((task_ids, key, map_indexes))
        (task,) = task_ids
        return [value for (of, name, _), value in self.xcoms.items() if (of, name) == (task, key)]


def upstream(made: Pipeline, ti: Ti) -> Upstream:
    return Upstream(Flow(made.compile()), {"ti": ti}, {})


LISTED = {"numbers": "success", "double_items": "success"}


@pytest.mark.parametrize(
    ("states", "items", "end", "values"),
    [
        ({"double_0": "success", "double_1": "success"}, ["0", "1"], End.OK, [0, 2]),
        ({"double_0": "success", "double_1": "skipped"}, ["0", "1"], End.OK, [0]),
        ({"double_0": "skipped", "double_1": "skipped"}, ["0", "1"], End.SKIPPED, None),
        ({"double_0": "success", "double_1": "failed"}, ["0", "1"], End.FAILED, None),
        ({"double_0": "success", "double_1": "running"}, ["0", "1"], None, None),
        ({"double": "skipped"}, [], End.OK, []),
        ({"double": "skipped", "double_items": "skipped"}, None, End.SKIPPED, None),
        ({"double": "upstream_failed"}, ["0"], End.FAILED, None),
    ],
)
def test_a_list_is_collected_as_everywhere(states: Any, items: Any, end: End | None, values: Any) -> None:
    done = {key: 2 * int(key[-1]) for key, state in states.items() if state == "success" and key.startswith("double_")}
    xcoms = {("double", "double", int(key[-1])): value for key, value in done.items() if key != "double_items"}
    found = upstream(
        mapped_over(numbers), Ti({**LISTED, **states}, {**xcoms, ("double_items", "return_value", -1): items})
    )
    assert found.end(FromStep("double", "double"), "") is end
    if values is not None:
        assert found.value(FromStep("double", "double"), "") == values


def test_items_that_succeeded_come_with_their_indexes() -> None:
    made = mapped_over([7, 8, 9], on_item_error="continue")
    ti = Ti(
        {"double_0": "success", "double_1": "failed", "double_2": "success"},
        {("double", "double", 0): 14, ("double", "double", 2): 18},
    )
    assert upstream(made, ti).value(FromStep("double", "double"), "") == [[0, 14], [2, 18]]


def test_an_item_is_taken_by_its_index() -> None:
    item = FromItem("double", "n")
    whole = {("numbers", "numbers", -1): {"$json": "[5, 6]"}}
    assert upstream(mapped_over(numbers), Ti(LISTED, whole, 1)).value(item, "double") == 6
    apart = {
        ("numbers", "numbers", -1): {"$artifact": {"url": "file:///x"}},
        ("double_items", "n.1", -1): "the second",
    }
    assert upstream(mapped_over(numbers), Ti(LISTED, apart, 1)).value(item, "double") == "the second"


@pytest.mark.parametrize(
    ("choice", "taken", "end"),
    [("success", "low", End.OK), ("success", "otherwise", End.SKIPPED), ("skipped", None, End.SKIPPED),
     ("failed", None, End.FAILED), ("running", None, None)],
)  # fmt: skip
def test_a_step_runs_if_its_branch_is_taken(choice: str, taken: str | None, end: End | None) -> None:
    ti = Ti({"choose_low": choice}, {("choose_low", TAKEN, -1): taken})
    assert upstream(branched(), ti).decide(Task("step", "a")) is end


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
    ti = Ti({"double": "success", "other": "failed"})
    assert upstream(made, ti).decide(Task("choice", "low")) is End.OK


# What is read of a run.


def seen(states: Mapping[str, Mapping[int, str]], made: Pipeline) -> Seen:
    facts = facts_of(compile_dag(made.bundle()).text)
    return Seen(facts, [
        {"task_id": task, "map_index": index, "state": state}
        for task, found in states.items() for index, state in found.items()
    ])  # fmt: skip


def test_a_loop_over_nothing_is_told_from_one_that_was_skipped() -> None:
    made = mapped_over(numbers)
    assert seen({"double": {-1: "skipped"}, "double_items": {-1: "success"}}, made).has_no_items("double")
    assert not seen({"double": {-1: "skipped"}, "double_items": {-1: "skipped"}}, made).has_no_items("double")
    assert not seen({"double": {0: "skipped"}, "double_items": {-1: "success"}}, made).has_no_items("double")


def test_the_output_of_a_choice_is_that_of_what_ran() -> None:
    place = {"either": [["a", "out"], ["b", "out"]]}
    assert seen({"a": {-1: "skipped"}, "b": {-1: "success"}}, branched()).place(place) == ["b", "out"]
    assert seen({"a": {-1: "skipped"}, "b": {-1: "skipped"}}, branched()).place(place) is None


def test_lists_are_put_together_again() -> None:
    made = mapped_over(numbers)
    read = Outputs({part_name("all", 0): 1, part_name("all", 2): 3, "other": 4})
    joined = seen({}, made).joined(read, {"all": (["double", "double", "double"], [0, 2])})
    assert dict(joined) == {"all": [1, 3], "other": 4}


def test_of_a_list_that_is_not_whole_no_part_is_read() -> None:
    @pipeline(name="listed")
    def made() -> Any:
        return {"all": double.map(n=numbers()), "other": same(4)}

    class Client:
        """Of the third item nothing is kept."""

        def source(self, dag: Any, version: int | None) -> str:
            return compile_dag(made.bundle()).text

        def dag(self, dag: str) -> dict[str, Any]:
            return {}

        def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
            states = [("numbers", -1), ("double_items", -1), ("double", 0), ("double", 1), ("double", 2), ("same", -1)]
            return [{"task_id": task, "map_index": index, "state": "success"} for task, index in states]

        def xcom(self, dag: str, run_id: str, task: str, key: str, index: int = -1) -> int:
            if index == 2:
                raise NotThereError(404, "gone")
            return 4

    read = RunReader(Client()).outputs({"dag_id": "listed", "dag_run_id": "r"})  # type: ignore[arg-type]  # all it asks
    assert dict(read) == {"other": 4}
    assert list(read.not_kept) == ["all"]


def test_what_was_cleared_since_it_was_listed_is_not_read() -> None:
    class Client:
        """The run of a DAG that FlowyML did not make."""

        def source(self, dag: Any, version: int | None) -> str:
            return "dag = DAG('legacy')"

        def dag(self, dag: str) -> dict[str, Any]:
            return {}

        def returned(self, dag: str, run_id: str) -> list[tuple[str, int]]:
            return [("cleared", -1), ("kept", -1)]

        def xcom(self, dag: str, run_id: str, task: str, map_index: int = -1) -> int:
            if task == "cleared":
                raise NotThereError(404, "gone")
            return 4

    read = RunReader(Client()).outputs({"dag_id": "legacy", "dag_run_id": "r"})  # type: ignore[arg-type]  # all it asks
    assert dict(read) == {"kept": 4}
