"""Airflow's shipped example DAGs become pipelines, and Airflow's own DagBag finds the same in what they compile to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.airflow import airflow_python
from tests.unit.commands import flowyml
from tests.unit.migration.dag_files import HEAD
from tests.unit.migration.test_airflow_mapped_groups import MAPPED

pytest.importorskip("libcst")

# Steps that FlowyML has no words for yet, one DAG each, and teardowns, which it ends by another rule.
OTHERWISE = {
    "example_dynamic_task_mapping_with_no_taskflow_operators", "example_setup_teardown",
    "example_setup_teardown_taskflow", "example_task_state_store_mapped", "tutorial_taskflow_api",
    "tutorial_taskflow_api_virtualenv",
}  # fmt: skip


@pytest.mark.airflow
@pytest.mark.slow
def test_the_shipped_examples_are_the_same_to_airflow(tmp_path: Path) -> None:
    python = airflow_python(3)
    (examples,) = python.parent.parent.glob("lib/python*/site-packages/airflow/example_dags")
    given = ["import", "airflow", str(examples), "-o", str(tmp_path), "--verify", str(python), "--json"]
    found = json.loads(flowyml(*given).out)["verified"]
    compared = [each for each in found if each["problem"] is None]
    assert len(compared) >= len(found) - 2, [each for each in found if each["problem"]]  # two need Kubernetes
    differing = {each["dag_id"] for each in compared if any(": schedule: " not in line for line in each["differences"])}
    assert differing <= OTHERWISE
    assert not [line for each in compared for line in each["differences"] if "timetable:Cron" in line]


DEFAULTS = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.decorators import task, task_group
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.utils.task_group import TaskGroup

def go(x=1): return x
def asks(ti): print(ti.hostname)

with DAG("defaults", schedule=None, start_date=datetime(2024, 1, 1),
         default_args={"owner": "team", "retries": 1, "pool": "wide", "depends_on_past": True}):
    BashOperator(task_id="first", bash_command="true", env={"A": "b"}, append_env=True)
    BashOperator(task_id="own", bash_command="true", default_args={"pool": "narrow", "retries": 4})
    with TaskGroup("g", default_args={"retries": 3, "pool": "p", "queue": "q", "depends_on_past": False}) as g:
        BashOperator(task_id="command", bash_command="true")
        BashOperator(task_id="given", bash_command="true", pool="own", default_args={"retries": 7, "owner": "me"})
        PythonOperator(task_id="function", python_callable=go)
        PythonOperator(task_id="asking", python_callable=asks)
        with TaskGroup("inner", default_args={"retries": 5, "owner": "in", "execution_timeout": timedelta(seconds=7)}):
            BashOperator(task_id="command", bash_command="true", retries=2)
            TriggerDagRunOperator(task_id="trigger", trigger_dag_id="other")

        @task_group(default_args={"queue": "deep", "retries": 6})
        def decorated():
            @task
            def flows(owner="x"): return owner
            flows()
        decorated()
"""


@pytest.mark.airflow
@pytest.mark.parametrize("major", [3, 2])
def test_default_arguments_of_groups_and_tasks_are_given_as_airflow_does(major: int, tmp_path: Path) -> None:
    (tmp_path / "defaults.py").write_text(DEFAULTS, "utf-8")
    python = str(airflow_python(major))
    given = ["import", "airflow", f"{tmp_path}/defaults.py", "-o", f"{tmp_path}/made", "--verify", python, "--json"]
    ((found,),) = [json.loads(flowyml(*given).out)["verified"]]
    assert found["problem"] is None
    assert found["differences"] == []
    text = (tmp_path / "made/defaults.py").read_text("utf-8")
    assert 'flows(owner="team")' in text


@pytest.mark.airflow
@pytest.mark.parametrize("major", [3, 2])
def test_mapped_groups_are_the_same_to_airflow(major: int, tmp_path: Path) -> None:
    text = HEAD + MAPPED.replace("schedule=None", "schedule=None, start_date=datetime(2024, 1, 1)")
    (tmp_path / "flow.py").write_text(text, "utf-8")
    python = str(airflow_python(major))
    given = ["import", "airflow", f"{tmp_path}/flow.py", "-o", f"{tmp_path}/made", "--verify", python, "--json"]
    (found,) = json.loads(flowyml(*given).out)["verified"]
    assert (found["problem"], found["differences"]) == (None, [])


RULES = """
try:
    from airflow.sdk import Asset, AssetAlias
except ImportError:
    from airflow.datasets import Dataset as Asset, DatasetAlias as AssetAlias

def one(x): return x
def two(x, y=2): return x

@dag(schedule=None, start_date=datetime(2024, 1, 1), catchup=False)
def flow(n: int = 3):
    @task
    def use(value): return value
    use(n)
    a = BashOperator(task_id="a", bash_command="echo {{ params.n }}", outlets=[Asset("s3://b/c"), AssetAlias("d")])
    a.owner, a.depends_on_past, a.retries = "me", True, 2
    PythonOperator.partial(task_id="m", python_callable=one).expand(op_args=[[1], [2]])
    PythonOperator.partial(task_id="k", python_callable=two, op_args=[1]).expand(op_kwargs=[{"y": 1}, {"y": 2}])
    with TaskGroup("g"):
        part = BashOperator.partial(task_id="p")
    part.expand(bash_command=["true", "false"])
flow()
"""


@pytest.mark.airflow
@pytest.mark.parametrize("major", [3, 2])
def test_assets_mapped_functions_and_what_is_set_later_are_the_same_to_airflow(major: int, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(HEAD + RULES, "utf-8")
    python = str(airflow_python(major))
    given = ["import", "airflow", f"{tmp_path}/flow.py", "-o", f"{tmp_path}/made", "--verify", python, "--json"]
    (found,) = json.loads(flowyml(*given).out)["verified"]
    assert found["problem"] is None
    assert [line for line in found["differences"] if "mapped arguments" not in line] == []
    assert "NotImplementedError" not in (tmp_path / "made/flow.py").read_text("utf-8")
