"""Every argument that Airflow's operators have is kept in what becomes of a task, or named in the report."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from tests.unit.migration.dag_files import read

HEAD = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.decorators import task
from airflow.models import Variable
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.providers.http.operators.http import HttpOperator
from airflow.utils.task_group import TaskGroup
COUNT = int(Variable.get("count", default_var="3"))
def go(x=1): return x
def asks(ti): return ti.hostname
def alert(context): print(context)
"""
TASKS = {
    "a step of its function": "PythonOperator(task_id='t', python_callable=go, GIVEN)",
    "an operator with its function": "PythonOperator(task_id='t', python_callable=asks, GIVEN)",
    "a command": "BashOperator(task_id='t', bash_command='true', GIVEN)",
    "nothing": "EmptyOperator(task_id='t', GIVEN)",
    "an operator": "HttpOperator(task_id='t', endpoint='/x', GIVEN)",
}
# Those of BaseOperator, without its place (dag, task_group, task_id); multiple_outputs, since each value that is taken
# out is named; and on_failure_fail_dagrun, which is of teardowns alone. Source: Airflow 2.11's and 3's documentation of
# airflow.models.baseoperator.BaseOperator and airflow.sdk.BaseOperator.
ARGUMENTS: Mapping[str, str] = {
    "owner": "'team'", "email": "['a@b.c']", "email_on_retry": "True", "email_on_failure": "True",
    "retry_delay": "timedelta(minutes=7)", "retry_exponential_backoff": "True", "max_retry_delay": "timedelta(hours=1)",
    "start_date": "datetime(2026, 2, 1)", "end_date": "datetime(2026, 3, 1)", "depends_on_past": "True",
    "ignore_first_depends_on_past": "False", "wait_for_past_depends_before_skipping": "True",
    "wait_for_downstream": "True", "params": "{'a': 1}", "default_args": "{'queue': 'q'}", "priority_weight": "7",
    "weight_rule": "'absolute'", "queue": "'q'", "pool": "'p'", "pool_slots": "2", "sla": "timedelta(hours=1)",
    "execution_timeout": "timedelta(hours=2)", "on_execute_callback": "alert", "on_failure_callback": "alert",
    "on_success_callback": "alert", "on_retry_callback": "alert", "on_skipped_callback": "alert",
    "pre_execute": "alert", "post_execute": "alert", "trigger_rule": "'all_done'", "resources": "{'cpus': 2}",
    "run_as_user": "'u'", "map_index_template": "'{{ x }}'", "max_active_tis_per_dag": "2",
    "max_active_tis_per_dagrun": "2", "executor": "'e'", "executor_config": "{'a': 1}", "do_xcom_push": "False",
    "inlets": "['i']", "outlets": "['o']", "task_display_name": "'shown'",
    "logger_name": "'l'", "allow_nested_operators": "False", "render_template_as_native_obj": "True", "doc": "'d'",
    "doc_md": "'d'", "doc_json": "'d'", "doc_yaml": "'d'", "doc_rst": "'d'", "is_setup": "True",
    "show_return_value_in_logs": "False", "retries": "COUNT",
}  # fmt: skip


def written(folder: Path, task: str, given: str, defaults: str = "{}", of: str = "DAG") -> Written:
    head = f"{HEAD}\nwith DAG('flow', schedule='@daily', default_args={defaults}):\n"
    if of == "group":
        head = f"{HEAD}\nwith DAG('flow', schedule='@daily'), TaskGroup('g', default_args={defaults}):\n"
    file = read(folder, head + textwrap.indent(task.replace("GIVEN", given), "    "))
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


def said(made: Written) -> list[str]:
    return [f"{note.kind} {note.construct} {note.reason}" for dag in made.dags for note in dag.notes]


def unsaid(write: Callable[[Mapping[str, str]], Written]) -> list[str]:
    """The arguments that change neither what is written nor the report."""
    seen: dict[str, Written] = {}

    def made(given: Mapping[str, str]) -> Written:
        key = repr(given)
        if key not in seen:
            seen[key] = write(given)
        return seen[key]

    found = []
    for name, value in ARGUMENTS.items():
        given = {"retries": "2", "retry_exponential_backoff": "1.5" if name == "max_retry_delay" else "False"}
        given.pop(name, None)
        before, after = made(given), made({**given, name: value})
        if before.text == after.text and said(before) == said(after):
            found.append(name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_an_argument_is_kept_or_named(tmp_path: Path, task: str) -> None:
    def write(given: Mapping[str, str]) -> Written:
        return written(tmp_path, task, ", ".join(f"{key}={each}" for key, each in given.items()))

    assert unsaid(write) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "of"),
    [("a step of its function", "DAG"), ("an operator with its function", "DAG"), ("an operator", "DAG"),
     ("a step of its function", "group")],
)  # fmt: skip
def test_a_default_argument_is_kept_or_named(tmp_path: Path, kind: str, of: str) -> None:
    def write(given: Mapping[str, str]) -> Written:
        pairs = ", ".join(f"{key!r}: {each}" for key, each in given.items())
        return written(tmp_path, TASKS[kind], "", f"{{{pairs}}}", of)

    assert unsaid(write) == []


