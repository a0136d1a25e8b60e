"""What the report says and shows, and what `--verify` takes for the same."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import FileResult, Kind
from flowyml.migration.airflow.writer.report import files_of_report
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.migration.airflow.writer.verifying import compare
from tests.unit.migration.dag_files import read

HEAD = """
from airflow import DAG
from airflow.decorators import task
from airflow.models import Variable
from airflow.operators.bash import BashOperator
from airflow.operators.python import PythonOperator
"""


def written(folder: Path, text: str) -> Written:
    file = read(folder, HEAD + textwrap.dedent(text))
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


@pytest.mark.parametrize(("given", "why"), [
    ("bash_command='echo {{ macros.uuid() }}'", "it has the template {{ macros.uuid() }}"),
    ("bash_command='x', env={'A': 'b'}", "its env takes the place of the whole environment, without append_env=True"),
    ("bash_command='run.sh '", "its command is a file, which Airflow renders"),
    ("bash_command='exit 99'", "its command may end with 99, by which Airflow skips"),
    ("bash_command=Variable.get('c', 'x')", "only Airflow knows its command"),
    ("bash_command='x', cwd=Variable.get('c', '/x')", "only Airflow knows its cwd"),
    ("bash_command='x', do_xcom_push=False", "it has do_xcom_push"),
    ("bash_command='x', outlets=['a']", "it has outlets"),
    ("bash_command='x', trigger_rule='all_skipped'", "it has the trigger rule 'all_skipped'"),
])  # fmt: skip
def test_the_report_says_why_a_command_stays_an_operator(tmp_path: Path, given: str, why: str) -> None:
    made = written(
        tmp_path,
        f"""
        with DAG("d", schedule=None):
            BashOperator(task_id="t", {given})
    """,
    )
    (reason,) = [note.reason for dag in made.dags for note in dag.notes if note.kind is Kind.OPAQUE]
    assert reason == f"{why}, so it stays BashOperator"


def test_what_to_do_about_a_default_argument_is_something_that_a_step_has(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def alert(context): print(context)
        def go(): return 1
        with DAG("d", schedule=None, default_args={"on_failure_callback": alert, "sla": 1, "pool": Variable.get("p")}):
            PythonOperator(task_id="t", python_callable=go)
    """,
    )
    said = {note.construct: note.to_do for dag in made.dags for note in dag.notes if note.kind is Kind.CHANGED}
    assert said == {
        "default argument on_failure_callback":
            "Move it into a module, and name it: airflow={'on_failure_callback': 'module.name'}.",
        "default argument sla": "Keep the tasks that need it with airflow_operator(…), or leave it out.",
        "default argument pool": "Set it in airflow={…} of the steps that need it, or leave it out.",
    }  # fmt: skip


def test_a_step_that_the_importer_adds_is_no_difference(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("d", schedule=None):
            @task(multiple_outputs=True)
            def both() -> dict: return {"worst": 1, "mean": 2}
            @task
            def show(worst): return worst
            show(both()["worst"])
    """,
    )
    (dag,) = made.dags
    assert dag.added == {"both.worst"}
    before = {"dag_id": "d", "schedule": "None", "tasks": {"both": _task(), "show": _task("both")}}
    after = {"tasks": {"both": _task(shown="both"), "x": _task("both", shown="both.worst"),
                       "show": _task("x", shown="show")}}  # fmt: skip
    assert [str(each) for each in compare(before, after, "None")] == [
        "d.both.worst: task: 'missing' in the DAG file, 'there' in the compiled one"
    ]
    assert list(compare(before, after, "None", (), dag.added)) == []


def _task(*upstream: str, **more: Any) -> dict[str, Any]:
    fields = ("operator", "trigger_rule", "retries", "retry_delay", "execution_timeout", "mapped", "over")
    fields += ("owner", "pool", "queue", "depends_on_past")
    return {**dict.fromkeys(fields), "upstream": list(upstream), **more}


def test_pages_fit_a_narrow_screen_and_say_which_side_is_which(tmp_path: Path) -> None:
    made = written(tmp_path, 'with DAG("d", schedule=None):\n    BashOperator(task_id="t", bash_command="exit 99")\n')
    pages = files_of_report([FileResult("dags/flow.py", "x", made.text, "dags/flow.py", made.dags)])
    for page in (each for each in pages if each.endswith(".html")):
        assert "`" not in pages[page].partition("<footer>")[2]
        assert "<footer>Written by <code>flowyml import airflow</code></footer>" in pages[page]
        assert '<meta name="viewport"' in pages[page]
    sides = pages["file-0001.html"]
    assert "<h2>DAG file: dags/flow.py</h2>" in sides
    assert "<h2>Pipelines: dags/flow.py</h2>" in sides
    assert '<td data-head="Why">its command may end with 99' in pages["0001-d.html"]


def test_a_function_that_imports_airflow_in_its_body_counts_also_by_way_of_another(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def host():
            from airflow.hooks.base import BaseHook
            return BaseHook.get_connection("c").host
        def asks(): return host()
        def knows(): return "here"
        with DAG("d", schedule=None):
            PythonOperator(task_id="a", python_callable=host)
            PythonOperator(task_id="b", python_callable=asks)
            PythonOperator(task_id="c", python_callable=knows)
    """,
    )
    said = {note.construct: note.reason for note in made.dags[0].notes if note.airflow_only}
    assert said == {"task a": "it imports airflow", "task b": "it uses host, which imports airflow"}


@pytest.mark.parametrize("taken", ["_", "a=1, *, b"])
def test_a_function_that_is_not_given_all_that_it_takes_stays_with_its_operator(tmp_path: Path, taken: str) -> None:
    made = written(
        tmp_path,
        f"""
        def show({taken}): pass
        with DAG("d", schedule=None):
            PythonOperator(task_id="t", python_callable=show)
    """,
    )
    (note,) = [note for note in made.dags[0].notes if note.construct == "task t"]
    assert note.reason == f"nothing gives it {taken[-1]}, so it stays an operator with its function"
