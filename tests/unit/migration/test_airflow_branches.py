"""Branching tasks and short circuits as branches of a pipeline: what runs, and what is skipped."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.model import DagModel, TaskModel
from flowyml.migration.airflow.writer.deciding.decision import Decision
from flowyml.migration.airflow.writer.deciding.tasks import decide
from flowyml.migration.airflow.writer.notes import Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from tests.unit.migration.dag_files import read
from tests.unit.migration.modules import loaded

HEAD = """
import random
from airflow import DAG
from airflow.decorators import dag, task, task_group
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from airflow.utils.task_group import TaskGroup
"""


def written(folder: Path, text: str) -> Written:
    file = read(folder, HEAD + textwrap.dedent(text))
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


def ends(folder: Path, made: Written, name: str) -> Mapping[str, str]:
    """How each step of the only pipeline ends, in a local run: ``ran`` or ``skipped``."""
    (result,) = made.dags
    assert result.verdict is Verdict.ANY, result.notes
    pipeline = getattr(loaded(folder, made, name), result.pipeline)
    run = pipeline.run()
    assert run.success, run.error
    return {name: "skipped" if step.raw_status == "skipped" else "ran" for name, step in run.step_results.items()}


def reason(made: Written, task: str) -> str:
    """Why a task stays with its operator."""
    (note,) = [each for dag in made.dags for each in dag.notes if each.construct == f"task {task}"]
    assert note.kind == "opaque"
    return note.reason


def test_a_choice_of_one_is_when_and_otherwise(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        @dag(schedule=None)
        def flow():
            @task.branch
            def choose(rows: int):
                if rows > 3:
                    return "many"
                return "few"

            @task
            def few():
                return 1

            @task
            def after_few(value):
                return value + 1

            @task
            def many():
                return 2

            end = EmptyOperator(task_id="end", trigger_rule="none_failed_min_one_success")
            choose(2) >> [one := few(), two := many()]
            [after_few(one), two] >> end
        flow()
        """,
    )
    assert ends(tmp_path, made, "one_choice") == {
        "choose": "ran", "few": "ran", "after_few": "ran", "many": "skipped", "end": "ran",
    }  # fmt: skip
    wanted = """    choose_value = choose(2)
    with when(choose_value == "few"):
        few_value = few()
        after_few(few_value)
    with otherwise():
        many()
    nothing.options(name="end", """
    body = made.text.partition("def flow()")[2]
    assert body.split("\n", 1)[1].startswith(wanted)


def test_a_list_of_choices_is_tested_one_by_one(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def choose(): return ["a", "c"]
        with DAG("flow", schedule=None):
            BranchPythonOperator(task_id="choose", python_callable=choose) >> [
                EmptyOperator(task_id=name) for name in "abc"
            ]
        """,
    )
    assert 'with when(is_in("a", choose_value)):' in made.text
    assert ends(tmp_path, made, "list_choice") == {"choose": "ran", "a": "ran", "b": "skipped", "c": "ran"}


@pytest.mark.parametrize(("chosen", "left", "middle"), [("left", "ran", "skipped"), ("join", "skipped", "skipped")])
def test_a_join_right_after_the_choice_runs_after_what_leads_to_it(
    tmp_path: Path, chosen: str, left: str, middle: str
) -> None:
    made = written(
        tmp_path,
        f"""
        def choose(): return "{chosen}"
        with DAG("flow", schedule=None):
            choice = BranchPythonOperator(task_id="choose", python_callable=choose)
            join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
            choice >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="middle")] >> join
            choice >> join
        """,
    )
    assert ends(tmp_path, made, f"join_{chosen}") == {
        "choose": "ran", "left": left, "middle": middle, "join": "ran",
    }  # fmt: skip


def test_choices_within_choices(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            @task.branch
            def branch(to: str) -> str:
                return to
            first, second = branch.override(task_id="first")("no"), branch.override(task_id="second")("two")
            join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
            inner = EmptyOperator(task_id="inner", trigger_rule="none_failed_min_one_success")
            first >> EmptyOperator(task_id="yes") >> join
            first >> EmptyOperator(task_id="no") >> second
            second >> [EmptyOperator(task_id="one"), EmptyOperator(task_id="two")] >> inner >> join
        """,
    )
    assert made.text.count("    with when(") == 2
    assert {name for name, end in ends(tmp_path, made, "nested_choice").items() if end == "skipped"} == {"yes", "one"}


