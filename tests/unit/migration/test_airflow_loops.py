"""Tasks that a loop or a factory of a DAG file makes are calls of one step."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flowyml.plan.model import Constant
from tests.unit.migration.modules import dag, loaded, written

pytest.importorskip("libcst")

LOAD = "def load(table, day, size=1): return [table, day, size]\n"
FACTORY = """
for name, size in {"a": 1, "b": 2.5}.items():
    with DAG(f"of_{name}", schedule=None, start_date=datetime(2024, 1, 1)):
        PythonOperator(task_id="load", python_callable=load, op_args=[name, "{{ ds }}"], op_kwargs={"size": size})
"""


def values(step: Any) -> dict[str, Any]:
    """The constants that a step gets."""
    return {each.name: each.source.value for each in step.inputs if isinstance(each.source, Constant)}


def test_tasks_that_differ_in_values_are_calls_of_one_step(tmp_path: Path) -> None:
    """The parameters have the names of the loop's variables, else of the function's."""
    tasks = """
    for table in ["orders", "users"]:
        PythonOperator(task_id=f"load_{table}", python_callable=load, op_args=[f"raw.{table}", "{{ ds }}"])
    for n in (1, 2):
        BashOperator(task_id=f"say_{n}", bash_command=f"echo {n} of {{{{ ds }}}} 'in {n}'", retries=n)
    for n in (3, 4):
        BashOperator(task_id=f"tell_{n}", bash_command=f"echo {n} of {{{{ ds }}}} 'in {n}'",
                     env={"N": str(n)}, append_env=True)
    PythonOperator(task_id="other", python_callable=load, op_args=["x", "{{ ds }}"], retries=3)
    """
    made = written(tmp_path, dag(tasks, before=LOAD))
    assert 'def load_step(table: str, ds: date):\n    return load(f"raw.{table}", f"{ds}")' in made.text
    assert "def say_1(ds: date)" in made.text  # their retries differ
    module = loaded(tmp_path, made)
    assert module.load_step.function(table="orders", ds=date(2024, 1, 2)) == ["raw.orders", "2024-01-02", 1]
    assert module.tell.function(n=4, ds=date(2024, 1, 2)) == "4 of 2024-01-02 in 4"
    plan = module.flow.compile()
    assert values(plan.by_name["load_users"]) == {"table": "users"}
    assert values(plan.by_name["tell_3"]) == {"n": 3}
    assert values(plan.by_name["other"]) == {}


def test_dags_of_a_factory_share_their_steps(tmp_path: Path) -> None:
    made = written(tmp_path, LOAD + FACTORY)
    assert made.text.count("@step") == 1
    module = loaded(tmp_path, made)
    assert values(module.of_b.compile().by_name["load"]) == {"table": "b", "size": 2.5}
    assert module.load_task.function(table="b", size=2.5, ds=date(2024, 1, 2)) == ["b", "2024-01-02", 2.5]


def test_options_of_airflow_that_several_steps_have_are_a_constant(tmp_path: Path) -> None:
    tasks = """
    for name in ["a", "b"]:
        PythonOperator(task_id=name, python_callable=load, op_args=[name, "x"], pool="wide")
        PythonOperator(task_id=f"own_{name}", python_callable=load, op_args=[name, "x"], pool=name)
        EmptyOperator(task_id=f"empty_{name}", pool="of_nothing")
    PythonOperator(task_id="c", python_callable=load, op_args=["c", "x"], pool="wide", retries=1)
    """
    made = written(tmp_path, dag(tasks, before=LOAD))
    assert made.text.count('\nAIRFLOW = {"pool": "wide"}\n') == 1
    assert made.text.count("airflow=AIRFLOW)") == 2
    assert "of_nothing" not in made.text
    plan = loaded(tmp_path, made).flow.compile()
    assert [plan.by_name[each].options["airflow"]["pool"] for each in ("b", "own_b", "c")] == ["wide", "b", "wide"]


GROUPS = """
start = EmptyOperator(task_id="start")
end = EmptyOperator(task_id="end")
for number, table in enumerate(TABLES):
    with TaskGroup(f"of_{table}") as group:
        # What it waits for
        wait = BashOperator(task_id="wait", bash_command="{{ var.value.x }}", queue=table)
        rows = PythonOperator(task_id="load", python_callable=load, op_args=[table, "{{ ds }}", number])
        save = PythonOperator(task_id="save", python_callable=load, op_args=[rows.output, table])
        wait >> rows
        for kind in KINDS:
            save >> BashOperator(task_id=f"check_{kind}", bash_command=f"echo {kind} {table}")
    start >> group >> end
