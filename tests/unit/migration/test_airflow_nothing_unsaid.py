"""Every argument that Airflow's operators have is kept in what becomes of a task, or named in the report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind
from flowyml.migration.airflow.writer.text.modules import Written
from tests.unit.migration.modules import dag, note, notes, of_kind, ran
from tests.unit.migration.modules import written as written_text

HEAD = """
from airflow.providers.http.operators.http import HttpOperator
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


def written(folder: Path, tasks: str, given: str = "", options: str = "schedule='@daily'") -> Written:
    return written_text(folder, dag(tasks.replace("GIVEN", given), options, HEAD))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *((kind, "an argument") for kind in TASKS),
        ("a step of its function", "a default argument"),
        ("an operator with its function", "a default argument"),
        ("an operator", "a default argument"),
        ("a step of its function", "a default argument of its group"),
    ],
)
def test_an_argument_is_kept_or_named(tmp_path: Path, kind: str, way: str) -> None:
    @cache
    def made(given: tuple[tuple[str, str], ...]) -> tuple[str, list[str]]:
        """The module, and what the report says."""
        by_name = ", ".join(f"{name}={value}" for name, value in given)
        defaults = f"{{{', '.join(f'{name!r}: {value}' for name, value in given)}}}"
        if way == "an argument":
            made = written(tmp_path, TASKS[kind], by_name)
        elif way == "a default argument":
            made = written(tmp_path, TASKS[kind], options=f"schedule='@daily', default_args={defaults}")
        else:
            made = written(tmp_path, f"with TaskGroup('g', default_args={defaults}):\n    {TASKS[kind]}")
        return made.text, [f"{note.kind} {note.construct} {note.reason}" for dag in made.dags for note in dag.notes]

    unsaid = []
    for name, value in ARGUMENTS.items():
        given = {"retries": "2", "retry_exponential_backoff": "1.5" if name == "max_retry_delay" else "False"}
        given.pop(name, None)
        if made(tuple(given.items())) == made(tuple({**given, name: value}.items())):
            unsaid.append(name)
    assert unsaid == []


def test_what_stands_by_the_default_of_a_variable_is_named(tmp_path: Path) -> None:
    """What only Airflow knows has no place in the options of steps: the file's default stands there, and it is said."""
    for task in TASKS.values():
        made = written(tmp_path, task, "retries=COUNT, execution_timeout=timedelta(hours=COUNT)")
        assert {"retries of t", "execution_timeout of t"} <= of_kind(made, Kind.CHANGED).keys(), task


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
    made = written(tmp_path, TASKS[task], "owner='o'", f"schedule=None, default_args={defaults}")
    assert [word for word in words if word not in made.text] == []
    assert not [each for each in made.dags[0].notes if each.construct.startswith("default argument")]


def test_what_a_group_or_a_task_itself_gives_is_the_tasks_or_named(tmp_path: Path) -> None:
    tasks = """
    env = {"env": {"V": "1"}, "append_env": True}
    with TaskGroup("g", default_args={**env, "retries": 3, "pool": "p", "depends_on_past": False}):
        BashOperator(task_id="inner", bash_command="echo $V")
    with TaskGroup("h", default_args=Variable.get("all", deserialize_json=True)):
        BashOperator(task_id="t", bash_command="true")
    BashOperator(task_id="own", bash_command="echo $V && pwd",
                 default_args={**env, "retries": 2, "owner": "me", "sla": timedelta(1)})
    @task
    def first(owner, retries=9, *, x=3): return [owner, retries]
    first(retries=1)
    """
    defaults = "default_args={'owner': 'team', 'cwd': '/tmp', 'retries': 2}"
    made = written(tmp_path, tasks, options=f"schedule=None, {defaults}")
    assert note(made, "default_args of task group h").reason == "only Airflow knows them when it reads the file"
    said = note(made, "default argument sla of own")
    assert said.reason == "a step has no such option; operators keep it"
    assert 'airflow={"owner": "me"}' in made.text
    outputs, _ = ran(tmp_path, made)
    assert (outputs["inner"], outputs["own"]) == ("1", "/tmp")
    assert outputs["first"] == ["team", 1], "a function takes default arguments by the names of its parameters"


@pytest.mark.parametrize(
    ("returned", "is_dict"),
    [("-> dict[str, int]: return go()", True), (": return {'a': 1}", True), (": return dict(a=1)", True),
     (": return [1]", False), ("-> list: return go()", False)],
)  # fmt: skip
def test_mapping_over_what_is_a_dict_is_named(tmp_path: Path, returned: str, is_dict: bool) -> None:
    tasks = f"@task\ndef first() {returned}\n@task\ndef each(pair): return pair\neach.expand(pair=first())"
    made = written(tmp_path, tasks)
    assert bool([each for each in notes(made, "mapping of each") if "first returns a dict" in each.reason]) is is_dict