def test_what_stands_by_the_default_of_a_variable_is_named(tmp_path: Path) -> None:
    """What only Airflow knows has no place in the options of steps: the file's default stands there, and it is said."""
    for task in TASKS.values():
        made = written(tmp_path, task, "retries=COUNT, execution_timeout=timedelta(hours=COUNT)")
        changed = [note.construct for dag in made.dags for note in dag.notes if note.kind is Kind.CHANGED]
        assert {"retries of t", "execution_timeout of t"} <= set(changed), task


@pytest.mark.parametrize(
    ("task", "defaults", "words"),
    [
        ("a command", "{'env': {'V': 'd'}, 'append_env': True, 'cwd': '/tmp'}", ("env={\"V\": \"d\"}", 'cwd="/tmp"')),
        ("a command", "{'env': {'V': 'd'}}", ("airflow_operator(", 'default_args={"env": {"V": "d"}}')),
        ("a step of its function", "{'op_kwargs': {'x': 2}}", ("airflow_operator(", 'default_args={"op_kwargs"')),
    ],
)  # fmt: skip
def test_what_a_task_is_given_by_default_arguments_stays(
    tmp_path: Path, task: str, defaults: str, words: tuple[str, ...]
) -> None:
    made = written(tmp_path, TASKS[task], "owner='o'", defaults)
    assert [word for word in words if word not in made.text] == []
    assert not [note for note in made.dags[0].notes if note.construct.startswith("default argument")]


def test_what_a_group_gives_its_tasks_is_theirs_or_named(tmp_path: Path) -> None:
    text = f"""{HEAD}
with DAG('flow'):
    env = {{'env': {{'V': '1'}}, 'append_env': True}}
    with TaskGroup('g', default_args={{**env, 'retries': 3, 'pool': 'p', 'depends_on_past': False}}):
        BashOperator(task_id='t', bash_command='echo $V')
    with TaskGroup('h', default_args=Variable.get('all', deserialize_json=True)):
        BashOperator(task_id='t', bash_command='true')
"""
    made = write_module(read(tmp_path, text), text)
    assert [line for line in said(made) if "default_args" in line] == [
        "changed default_args of task group h only Airflow knows them when it reads the file",
    ]
    assert 'env={"V": "1"}' in made.text


def test_what_a_task_gives_itself_by_default_args_is_its_own(tmp_path: Path) -> None:
    own = "default_args={'env': {'V': '1'}, 'append_env': True, 'retries': 2, 'owner': 'me', 'sla': timedelta(1)}"
    made = written(tmp_path, TASKS["a command"], own, "{'owner': 'team', 'cwd': '/tmp'}")
    for words in ('env={"V": "1"}', 'cwd="/tmp"', "max_attempts=3", 'airflow={"owner": "me"}'):
        assert words in made.text
    assert "changed default argument sla of t a step has no such option; operators keep it" in said(made)


def test_a_function_takes_default_arguments_by_the_names_of_its_parameters(tmp_path: Path) -> None:
    task = "@task\ndef first(owner, retries=9, *, x=3): return owner\nfirst(retries=1)"
    assert 'first(owner="team", retries=1)' in written(tmp_path, task, "", "{'owner': 'team', 'retries': 2}").text


@pytest.mark.parametrize(
    ("returned", "is_dict"),
    [("-> dict[str, int]: return go()", True), (": return {'a': 1}", True), (": return dict(a=1)", True),
     (": return [1]", False), ("-> list: return go()", False)],
)  # fmt: skip
def test_mapping_over_what_is_a_dict_is_named(tmp_path: Path, returned: str, is_dict: bool) -> None:
    task = f"@task\ndef first() {returned}\n@task\ndef each(pair): return pair\neach.expand(pair=first())"
    named = [line for line in said(written(tmp_path, task, "")) if "first returns a dict" in line]
    assert [line.partition(" first")[0] for line in named] == ["changed mapping of each"] * is_dict
