"""Arguments of DAGs and of tasks: kept as options, handed to operators, or named with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind, Verdict
from flowyml.migration.airflow.writer.text.modules import Written
from tests.unit.migration.modules import dag, loaded, note, of_kind
from tests.unit.migration.modules import written as written_text

IMPORTS = """
from airflow.operators.python import ExternalPythonOperator
from airflow.providers.slack.notifications.slack import SlackNotifier
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.definitions.deadline import DeadlineAlert
from airflow.timetables.events import EventsTimetable
from our.alerts import page
def show(text): return text
def tell(context): print("ended")
def load(): return 1
"""


def written(folder: Path, options: str, *tasks: str) -> Written:
    files = {"dags/our/__init__.py": "", "dags/our/alerts.py": "def page(context): pass\n"}
    return written_text(folder, dag("\n".join(tasks), options, IMPORTS), files)


def said(made: Written) -> Mapping[str, str]:
    return of_kind(made, Kind.CHANGED)


def test_arguments_of_a_dag_are_kept_or_named(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, dagrun_timeout=timedelta(hours=1), end_date=datetime(2030, 1, 1), fail_fast=True, "
        "template_searchpath='/sql', max_active_runs=2, on_failure_callback=page, on_success_callback=tell, "
        "default_args={'owner': 'us', 'email': ['a@b.c'], 'email_on_retry': False}",
        "EmptyOperator(task_id='a')",
    )
    options = {"airflow": {"max_active_runs": 2, "owner": "us", "on_failure_callback": "our.alerts.page"}}
    plan = loaded(tmp_path, made).flow.compile()
    assert (plan.timeout_seconds, plan.options) == (3600, options)
    assert said(made).keys() == {
        "end_date of the DAG", "fail_fast of the DAG", "template_searchpath of the DAG",
        "on_success_callback of the DAG", "default argument email",
    }  # fmt: skip


def test_a_start_without_a_zone_is_in_utc_and_that_of_once_is_named(tmp_path: Path) -> None:
    zoned = "schedule=CronTriggerTimetable('0 3 * * *', timezone='Europe/Berlin')"
    before = "from airflow.timetables.trigger import CronTriggerTimetable"
    tasks = "EmptyOperator(task_id='a')"
    made = written_text(tmp_path, dag(tasks, f"{zoned}, start_date=datetime(2024, 1, 1), catchup=False", before))
    assert "start=datetime(2024, 1, 1, 1)" in made.text  # in the schedule's zone
    made = written(tmp_path, "schedule='@once', start_date=datetime(2024, 1, 1)", tasks)
    assert "starts on 2020-01-01" in said(made)["start_date"]


def test_template_files_of_operators_are_named(tmp_path: Path) -> None:
    tasks = """
    BashOperator(task_id="script", bash_command="scripts/run.sh")
    SqlOperator(task_id="t.sql", sql=["select 1", "q.sql"], other="x.json", pod="pod.yaml", text="select 1 from sql")
    SqlOperator(task_id="default")
    SqlOperator.partial(task_id="mapped").expand(sql=["a.sql", "b.sql"])
    PythonOperator(task_id="kept", python_callable=asks, op_args=["a.sql"])
    """
    before = """
    from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator as SqlOperator
    def asks(path, ti): return ti.hostname
    """
    made = written_text(tmp_path, dag(tasks, "schedule=None, default_args={'hql': 'd.hql'}", before),
                        {"dags/pod.yaml": ""})  # fmt: skip
    found = {name: reason for name, reason in said(made).items() if "template" in reason}
    assert found.keys() == {
        "bash_command of script", "sql of t.sql", "pod of t.sql", "sql of mapped",
        *(f"hql of {task}" for task in ("script", "t.sql", "default", "mapped", "kept")),
    }  # fmt: skip
    assert "'q.sql'" in found["sql of t.sql"]


def test_labels_of_edges_are_named(tmp_path: Path) -> None:
    tasks = """
    first, second = EmptyOperator(task_id="first"), EmptyOperator(task_id="second")
    first >> Label("when it is late") >> second
    """
    made = written(tmp_path, "schedule=None", tasks)
    assert "when it is late (first → second)" in said(made)["labels of edges"]


def test_default_arguments_reach_steps_and_operators(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, default_args={'retries': 2, 'retry_delay': timedelta(seconds=10), 'sla': timedelta(hours=1), "
        "'retry_exponential_backoff': True, 'max_retry_delay': timedelta(minutes=5), 'http_conn_id': 'x', "
        "'on_failure_callback': [page, SlackNotifier(text='late')], 'weight_rule': 'our.rules.Ours'}",
        "PythonOperator(task_id='load', python_callable=load, max_retry_delay=15)",
        "BashOperator(task_id='held', bash_command='{{ var.value.x }}')",
    )
    called = ["our.alerts.page", {"airflow.providers.slack.notifications.slack.SlackNotifier": {"text": "late"}}]
    plan = loaded(tmp_path, made).flow.compile()
    step = plan.by_name["load"]
    assert step.options["airflow"] == {"on_failure_callback": called}
    assert (step.retry.max_attempts, step.retry.delays) == (3, (10, 15)), "the longest may be a number of seconds"
    kept = plan.by_name["held"].options["airflow"]["arguments"]["default_args"]
    assert kept["http_conn_id"] == "x"
    assert "our.alerts.page" in str(kept["on_failure_callback"]), "a list of callbacks is one, also for operators"
    assert "SlackNotifier" in str(kept["on_failure_callback"])
    assert said(made)["default argument http_conn_id"] == "a step has no such option; operators keep it"
    assert "default argument weight_rule" in said(made)


def test_what_only_airflow_knows_is_named_as_such(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, max_active_runs=Variable.get('n'), max_active_tasks=int(Variable.get('m')), "
        "deadline=DeadlineAlert(), default_args={'end_date': datetime(2030, 1, 1), 'queue': Variable.get('q')}",
        "PythonOperator(task_id='one', python_callable=load, pool=Variable.get('p'))",
        "PythonOperator(task_id='two', python_callable=load, retries=1, retry_exponential_backoff=Variable.get('e'))",
    )
    unknown = "only Airflow knows it when it reads the file"
    assert said(made) == {
        "max_active_runs of the DAG": unknown, "max_active_tasks of the DAG": unknown,
        "deadline of the DAG": "a pipeline has no such option", "pool of one": unknown,
        "retry_exponential_backoff of two": unknown, "default argument queue": unknown,
        "default argument end_date": "a step has no such option; operators keep it",
    }  # fmt: skip


def test_what_to_do_about_a_default_argument_is_something_that_a_step_has(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None, default_args={'on_failure_callback': tell, 'sla': 1, 'pool': Variable.get('p')}",
        "PythonOperator(task_id='t', python_callable=load)",
    )
    to_do = [note(made, f"default argument {name}").to_do for name in ("on_failure_callback", "sla", "pool")]
    assert "airflow={'on_failure_callback': 'module.name'}" in to_do[0]
    assert "airflow_operator(…)" in to_do[1]
    assert "airflow={…} of the steps" in to_do[2]


def test_options_of_one_engine_at_steps_that_share_a_function(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None",
        "PythonOperator(task_id='one', python_callable=load, pool='small', weight_rule='our.rules.Ours')",
        "PythonOperator(task_id='two', python_callable=load)",
        "BashOperator(task_id='three', bash_command='echo 3', queue='big', on_success_callback=page)",
        "EmptyOperator(task_id='four', pool='small')",
        "PythonOperator(task_id='five', python_callable=load, wait_for_downstream=True)",
    )
    flow = loaded(tmp_path, made).flow
    called = {"queue": "big", "on_success_callback": "our.alerts.page"}
    assert {step.name: step.options.get("airflow") for step in flow.compile()} == {
        "one": {"pool": "small"}, "two": None, "three": called, "four": None, "five": None,
    }  # fmt: skip
    assert said(made).keys() == {"pool of four", "weight_rule of one", "wait_for_downstream of five"}
    run = flow.run()
    assert [run.step_results[name].outputs[name] for name in ("one", "two", "three")] == [1, 1, "3"]


def test_functions_among_the_arguments_of_operators_move_over(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "schedule=None",
        "PythonOperator(task_id='one', python_callable=load)",
        "PythonOperator(task_id='two', python_callable=load, on_failure_callback=tell)",
        "BashOperator(task_id='five', bash_command='true', post_execute=lambda context, result: None)",
        "BashOperator(task_id='six', bash_command='true', weight_rule='our.rules.Ours')",
    )
    assert made.dags[0].verdict is Verdict.AIRFLOW
    options = {step.name: step.options.get("airflow", {}) for step in loaded(tmp_path, made).flow.compile()}
    operators = {name: given.get("operator", "").rpartition(".")[2] for name, given in options.items()}
    assert operators == {"one": "", "two": "PythonOperator", "five": "BashOperator", "six": "BashOperator"}
    assert options["two"]["arguments"]["on_failure_callback"]["$code"].endswith(":tell")
    assert options["six"]["arguments"]["weight_rule"] == "our.rules.Ours"


@pytest.mark.parametrize(
    "task",
    [
        "ExternalPythonOperator(task_id='t', python='/usr/bin/python3', python_callable=load)",
        "@task.virtualenv(requirements=['six'])\ndef t(): return 4\nt()",
        "@task.bash\ndef templated(): return 'echo {{ ds }}'\ntemplated()",
    ],
)
def test_functions_that_airflow_alone_can_call_need_a_hand(tmp_path: Path, task: str) -> None:
    """Their operators read the function's source, or render what it returned."""
    assert written(tmp_path, "schedule=None", task).dags[0].verdict is Verdict.HAND


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
    options = loaded(tmp_path, made).flow.compile().options
    assert options.get("airflow", {}).get("schedule") == kept
    assert said(made)["schedule"].startswith("only Airflow has it" if kept else "FlowyML has no schedule like")
    assert kept is None or made.dags[0].verdict is Verdict.ANY


def test_the_end_of_a_schedule_is_kept(tmp_path: Path) -> None:
    options = "schedule='@daily', start_date=datetime(2024, 1, 1), end_date=datetime(2030, 1, 1), catchup=False"
    made = written(tmp_path, options, "EmptyOperator(task_id='a')")
    schedule = loaded(tmp_path, made).flow.compile().schedule
    assert datetime.fromisoformat(schedule["end"]) == datetime(2030, 1, 1, tzinfo=UTC)
    assert "end_date of the DAG" not in said(made)


@pytest.mark.parametrize(
    ("options", "outlets"),
    [
        ("schedule=[Asset('raw', extra={'team': 'us'})]", ""),
        ("schedule=Asset('raw', extra={'team': 'us'}) | Asset('b')", ""),
        ("schedule=None", ", outlets=[Asset('raw', extra={'team': 'us'})]"),
    ],
)
def test_other_arguments_of_an_asset_are_named(tmp_path: Path, options: str, outlets: str) -> None:
    made = written(tmp_path, options, f"BashOperator(task_id='a', bash_command='true'{outlets})")
    assert "extra of the asset raw" in said(made)
