"""Pipelines with operators of Airflow's own among their steps. Workers import this module: FlowyML only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flowyml import Pipeline, otherwise, pipeline, step, when
from flowyml_airflow import airflow_operator, imported, xcom

BASH = "airflow.operators.bash.BashOperator"
EMPTY = "airflow.providers.standard.operators.empty.EmptyOperator"

begin = airflow_operator(EMPTY, task_id="begin")
day = airflow_operator(
    BASH,
    task_id="say the day",
    bash_command="echo \"on {{ params.day }}, {{ ti.xcom_pull(task_ids='count') }} rows\"; echo {{ params.day }}",
    retries=2,
    retry_delay=timedelta(seconds=1),
    execution_timeout=timedelta(minutes=2),
    env={"HOME": "/tmp", "$x": 'it\'s "quoted"'},
    append_env=True,
)
greet = airflow_operator(BASH, task_id="greet", bash_command="true").options(after=["begin"])
each = airflow_operator(BASH, task_id="each", env={"A": "1"}, append_env=True)
fails = airflow_operator(
    BASH, task_id="fails", bash_command="echo about to fail; exit 3", retries=1, retry_delay=0.1,
    email=["team@example.org"], email_on_failure=True,  # which fails as well: there is no SMTP server
)  # fmt: skip
last = airflow_operator(BASH, task_id="last", bash_command="echo all is over", trigger_rule="all_done")


@step
def count() -> int:
    return 3


@step
def commands() -> list[str]:
    return ["echo one", "echo two"]


@step(outputs=["folder", "number"])
def one_of_two() -> tuple[str, float]:
    return "/usr", 2.5


@step
def shout(said: str, count: int) -> str:
    print(f"it said {said}")
    return f"{said.upper()} {count}"


@step
def gather(said: list[str]) -> list[str]:
    return sorted(said)


@pipeline(name="with operators")
def with_operators(day: str = "monday") -> Any:
    begin()
    counted = count()
    said = sayer(counted)
    folder, _ = one_of_two()
    told = airflow_operator(BASH, task_id="tell", bash_command="echo $PWD on {{ ds }}")(cwd=folder)
    return {"shouted": shout(said, counted), "gathered": gather(mapped()), "said": said, "told": told}


def sayer(counted: Any) -> Any:
    """The operator waits for the step that its template asks for."""
    return globals()["day"].options(after=["begin", "count"])()


def mapped() -> Any:
    return each.map(bash_command=commands())


@step
def is_late(said: str) -> bool:
    return said == "late"


@pipeline(name="operators in branches")
def branching() -> Any:
    said = airflow_operator(BASH, task_id="said", bash_command="echo late")()
    with when(said == "late"):
        airflow_operator(BASH, task_id="late", bash_command="echo it is late")()
    with otherwise():
        airflow_operator(BASH, task_id="early", bash_command="echo it is early")()


failing = Pipeline("a failing operator").add_step(fails).add_step(last.options(after=["fails"]))

objects = Pipeline("objects").add_step(
    airflow_operator(
        "our.hooks.DAG",
        task_id="DAG",
        items=("a",),
        pairs=((1, 2), {3, 4}),
        **{"not-a-name": imported("airflow.models:Variable.get")("bucket", default_var=None)},
        other=imported("our.hooks.DAG"),
        deep={"$call": ["os.system", ["x"], {}]},
    )
)

PYTHON = "airflow.operators.python.PythonOperator"


def pushes(number: int, ti: Any = None, **context: Any) -> int:
    print(f"pushes {number} in {context['run_id']}")
    ti.xcom_push(key="word", value="pushed")
    return number + 1


def pulls(word: str, ti: Any, parts: list[int]) -> str:
    return f"{word} {ti.xcom_pull(task_ids='in.pushes')} {parts}"


@pipeline(name="with functions")
def with_functions() -> Any:
    airflow_operator(PYTHON, task_id="in.pushes", python_callable=pushes, op_kwargs={"number": 2})()
    given = {"word": xcom("in.pushes", "word"), "parts": [xcom("in.pushes"), 7]}
    return shout(airflow_operator(PYTHON, task_id="pulls", python_callable=pulls, op_kwargs=given)(), count())
