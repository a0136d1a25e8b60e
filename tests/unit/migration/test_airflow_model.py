"""The model of an Airflow DAG: what others ask of it."""

from __future__ import annotations

from pathlib import Path

from flowyml.migration.airflow.model import Argument, DagModel, DagWarning, Place, TaskModel
from tests.unit.migration.dag_files import read

HERE = Place("dags/daily.py", 3)


def _task(name: str, *upstream: str) -> TaskModel:
    return TaskModel(
        task_id=name,
        label=name,
        operator="BashOperator",
        import_path="airflow.operators.bash.BashOperator",
        place=HERE,
        arguments=(Argument("bash_command", "'true'", HERE, "true"),),
        upstream=upstream,
    )


def test_a_dag_answers_for_its_tasks_and_edges() -> None:
    dag = DagModel(dag_id="daily", path="dags/daily.py", place=HERE, tasks=(_task("a"), _task("b", "a")))
    assert list(dag.edges()) == [("a", "b")]
    task = dag.task("b")
    assert task is not None
    assert not task.mapped
    command = task.argument("bash_command")
    assert command is not None
    assert command.value == "true"
    assert dag.task("c") is None


def test_a_warning_says_where() -> None:
    assert str(DagWarning("unknown-loop", "the list is unknown", HERE)) == "dags/daily.py:3: the list is unknown"


def test_a_set_has_one_order_in_each_process(tmp_path: Path) -> None:
    text = """
    from airflow import DAG
    from airflow.operators.bash import BashOperator
    with DAG("d"):
        BashOperator(task_id="t", bash_command="a", names={"g", "c", "a", "f", "b", "e", "d", "h"})
    """
    (dag,) = read(tmp_path, text).dags
    given = dag.tasks[0].argument("names")
    assert given is not None
    assert given.value == tuple("abcdefgh")
