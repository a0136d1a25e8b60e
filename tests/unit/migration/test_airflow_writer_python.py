"""PythonOperators that are mapped over what their function is called with, and tasks that are changed later."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from tests.unit.migration.dag_files import HEAD, read
from tests.unit.migration.modules import loaded

FUNCTIONS = """
def one(x): return x
def two(x, y=2): return x * y
def many(*args, **kwargs): return args
"""


def _written(folder: Path, *lines: str) -> Written:
    body = "".join(f"    {line}\n" for line in lines)
    file = read(folder, f"{HEAD}{FUNCTIONS}with DAG('flow', schedule=None):\n{body}")
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


@pytest.mark.parametrize(
    ("partial", "mapped", "call"),
    [
        ("one", "expand(op_args=[[1], [2]])", "one.map(x=[1, 2])"),
        ("two, op_kwargs={'y': 5}", "expand(op_args=[[1], [2]])", "two.partial(y=5).map(x=[1, 2])"),
        ("two, op_args=[7]", "expand(op_kwargs=[{'y': 1}, {'y': 3}])", "two.partial(x=7).map(y=[1, 3])"),
        ("two", "expand(op_kwargs=[{'x': 1, 'y': 2}, {'x': 3, 'y': 4}])", "two.map(x=[1, 3], y=[2, 4])"),
        ("one", "expand_kwargs([{'op_args': [1]}, {'op_args': [2]}])", "one.map(x=[1, 2])"),
    ],
)
def test_a_mapped_function_takes_its_parameters(tmp_path: Path, partial: str, mapped: str, call: str) -> None:
    name = call.partition(".")[0]
    made = _written(tmp_path, f"PythonOperator.partial(task_id='{name}', python_callable={partial}).{mapped}")
    assert call in made.text
    loaded(tmp_path, made, "mapped")


@pytest.mark.parametrize(
    ("function", "mapped", "why"),
    [
        ("two", "op_args=[[1], [3, 4]]", "items of different kinds"),
        ("one", "op_args=[[1, 2]]", "has no names for"),
        ("many", "op_args=[[1], [2]]", "has no names for"),
        ("two", "op_args=[[1]], op_kwargs=[{'y': 2}]", "over op_args and op_kwargs"),
    ],
)
def test_a_mapped_function_without_names_for_it_is_refused(
    tmp_path: Path, function: str, mapped: str, why: str
) -> None:
    made = _written(tmp_path, f"PythonOperator.partial(task_id='t', python_callable={function}).expand({mapped})")
    assert why in " ".join(made.text.replace('"\n        "', "").split())


def test_arguments_that_are_set_later_are_written(tmp_path: Path) -> None:
    made = _written(
        tmp_path,
        "a = BashOperator(task_id='a', bash_command='early')",
        "a.bash_command = 'late'",
        "a.owner, a.depends_on_past = 'me', True",
        "b = PythonOperator(task_id='b', python_callable=one, op_args=[1])",
        "b.python_callable, b.op_args = two, [3]",
    )
    assert 'bash(command="late")' in made.text
    assert '"owner": "me"' in made.text
    assert '"depends_on_past": True' in made.text
    assert "two(3)" in made.text


def test_what_is_not_an_argument_and_set_later_is_said(tmp_path: Path) -> None:
    text = f"{HEAD}with DAG('flow', schedule=None):\n    t = BashOperator(task_id='t', bash_command='true')\n"
    (dag,) = read(tmp_path, f"{text}    t.template_ext = ()\n    t.ui_color = '#fff'\n").dags
    assert [str(each).partition(": ")[2] for each in dag.warnings] == [
        "`t.template_ext` sets no argument of the task: the import ignores it"
    ]


def test_a_dag_without_tasks_is_no_pipeline(tmp_path: Path) -> None:
    made = _written(tmp_path, "pass")
    assert (made.text, made.dags[0].pipeline, made.dags[0].verdict) == ("", "", Verdict.HAND)
    assert "no tasks of it are known" in made.dags[0].notes[0].reason


def test_arguments_of_a_decorated_dag_are_parameters(tmp_path: Path) -> None:
    text = f"""{HEAD}
@dag(schedule=None)
def flow(email: str, n: int = 3):
    @task
    def use(a, b=None): return a
    use(email, b=[n])
    BashOperator(task_id="shown", bash_command="echo {{{{ params.n }}}}")
flow("a@b.c")
"""
    made = write_module(read(tmp_path, text), (tmp_path / "repository/dags/flow.py").read_text())
    assert "use(email, b=[n])" in made.text
    assert 'bash(command=f"echo {n}")' in made.text
    assert 'def flow(n: int = 3, email: str = "a@b.c")' in made.text
    loaded(tmp_path, made, "decorated")
