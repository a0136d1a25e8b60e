"""Arguments of DAGs and of tasks: kept as options, handed to operators, or named with what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import DagResult, Kind, Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from tests.unit.migration.dag_files import read
from tests.unit.migration.modules import loaded

HEAD = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.decorators import task
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import ExternalPythonOperator, PythonOperator
from airflow.providers.slack.notifications.slack import SlackNotifier
from airflow.models import Variable
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.definitions.deadline import DeadlineAlert
from airflow.timetables.events import EventsTimetable
from our.alerts import page
def show(text): return text
def tell(context): print("ended")
def load(): return 1
"""
OURS = {"dags/our/__init__.py": "", "dags/our/alerts.py": "def page(context): pass\n"}


def written(folder: Path, dag: str, *tasks: str) -> Written:
    body = textwrap.indent("\n".join(tasks), "    ")
    file = read(folder, f"{HEAD}\nwith DAG('flow', {dag}):\n{body}\n", OURS)
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


def said(dag: DagResult) -> Mapping[str, str]:
    return {note.construct: note.reason for note in dag.notes if note.kind is Kind.CHANGED}


def test_arguments_of_a_dag_are_kept_or_named(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, dagrun_timeout=timedelta(hours=1), end_date=datetime(2030, 1, 1), fail_fast=True, "
        "template_searchpath='/sql', max_active_runs=2, on_failure_callback=page, on_success_callback=tell, "
        "default_args={'owner': 'us', 'email': ['a@b.c'], 'email_on_retry': False}",
        "EmptyOperator(task_id='a')",
    )
    options = {"airflow": {"max_active_runs": 2, "owner": "us", "on_failure_callback": "our.alerts.page"}}
    plan = loaded(tmp_path, made, "written_of_dag").flow.compile()
    assert (plan.timeout_seconds, plan.options) == (3600, options)
    assert said(made.dags[0]).keys() == {
        "end_date of the DAG", "fail_fast of the DAG", "template_searchpath of the DAG",
        "on_success_callback of the DAG", "default argument email",
    }  # fmt: skip


