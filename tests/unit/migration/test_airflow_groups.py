"""Task groups as pipelines within a pipeline, mapped ones as ``for_each``, and which stay without one."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind
from flowyml.plan.groups import Loop, Section
from tests.unit.commands import flowyml
from tests.unit.migration.flows import FLOWS
from tests.unit.migration.modules import dag, loaded, note, of_kind, pipeline, written

USE = "@task\ndef use(x, y=1): return x\n"


def test_a_group_is_a_section_of_the_plan_and_a_group_on_airflow(tmp_path: Path) -> None:
    made = written(tmp_path, FLOWS["in_and_out_of_groups"].text)
    assert note(made, "task group sums").kind is note(made, "task group sums.deep").kind is Kind.KEPT
    assert made.dags[0].added == {"sums.one.a", "sums.one.b"}, "where they are taken out of a dict"
    plan = pipeline(tmp_path, made).compile()
    assert {each.name: each.parent for each in plan.groups if isinstance(each, Section)} == {
        "sums": "", "sums.deep": "sums",
    }  # fmt: skip
    assert {
        "one",
        "sums.one.a",
        "sums.one.b",
        "sums.inner",
        "sums.deep.scaled",
        "sums.outer",
        "shown",
    } <= plan.by_name.keys()
    (tmp_path / "flow.py").write_text(made.text)
    compiled = flowyml("compile", f"{tmp_path}/flow.py", "--to", "airflow").out
    assert 'TaskGroup("sums", prefix_group_id=False, tooltip="Adds")' in compiled
    assert 'task_id="sums.deep.scaled"' in compiled


def test_a_mapped_group_is_a_loop_of_the_plan(tmp_path: Path) -> None:
    plan = pipeline(tmp_path, written(tmp_path, FLOWS["mapped_groups"].text)).compile()
    assert len([each for each in plan.groups if isinstance(each, Loop)]) == 2
    assert {"each.begin", "each.scaled", "each.inner.shown", "each.size", "constant.total"} <= plan.by_name.keys()


def test_edges_lead_in_and_out_and_through(tmp_path: Path) -> None:
    tasks = """
    start = EmptyOperator(task_id="start")
    with TaskGroup("first") as first:
        check = BashOperator(task_id="check", bash_command="echo", retries=2, env={"A": "b"}, append_env=True)
        EmptyOperator(task_id="load") >> check
    with TaskGroup("second") as second:
        with TaskGroup("inner", prefix_group_id=False) as inner:
            EmptyOperator(task_id="bare")
        EmptyOperator(task_id="load")
    start >> first >> second
    BashOperator(task_id="beside", bash_command="true", env={"A": "b"}, append_env=True)
    for name in ("first", "second"):
        EmptyOperator(task_id=name + "_seen")
    """
    made = written(tmp_path, dag(tasks))
    after = {step.name: set(step.after) for step in pipeline(tmp_path, made).compile()}
    assert (after["first.load"], after["first.check"]) == ({"start"}, {"first.load"})
    assert after["second.load"] == {"first.check"}
    assert note(made, "task group first").kind is Kind.KEPT
    said = of_kind(made, Kind.CHANGED)["task group second"]
    assert said.endswith("its tasks do not have its name before theirs")


@pytest.mark.parametrize(
    ("tasks", "why", "after"),
    [
        ("""
         between = EmptyOperator(task_id="between")
         with TaskGroup("group"):
             a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
         a >> between >> b
         """, "tasks outside it are between its tasks", {"between": ("group.a",), "group.b": ("between",)}),
        ("""
         load = EmptyOperator(task_id="load")
         with TaskGroup("group"):
             EmptyOperator(task_id="load")
             load >> EmptyOperator(task_id="last")
         """, "", {"group.last": ("load",)}),
        ("EmptyOperator(task_id='load')\nwith TaskGroup('group'): pass", "it has no tasks", {}),
    ],
)  # fmt: skip
def test_groups_that_stay_without_a_pipeline(
    tmp_path: Path, tasks: str, why: str, after: dict[str, tuple[str, ...]]
) -> None:
    made = written(tmp_path, dag(tasks))
    assert of_kind(made, Kind.CHANGED)["task group group"].endswith(why)
    plan = loaded(tmp_path, made).flow.compile()
    assert {name: plan.by_name[name].after for name in after} == after


@pytest.mark.parametrize(
    ("body", "mapped", "why"),
    [
        ("use(x, y)", "expand(x=[1], y=[2])", "its task group is mapped over several arguments"),
        ("use(x, y)", "expand_kwargs([{'x': 1, 'y': 2}])", "its task group is mapped over several arguments"),
        ("use(x)", "expand(x={'a': 1})", "its task group is mapped over a dict"),
        ("use(x)", "expand(x=start()['part'])", "neither a list nor what one task returned"),
        ("BashOperator(task_id='use', bash_command=x)", "expand(x=['true'])", "it is in a mapped task group, and"),
        ("use(x.upper())", "expand(x=['a'])", "which is not plain JSON"),
    ],
)  # fmt: skip
def test_what_for_each_cannot_say_is_refused(tmp_path: Path, body: str, mapped: str, why: str) -> None:
    start = "@task\ndef start(): return {'part': [1]}\n"
    tasks = f"{start}{USE}@task_group\ndef group(x, y=1):\n    {body}\ngroup.{mapped}\n"
    made = written(tmp_path, dag(tasks))
    (reason,) = of_kind(made, Kind.REFUSED).values()
    assert why in reason
    loaded(tmp_path, made).flow.compile()


def test_a_group_that_stays_apart_leaves_no_task_out_of_its_loop(tmp_path: Path) -> None:
    tasks = f"""{USE}
between = EmptyOperator(task_id="between")
@task_group
def group(x):
    first = use(x)
    first >> between >> use.override(task_id="second")(x)
group.expand(x=[1, 2])
"""
    made = written(tmp_path, dag(tasks))
    assert of_kind(made, Kind.REFUSED).keys() == {"task group.use", "task group.second"}
    loaded(tmp_path, made).flow.compile()


def test_a_value_of_a_dict_that_each_item_returned_is_refused(tmp_path: Path) -> None:
    tasks = f"""{USE}
@task(multiple_outputs=True)
def parts(x): return {{"a": x}}
@task_group
def group(x):
    return use(parts(x)["a"]), parts.override(task_id="out")(x)
inner, outer = group.expand(x=[1, 2])
use.override(task_id="after")(outer["a"])
"""
    made = written(tmp_path, dag(tasks))
    assert of_kind(made, Kind.REFUSED) == {"task after": "it takes a of each item of group.out"}
    loaded(tmp_path, made).flow.compile()
