"""What the model of a DAG file holds: functions, sources and values of arguments, and what other files gave."""

from __future__ import annotations

from pathlib import Path

from flowyml.migration.airflow.model import FunctionModel
from tests.unit.migration.dag_files import HEAD, codes, edges, read


def test_airflow_1_style_with_default_args_and_dag_passed_around(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
        from datetime import datetime, timedelta
        from airflow import DAG
        from airflow.operators.bash_operator import BashOperator
        from airflow.operators.python_operator import PythonOperator

        default_args = {"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=5)}
        dag = DAG("legacy", default_args=default_args, schedule_interval="@daily", start_date=datetime(2019, 1, 1))

        def work(**context):
            return 1

        t1 = BashOperator(task_id="first", bash_command="echo {{ ds }}", dag=dag)
        t2 = PythonOperator(task_id="second", python_callable=work, provide_context=True, dag=dag, retries=1)
        t3 = BashOperator(task_id="third", bash_command="echo", dag=dag)
        t2.set_upstream(t1)
        t3 << [t1, t2]
        """,
    )
    (dag,) = file.dags
    assert dag.schedule == "cron:0 0 * * *"
    assert edges(file) == {"first>second", "first>third", "second>third"}
    first, second, _ = dag.tasks
    assert (first.retries, first.retry_delay, second.retries) == (3, 300.0, 1)
    assert second.function == FunctionModel("work", second.function.place, parameters=())  # type: ignore[union-attr]  # it is there
    assert second.function.place.line == 10  # type: ignore[union-attr]  # it is there
    command = first.argument("bash_command")
    assert command is not None
    assert (command.source, command.value) == ('"echo {{ ds }}"', "echo {{ ds }}")
    assert first.import_path == "airflow.operators.bash_operator.BashOperator"
    assert not codes(file)


def test_factories_over_yaml_beside_the_file_and_defaults_of_a_sibling(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
        import os, yaml
        from airflow import DAG
        from common.defaults import DEFAULT_ARGS, make_task

        HERE = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(HERE, "config", "feeds.yaml")) as source:
            FEEDS = yaml.safe_load(source)["feeds"]

        def create_dag(name, settings):
            dag = DAG(dag_id=f"feed_{name}", schedule=settings.get("schedule"), default_args=DEFAULT_ARGS)
            with dag:
                previous = None
                for table in settings["tables"]:
                    load = make_task("load_{}".format(table), dag)
                    if previous:
                        previous >> load
                    previous = load
            return dag

        for name, settings in FEEDS.items():
            globals()[f"feed_{name}"] = create_dag(name, settings)
        """,
        {
            "dags/config/feeds.yaml": """
                feeds:
                  orders: {schedule: "0 3 * * *", tables: [a, b, c]}
                  users: {tables: [d]}
            """,
            "dags/common/__init__.py": "",
            "dags/common/defaults.py": """
                from datetime import timedelta
                from airflow.operators.bash import BashOperator
                DEFAULT_ARGS = dict(owner="me", retries=2)

                def make_task(task_id, dag):
                    return BashOperator(task_id=task_id, bash_command="true", dag=dag)
            """,
        },
    )
    orders, users = file.dags
    assert (orders.dag_id, orders.schedule, users.schedule) == ("feed_orders", "cron:0 3 * * *", "None")
    assert list(orders.edges()) == [("load_a", "load_b"), ("load_b", "load_c")]
    assert orders.tasks[0].retries == 2
    assert not codes(file)


def test_values_of_tasks_and_mappings(tmp_path: Path) -> None:
    text = """
@task(multiple_outputs=True)
def split(): ...
@task.branch
def decide(x): ...
@task_group
def section(value): decide(value)
@dag(schedule=None)
def flow(limit: int = 5):
    parts = split()
    decide.override(task_id="first")(parts["good"])
    section(parts["bad"])
    split.override(task_id="again").partial(x=1).expand(day=[1, 2])
flow()
"""
    (dag,) = read(tmp_path, HEAD + text).dags
    assert [group.group_id for group in dag.groups] == ["section"]
    assert list(dag.edges()) == [("split", "first"), ("split", "section.decide")]
    again, first = dag.task("again"), dag.task("first")
    assert again is not None
    assert again.mapping is not None
    assert (again.mapping.kind, again.decorator) == ("expand", "@task")
    assert first is not None
    assert first.call_arguments[0].value.key == "good"
    assert dag.task("second") is None


def test_an_operator_of_the_file_knows_its_class(tmp_path: Path) -> None:
    text = """
from airflow.models import BaseOperator
class Load(BaseOperator):
    def __init__(self, table, **kwargs): super().__init__(task_id=f"load_{table}", **kwargs)
with DAG("flow", schedule=None): Load(table="a")
"""
    (task,) = read(tmp_path, HEAD + text).dags[0].tasks
    assert (task.task_id, task.operator) == ("load_a", "Load")
    assert task.own_class is not None