@pytest.mark.parametrize(("option", "prefix"), [("", "group."), (", prefix_group_id=False", "")])
def test_a_task_group_is_chosen_by_its_name(tmp_path: Path, option: str, prefix: str) -> None:
    made = written(
        tmp_path,
        f"""
        def choose(): return "group"
        with DAG("flow", schedule=None):
            choice = BranchPythonOperator(task_id="choose", python_callable=choose)
            with TaskGroup("group"{option}) as group:
                EmptyOperator(task_id="first") >> EmptyOperator(task_id="last")
            choice >> [group, EmptyOperator(task_id="other")]
        """,
    )
    assert ends(tmp_path, made, f"group_choice_{len(prefix)}") == {
        "choose": "ran", f"{prefix}first": "ran", f"{prefix}last": "ran", "other": "skipped",
    }  # fmt: skip


@pytest.mark.parametrize(("whole", "end"), [(True, "skipped"), (False, "ran")])
def test_a_short_circuit_skips_all_or_what_follows(tmp_path: Path, whole: bool, end: str) -> None:
    made = written(
        tmp_path,
        f"""
        with DAG("flow", schedule=None):
            gate = ShortCircuitOperator(
                task_id="gate", python_callable=lambda: [], ignore_downstream_trigger_rules={whole}
            )
            gate >> EmptyOperator(task_id="a") >> EmptyOperator(task_id="b") >> EmptyOperator(
                task_id="end", trigger_rule="all_done"
            )
        """,
    )
    assert "with when(gate_value):" in made.text
    assert "def gate():\n    return []\n" in made.text
    assert ends(tmp_path, made, f"gate_{whole}") == {"gate": "ran", "a": "skipped", "b": "skipped", "end": end}


@pytest.mark.parametrize(
    ("function", "rest", "words"),
    [
        ("def choose(): return open('x').read()", "", "its choice is only known when it runs"),
        ("def choose(): return 'nowhere'", "", "it may choose 'nowhere', and the DAG has no task of that name"),
        ("def choose(ti): return ti.task_id", "", "it takes ti of Airflow"),
        ("def choose(ds): return ds", "", "its choice is only known when it runs"),
        ("def choose():\n    if random.random() < 1: return 'a'\n    return ['a', 'b']", "", "a mix of ids, lists"),
        ("def choose():\n    for each in ('a', 'b'): return each", "", "its choice is only known when it runs"),
        ("def choose():\n    ids = ['a']\n    ids.append('b')\n    return ids", "", "its choice is only known"),
        ("def choose():\n    ids = ['a']\n    ids[0] = 'b'\n    return ids", "", "its choice is only known"),
        (
            "def choose():\n    ids = ['a']\n    more = ids\n    more += 'b'\n    return ids",
            "",
            "its choice is only known",
        ),
        ("def choose():\n    ids = more = ['a']\n    more += 'b'\n    return ids", "", "its choice is only known"),
        ("def choose(ids=['a']):\n    random.shuffle(ids)\n    return ids", "", "its choice is only known"),
        ("def choose(): return 'a'", "b.as_teardown()", "b, which comes after it, is a teardown"),
        (
            "def choose(): return random.choice(['a', 'b'])",
            """gate = ShortCircuitOperator(task_id='gate', python_callable=lambda: 1)
    [gate, choice] >> EmptyOperator(task_id='end', trigger_rule='all_done')""",
            "end waits for several choices",
        ),
    ],
)
def test_what_is_no_plain_choice_stays_an_operator(tmp_path: Path, function: str, rest: str, words: str) -> None:
    made = written(
        tmp_path,
        f"""
{function}
with DAG("flow", schedule=None):
    choice = BranchPythonOperator(task_id="choose", python_callable=choose)
    a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
    choice >> [a, b]
    {rest}
""",
    )
    assert words in reason(made, "choose")
    assert "with when(choose_value" not in made.text


@pytest.mark.parametrize(
    "body",
    [
        "found = 'a'\n    def later():\n        nonlocal found\n        found = 'b'\n    later()\n    return found",
        "global KEPT\n    KEPT = 'a'\n    return KEPT",
        "found = ['a']\n    found.append('b')\n    return found",
        "found = ['a']\n    extend(found)\n    return found",
        "found = ['a']\n    other = found\n    other += ['b']\n    return found",
        "extend(LIST)\n    return LIST",
        "match mode:\n        case KEPT:\n            pass\n    return KEPT",
        "from os import name as KEPT\n    return KEPT",
        "return SET",
        "return CHANGED",
        "return random.choice(mode)",
    ],
)
def test_a_choice_that_something_else_can_change_is_not_known(tmp_path: Path, body: str) -> None:
    made = written(
        tmp_path,
        f"""
LIST = ["a"]
CHANGED = ["a"]
KEPT = "a"
SET = "a"
def extend(what):
    what.append("b")
extend(CHANGED)
def sets():
    global SET
    SET = "b"
def choose(mode="a"):
    {body}
with DAG("flow", schedule=None):
    choice = BranchPythonOperator(task_id="choose", python_callable=choose)
    choice >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]
""",
    )
    assert reason(made, "choose").startswith("its choice is only known when it runs")


