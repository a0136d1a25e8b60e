"""Task groups as pipelines within a pipeline: what goes in and out, and which stay without one."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind, Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.plan.groups import Section
from tests.unit.commands import flowyml
from tests.unit.migration.dag_files import read
from tests.unit.migration.modules import loaded

HEAD = """
from airflow import DAG
from airflow.decorators import dag, task, task_group
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.utils.task_group import TaskGroup
"""


def written(folder: Path, text: str) -> Written:
    file = read(folder, HEAD + textwrap.dedent(text))
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


def about(made: Written, group: str) -> tuple[Kind, str]:
    """What became of a task group, and why."""
    (note,) = [each for dag in made.dags for each in dag.notes if each.construct == f"task group {group}"]
    return note.kind, note.reason


VALUES = """
@dag(schedule=None, params={"by": 3})
def flow():
    @task
    def one(): return {"a": 1, "b": 2}

    @task
    def add(first, second): return first + second

    @task
    def scaled(value, params): return value * params["by"]

    @task_group(tooltip="Adds")
    def sums(start):
        inner = add.override(task_id="inner")(start["a"], start["b"])
        @task_group
        def deep(value):
            return scaled(value)
        return add.override(task_id="outer")(deep(inner), inner)

    @task
    def shown(text, day): return f"{text} {day}"

    shown(sums(one()), "{{ ds }}")

flow()
"""


def test_values_go_into_a_group_and_come_out(tmp_path: Path) -> None:
    made = written(tmp_path, VALUES)
    (result,) = made.dags
    assert result.verdict is Verdict.ANY, result.notes
    assert about(made, "sums")[0] is about(made, "sums.deep")[0] is Kind.KEPT
    assert "def sums(one_value, by: int) -> Any:" in made.text
    assert "def deep(sums_inner_value, by: int) -> Any:" in made.text
    flow = loaded(tmp_path, made, "group_values").flow
    plan = flow.compile()
    assert {each.name: each.parent for each in plan.groups if isinstance(each, Section)} == {
        "sums": "", "sums.deep": "sums",
    }  # fmt: skip
    tasks = {"one", "sums.inner", "sums.deep.scaled", "sums.outer", "shown"}
    assert tasks <= plan.by_name.keys()
    compiled = flowyml("compile", f"{tmp_path}/group_values.py", "--to", "airflow").out
    assert 'TaskGroup("sums", prefix_group_id=False, tooltip="Adds")' in compiled
    assert 'task_id="sums.deep.scaled"' in compiled
    run = flow.run({"ds": "2026-03-01"})
    assert run.success, run.error
    assert run["shown"] == "12 2026-03-01"


def test_edges_lead_in_and_out_and_through(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            start = EmptyOperator(task_id="start")
            with TaskGroup("first") as first:
                EmptyOperator(task_id="load") >> BashOperator(task_id="check", bash_command="echo", retries=2)
            with TaskGroup("second") as second:
                with TaskGroup("inner", prefix_group_id=False) as inner:
                    EmptyOperator(task_id="bare")
                EmptyOperator(task_id="load")
            start >> first >> second
            for name in ("first", "second"):
                EmptyOperator(task_id=name + "_seen")
        """,
    )
    flow = loaded(tmp_path, made, "group_edges").flow
    after = {step.name: set(step.after) for step in flow.compile()}
    assert after["first.load"] == {"start"}
    assert after["first.check"] == {"first.load"}
    assert after["second.load"] == {"first.check"}
    assert about(made, "first")[0] is Kind.KEPT
    kind, why = about(made, "second")
    assert kind is Kind.CHANGED
    assert why.endswith("its tasks do not have its name before theirs")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a, b = tasks('a', 'b')\nmiddle = EmptyOperator(task_id='middle', task_group=None, dag=dag)",
         "tasks outside it are between its tasks"),
        ("pass", "it has no tasks"),
    ],
)  # fmt: skip
def test_groups_that_stay_without_a_pipeline(tmp_path: Path, body: str, why: str) -> None:
    made = written(
        tmp_path,
        f"""
def tasks(*names):
    return [EmptyOperator(task_id=name) for name in names]

with DAG("flow", schedule=None) as dag:
    between = EmptyOperator(task_id="between")
    with TaskGroup("group") as group:
{textwrap.indent(body, " " * 8)}
    if {body != "pass"}:
        a >> between >> b
""",
    )
    kind, reason = about(made, "group")
    assert kind is Kind.CHANGED
    assert reason.endswith(why)
    plan = loaded(tmp_path, made, f"group_apart_{len(body)}").flow.compile()
    if body != "pass":
        assert plan.by_name["between"].after == ("group.a",)
        assert plan.by_name["group.b"].after == ("between",)


def test_a_name_in_the_group_does_not_hide_one_outside(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            load = EmptyOperator(task_id="load")
            with TaskGroup("group"):
                EmptyOperator(task_id="load")
                load >> EmptyOperator(task_id="last")
        """,
    )
    assert about(made, "group")[0] is Kind.CHANGED
    plan = loaded(tmp_path, made, "group_hidden").flow.compile()
    assert plan.by_name["group.last"].after == ("load",)


def test_branches_within_a_group_and_around_it(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            @task.branch
            def choose(): return "group"

            with TaskGroup("group") as group:
                @task.branch(task_id="pick")
                def pick(): return "group.yes"
                pick() >> [EmptyOperator(task_id="yes"), EmptyOperator(task_id="no")]
            choose() >> [group, EmptyOperator(task_id="other")]
        """,
    )
    assert about(made, "group")[0] is Kind.KEPT
    flow = loaded(tmp_path, made, "group_branches").flow
    run = flow.run()
    skipped = {name for name, step in run.step_results.items() if step.raw_status == "skipped"}
    assert skipped == {"group.no", "other"}


def test_a_group_beside_a_task_with_a_dict_among_its_arguments(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            BashOperator(task_id="first", bash_command="true", env={"A": "b"}, append_env=True)
            with TaskGroup("group"):
                BashOperator(task_id="last", bash_command="true", env={"A": "b"})
        """,
    )
    assert about(made, "group")[0] is Kind.KEPT
