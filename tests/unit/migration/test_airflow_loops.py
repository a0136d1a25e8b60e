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
    assert module.tell.function(n=4, N="x", ds=date(2024, 1, 2)) == "4 of 2024-01-02 in 4"
    plan = module.flow.compile()
    assert values(plan.by_name["load_users"]) == {"table": "users"}
    assert values(plan.by_name["tell_3"]) == {"n": 3, "N": "3"}
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