def test_a_constant_is_what_the_module_makes_of_it(tmp_path: Path) -> None:
    """The function has another value of that name."""
    made = written(
        tmp_path,
        """
        FIRST = "a"
        CHOSEN = FIRST
        def choose(mode=CHOSEN):
            FIRST = "b"
            return mode
        with DAG("flow", schedule=None):
            choice = BranchPythonOperator(task_id="choose", python_callable=choose)
            choice >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]
        """,
    )
    assert ends(tmp_path, made, "constants") == {"choose": "ran", "a": "ran", "b": "skipped"}


def test_each_task_is_decided_once_but_for_its_own_conflicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decided = Counter[str]()

    def counting(dag: DagModel, task: TaskModel, *others: Any) -> Decision:
        decided[task.task_id] += 1
        return decide(dag, task, *others)

    monkeypatch.setattr("flowyml.migration.airflow.writer.deciding.dags.decide", counting)
    made = written(
        tmp_path,
        """
        def choose(): return "nowhere"
        with DAG("flow", schedule=None):
            for n in range(20):
                BranchPythonOperator(task_id=f"t{n}", python_callable=choose) >> EmptyOperator(task_id=f"e{n}")
        """,
    )
    assert made.text.count("BranchPythonOperator") >= 20
    assert max(decided.values()) == 2


def test_a_list_that_is_looked_at_stays_a_choice(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def choose():
            ids = ["a"]
            if not ids or len(ids) > 2:
                ids = ["b"]
            return ids if "a" in ids else ids
        with DAG("flow", schedule=None):
            BranchPythonOperator(task_id="choose", python_callable=choose) >> [
                EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
            ]
        """,
    )
    assert ends(tmp_path, made, "looked_at") == {"choose": "ran", "a": "ran", "b": "skipped"}


def test_what_may_swallow_an_exception_may_choose_none(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        from contextlib import suppress
        def choose():
            with suppress(ValueError):
                return "a" if int("x") else "b"
        with DAG("flow", schedule=None):
            BranchPythonOperator(task_id="choose", python_callable=choose) >> [
                EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
            ]
        """,
    )
    assert "otherwise" not in made.text
    assert ends(tmp_path, made, "swallowed") == {"choose": "ran", "a": "skipped", "b": "skipped"}


def test_a_condition_around_a_task_holds_back_that_task_alone(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def asked(context): return True
        with DAG("flow", schedule=None):
            @task.run_if(asked)
            @task
            def a(): return 1
            @task.skip_if(condition=lambda context: False, skip_message="x")
            @task(retries=2)
            def b(value): return value
            @task
            def c(): return 1
            b(a()) >> c()
        """,
    )
    notes = {note.construct: note for dag in made.dags for note in dag.notes}
    assert {name: note.kind for name, note in notes.items()} == {
        "task a": "refused", "task b": "refused", "task c": "kept",
    }  # fmt: skip
    assert "@task.skip_if decides at run time" in notes["task b"].reason
    assert loaded(tmp_path, made, "conditions").flow.compile().by_name["c"].after == ("b",)


def test_a_value_that_may_be_missing_keeps_the_choice_an_operator(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            @task.branch
            def choose(): return random.choice(["a", "b"])
            @task
            def a(): return 1
            @task
            def b(): return 2
            @task
            def both(one, two): return one
            choose() >> [one := a(), two := b()]
            both(one, two)
        """,
    )
    assert "takes the value of" in reason(made, "choose")


def test_a_long_call_in_a_branch_stands_at_its_depth(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def choose(): return "a"
        with DAG("flow", schedule=None, default_args={"retries": 3}):
            choice = BranchPythonOperator(task_id="choice", python_callable=choose)
            choice >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]
    """,
    )
    assert '    with elif_(choice_value == "b"):\n        nothing.options(\n            name="b",\n' in made.text
