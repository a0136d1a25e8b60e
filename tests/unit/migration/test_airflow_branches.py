"""Branching tasks as branches of a pipeline: how they read, and what stays with its operator."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind
from tests.unit.migration.flows import FLOWS
from tests.unit.migration.modules import dag, loaded, note, of_kind, written

CHOICE = """
choice = BranchPythonOperator(task_id="choose", python_callable=choose)
a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
choice >> [a, b]
"""
MODULE = """
import random
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
"""
OPEN = "its choice is only known when it runs"


def test_a_choice_of_one_is_when_and_otherwise(tmp_path: Path) -> None:
    body = written(tmp_path, FLOWS["a_choice_of_one"].text).text.partition("def flow()")[2]
    assert [line.strip() for line in body.splitlines()[2:7]] == [
        'with when(choose_value == "few"):', "few_value = few()", "after_few(few_value)", "with otherwise():", "many()",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("(): return open('x').read()", OPEN),
        ("(): return 'nowhere'", "it may choose 'nowhere', and the DAG has no task of that name"),
        ("(ti): return ti.task_id", "it takes ti of Airflow"),
        ("(ds): return ds", OPEN),
        ("():\n    if random.random() < 1: return 'a'\n    return ['a', 'b']", "a mix of ids, lists"),
        ("():\n    for each in ('a', 'b'): return each", OPEN),
        ("():\n    ids = ['a']\n    ids[0] = 'b'\n    return ids", OPEN),
        ("():\n    ids = ['a']\n    more = ids\n    more += 'b'\n    return ids", OPEN),
        ("():\n    ids = more = ['a']\n    more += 'b'\n    return ids", OPEN),
        ("():\n    found = ['a']\n    found.append('b')\n    return found", OPEN),
        ("():\n    found = ['a']\n    extend(found)\n    return found", OPEN),
        ("(ids=['a']):\n    random.shuffle(ids)\n    return ids", OPEN),
        ("():\n    ids = 'a'\n    def f():\n        nonlocal ids\n        ids = 'b'\n    f()\n    return ids", OPEN),
        ("():\n    global KEPT\n    KEPT = 'a'\n    return KEPT", OPEN),
        ("():\n    extend(LIST)\n    return LIST", OPEN),
        ("(mode='a'):\n    match mode:\n        case KEPT:\n            pass\n    return KEPT", OPEN),
        ("():\n    from os import name as KEPT\n    return KEPT", OPEN),
        ("(): return SET", OPEN),
        ("(): return CHANGED", OPEN),
        ("(mode='a'): return random.choice(mode)", OPEN),
    ],
)  # fmt: skip
def test_a_choice_that_is_not_known_stays_an_operator(tmp_path: Path, function: str, words: str) -> None:
    made = written(tmp_path, dag(CHOICE, before=f"{MODULE}def choose{function}\n"))
    assert note(made, "task choose").kind is Kind.OPAQUE
    assert words in note(made, "task choose").reason


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("b.as_teardown()", "b, which comes after it, is a teardown"),
        ("""gate = ShortCircuitOperator(task_id='gate', python_callable=lambda: 1)
[gate, choice] >> EmptyOperator(task_id='end', trigger_rule='all_done')""", "end waits for several choices"),
        ("choice >> [one := made.override(task_id='c')(), two := made.override(task_id='d')()]\nboth(one, two)",
         "takes the value of"),
    ],
)  # fmt: skip
def test_a_choice_of_more_than_steps_stays_an_operator(tmp_path: Path, more: str, words: str) -> None:
    ids = list("abcd" if "both" in more else "ab")
    functions = f"import random\ndef choose(): return random.choice({ids})\n"
    functions += "@task\ndef made(): return 1\n@task\ndef both(one, two): return one\n"
    made = written(tmp_path, dag(CHOICE + more, before=functions))
    assert words in note(made, "task choose").reason


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
    refused = of_kind(made, Kind.REFUSED)
    assert refused.keys() == {"task a", "task b"}
    assert "@task.skip_if decides at run time" in refused["task b"]
    assert loaded(tmp_path, made).flow.compile().by_name["c"].after == ("b",)


def test_a_task_in_a_branch_that_runs_in_any_case_is_said(tmp_path: Path) -> None:
    """If the choice fails, Airflow runs it, since nothing was skipped."""
    tasks = """
    gate = ShortCircuitOperator(task_id="gate", python_callable=lambda: True)
    gate >> EmptyOperator(task_id="a") >> EmptyOperator(task_id="clean", trigger_rule="all_done")
    """
    made = written(tmp_path, dag(tasks))
    found = note(made, "state of clean")
    assert (found.kind, found.reason) == (Kind.CHANGED, "if gate fails, it does not run, and on Airflow it does")
    assert "state of a" not in of_kind(made, Kind.CHANGED)