"""


def test_a_loop_of_task_groups_stays_a_loop(tmp_path: Path) -> None:
    """Each iteration has its own pipeline within the pipeline; the steps are of the module."""
    before = f'{LOAD}TABLES = ["orders", "users", "items"]\nKINDS = ("a", "b", "c")\n'
    made = written(tmp_path, dag(GROUPS, before=before))
    assert '    for number, table in enumerate(TABLES):\n        @pipeline(name=f"of_{table}")\n' in made.text
    assert made.text.count("# What it waits for\n") == made.text.count("def group(ds: date) -> None:\n") == 1
    assert "            for kind in KINDS:\n" in made.text
    assert made.text.count("airflow_operator(") == 1
    plan = loaded(tmp_path, made).flow.compile()
    names = ("wait", "load", "save", "check_a", "check_b", "check_c")
    of_groups = {f"of_{table}.{name}" for table in ("orders", "users", "items") for name in names}
    assert plan.by_name.keys() == {"start", "end", *of_groups}
    assert {*plan.by_name["end"].upstream} == {name for name in of_groups if "check_" in name}
    assert plan.by_name["of_items.wait"].options["airflow"]["arguments"]["queue"] == "items"
    assert values(plan.by_name["of_users.load"]) == {"table": "users", "number": 1}
    assert {*plan.by_name["of_users.save"].upstream} == {"of_users.load"}
    assert values(plan.by_name["of_users.check_b"])["command"] == "echo b users"


def test_a_group_whose_value_is_used_outside_is_written_by_itself(tmp_path: Path) -> None:
    """So are groups that differ in more than their values, and two of them."""
    tasks = """
    for table in ["a", "b", "c"]:
        with TaskGroup(f"of_{table}"):
            made = PythonOperator(task_id="load", python_callable=load, op_args=[table, "{{ ds }}"])
        PythonOperator(task_id=f"use_{table}", python_callable=load, op_args=[made.output, table])
    for table in ["d", "e", "f"]:
        with TaskGroup(f"of_{table}"):
            PythonOperator(task_id="load", python_callable=load, op_args=[table, table])
            if table == "e":
                EmptyOperator(task_id="more")
    for table in ["g", "h"]:
        with TaskGroup(f"of_{table}"):
            PythonOperator(task_id="load", python_callable=load, op_args=[table, table])
    """
    made = written(tmp_path, dag(tasks, before=LOAD))
    assert "def group(" not in made.text
    plan = loaded(tmp_path, made).flow.compile()
    assert {"of_a.load", "use_c", "of_e.more", "of_h.load"} <= plan.by_name.keys()
    assert values(plan.by_name["of_f.load"]) == {"table": "f", "day": "f"}


def test_tasks_of_a_loop_to_wait_for_are_named_by_the_loop(tmp_path: Path) -> None:
    tasks = """
    first = EmptyOperator(task_id="first")
    made = [BashOperator(task_id=f"load_{table}", bash_command="true") for table in TABLES]
    for number, table in enumerate(TABLES):
        made.append(BashOperator(task_id=f"checks_of_{table}", bash_command="false"))
    [first, *made] >> EmptyOperator(task_id="end")
    """
    made = written(tmp_path, dag(tasks, before='TABLES = ["orders", "users", "items"]'))
    assert '*(f"checks_of_{table}" for _, table in enumerate(TABLES))' in made.text
    end = loaded(tmp_path, made).flow.compile().by_name["end"]
    tables = ("orders", "users", "items")
    assert {*end.upstream} == {"first", *(f"{what}_{table}" for what in ("load", "checks_of") for table in tables)}