def test_default_arguments_reach_steps_and_operators(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, default_args={'retries': 2, 'retry_delay': timedelta(seconds=10), 'sla': timedelta(hours=1), "
        "'retry_exponential_backoff': True, 'max_retry_delay': timedelta(minutes=5), 'http_conn_id': 'x', "
        "'on_failure_callback': [page, SlackNotifier(text='late')]}",
        "PythonOperator(task_id='load', python_callable=load)",
        "BashOperator(task_id='held', bash_command='{{ var.value.x }}')",
    )
    called = ["our.alerts.page", {"airflow.providers.slack.notifications.slack.SlackNotifier": {"text": "late"}}]
    plan = loaded(tmp_path, made, "written_defaults").flow.compile()
    load = plan.by_name["load"]
    assert load.options["airflow"] == {"on_failure_callback": called}
    assert (load.retry.max_attempts, load.retry.delays) == (3, (10, 20))
    assert plan.by_name["held"].options["airflow"]["arguments"]["default_args"]["http_conn_id"] == "x"
    assert said(made.dags[0])["default argument http_conn_id"] == "a step has no such option; operators keep it"


def test_what_only_airflow_knows_is_named_as_such(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, max_active_runs=Variable.get('n'), max_active_tasks=int(Variable.get('m')), "
        "deadline=DeadlineAlert(), default_args={'end_date': datetime(2030, 1, 1), 'queue': Variable.get('q')}",
        "PythonOperator(task_id='one', python_callable=load, pool=Variable.get('p'))",
        "PythonOperator(task_id='two', python_callable=load, retries=1, retry_exponential_backoff=Variable.get('e'))",
    )
    unknown = "only Airflow knows it when it reads the file"
    assert said(made.dags[0]) == {
        "max_active_runs of the DAG": unknown, "max_active_tasks of the DAG": unknown,
        "deadline of the DAG": "a pipeline has no such option", "pool of one": unknown,
        "retry_exponential_backoff of two": unknown, "default argument queue": unknown,
        "default argument end_date": "a step has no such option; operators keep it",
    }  # fmt: skip


def test_parameters_among_the_default_arguments(tmp_path: Path) -> None:
    """Airflow puts them over those of the DAG."""
    made = written(
        tmp_path,
        "schedule=None, params={'n': 1, 'm': 2}, default_args={'params': {'n': 3, 'k': 'x'}}",
        "PythonOperator(task_id='one', python_callable=show, op_args=['{{ params.n }}{{ params.m }}{{ params.k }}'])",
    )
    assert dict(loaded(tmp_path, made, "written_params").flow.run().outputs) == {"one": "32x"}


def test_the_longest_delay_may_be_a_number_of_seconds(tmp_path: Path) -> None:
    made = written(
        tmp_path, "schedule=None", "PythonOperator(task_id='one', python_callable=load, retries=3, retry_delay=60, "
        "retry_exponential_backoff=True, max_retry_delay=90)",
    )  # fmt: skip
    assert loaded(tmp_path, made, "written_longest").flow.compile().by_name["one"].retry.delays == (60, 90, 90)


def test_options_of_one_engine_at_steps_that_share_a_function(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None",
        "PythonOperator(task_id='one', python_callable=load, pool='small')",
        "PythonOperator(task_id='two', python_callable=load)",
        "BashOperator(task_id='three', bash_command='echo 3', queue='big', on_success_callback=page)",
        "EmptyOperator(task_id='four', pool='small')",
    )
    flow = loaded(tmp_path, made, "written_shared").flow
    options = {step.name: step.options.get("airflow") for step in flow.compile()}
    called = {"queue": "big", "on_success_callback": "our.alerts.page"}
    assert options == {"one": {"pool": "small"}, "two": None, "three": called, "four": None}
    assert "pool of four" in said(made.dags[0])
    run = flow.run()
    assert [run.step_results[name].outputs for name in ("one", "two", "three")] == [
        {"one": 1}, {"two": 1}, {"three": "3"},
    ]  # fmt: skip


def test_an_option_that_a_step_cannot_have_is_named(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, default_args={'weight_rule': 'our.rules.Ours', 'owner': ''}",
        "PythonOperator(task_id='one', python_callable=load, weight_rule='our.rules.Ours', pool_slots=2)",
        "BashOperator(task_id='two', bash_command='true', weight_rule='our.rules.Ours')",
    )
    plan = loaded(tmp_path, made, "written_unfit").flow.compile()
    assert plan.by_name["one"].options["airflow"] == {"pool_slots": 2}
    assert plan.by_name["two"].options["airflow"]["arguments"]["weight_rule"] == "our.rules.Ours"
    assert said(made.dags[0]).keys() == {"default argument weight_rule", "weight_rule of one"}


def test_functions_among_the_arguments_of_operators_move_over(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None",
        "PythonOperator(task_id='one', python_callable=load)",
        "PythonOperator(task_id='two', python_callable=load, on_failure_callback=tell)",
        "BashOperator(task_id='five', bash_command='true', post_execute=lambda context, result: None)",
    )
    (result,) = made.dags
    assert result.verdict is Verdict.AIRFLOW, result.notes
    plan = loaded(tmp_path, made, "written_functions").flow.compile()
    of = {step.name: step.options.get("airflow", {}).get("operator", "").rpartition(".")[2] for step in plan}
    assert of == {
        "one": "", "two": "PythonOperator", "five": "BashOperator",
    }  # fmt: skip
    assert plan.by_name["two"].options["airflow"]["arguments"]["on_failure_callback"] == {
        "$code": "written_functions:tell"
    }


@pytest.mark.parametrize(
    "task",
    [
        "ExternalPythonOperator(task_id='t', python='/usr/bin/python3', python_callable=load)",
        "@task.virtualenv(requirements=['six'])\ndef t(): return 4\nt()",
    ],
)
def test_functions_in_another_python_need_a_hand(tmp_path: Path, task: str) -> None:
    """Their operators read the function's source, and take nothing else for it."""
    assert written(tmp_path, "schedule=None", task).dags[0].verdict is Verdict.HAND


def test_a_function_that_makes_a_command(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None",
        "@task.bash(env={'DAY': '{{ ds }}'}, append_env=True)\ndef show(word): return f'echo {word} $DAY'\nshow('on')",
        "@task.bash\ndef templated(): return 'echo {{ ds }}'\ntemplated()",
    )
    kinds = {note.construct: note.kind for note in made.dags[0].notes}
    assert kinds == {"task show": Kind.KEPT, "task templated": Kind.REFUSED}
    assert 'return bash(show("on"), env={"DAY": f"{ds}"})' in made.text


@pytest.mark.parametrize(
    ("schedule", "kept"),
    [
        ("'@once'", "@once"),
        ("'@continuous'", "@continuous"),
        ("[Asset('a'), Asset(name='b', uri='s3://b')]", ["a", {"name": "b", "uri": "s3://b"}]),
        ("(Asset('a') | AssetAlias('c')) & Asset('d')", {"all": [{"any": ["a", {"alias": "c"}]}, "d"]}),
        ("[Asset(Variable.get('x'))]", None),
        ("EventsTimetable([])", None),
    ],
)
def test_a_schedule_of_airflows_alone_stays_an_option(tmp_path: Path, schedule: str, kept: object) -> None:
    made = written(tmp_path, f"schedule={schedule}", "EmptyOperator(task_id='a')")
    options = loaded(tmp_path, made, f"own_schedule_{len(schedule)}").flow.compile().options
    assert options.get("airflow", {}).get("schedule") == kept
    assert said(made.dags[0])["schedule"].startswith("only Airflow has it" if kept else "FlowyML has no schedule like")
    assert made.dags[0].verdict is (Verdict.ANY if kept else made.dags[0].verdict)


def test_an_operator_of_a_function_keeps_how_it_waits_and_what_it_says(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None",
        "def asks(ti): return ti.hostname",
        """PythonOperator(task_id="t", python_callable=asks, retries=2, retry_exponential_backoff=True,
               max_retry_delay=timedelta(minutes=30), show_return_value_in_logs=False, doc_md="# T")""",
    )
    assert "python_callable=asks" in made.text
    for kept in (
        "retries=2", "retry_exponential_backoff=True", "max_retry_delay=timedelta(seconds=1800)",
        "show_return_value_in_logs=False", 'doc_md="# T"',
    ):  # fmt: skip
        assert kept in made.text
