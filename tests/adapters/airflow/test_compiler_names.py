"""The compiler: no name breaks out of a DAG file. No Airflow here."""

from __future__ import annotations

import ast
import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml.plan.model import FromParameter, FromStep, Input, Parameter, PipelineOutput, Plan, Step
from flowyml_airflow.dag_file.parts import WORKER
from flowyml_airflow.names import START_TASK, dag_id, task_id, xcom_key
from tests.adapters.airflow.test_compiler import formatted, text


def test_no_two_share_a_task_or_an_xcom_and_none_is_airflows_own() -> None:
    names = ["a b", "a-b", "a_b", "A_b", "a/b", "ä_b", START_TASK, "class", "x" * 200, "y" * 199 + "/", "return_value"]
    for made, taken in (([*map(task_id, names)], START_TASK), ([*map(xcom_key, names)], "return_value")):
        assert len({*made, taken}) == len(names) + 1
        assert all(len(each) <= 250 and each.isascii() for each in made)


NAMES = st.one_of(
    st.sampled_from(
        ["Step", "DAG", "BUNDLE", "worker", "stop", "start", "datetime", "None", "print", '"""', "'", '"', "\\", "{x}",
         "$HOME", "__doc__", "import os", "../../etc", "名前", START_TASK, "{{ 1/0 }}", "{% raw %}", "on_end", "a.b"]
    ),
    st.text(min_size=1, max_size=40).filter(lambda name: name.isprintable() and name == name.strip()),
)  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(NAMES, min_size=1, max_size=6, unique=True), NAMES, st.text(max_size=200), st.lists(NAMES, max_size=2)
)  # fmt: skip
def test_no_name_breaks_out(steps: list[str], pipeline: str, about: str, tags: list[str]) -> None:
    plan = hostile_plan(steps, pipeline, about, tags)
    compiled = text(plan)
    tree = ast.parse(compiled)
    kinds = [type(node).__name__ for node in tree.body]
    assert kinds[-1] == "With"
    assert set(kinds[:-1]) <= {"Expr", "ImportFrom", "Import", "Try", "Assign", "FunctionDef", "ClassDef"}
    assert kinds.count("Expr") == 1  # the docstring
    dag = tree.body[-1]
    assert isinstance(dag, ast.With)
    calls = [node for node in dag.body if isinstance(node, ast.Assign)]
    assert [literal(node, "step") for node in calls] == steps
    assert [literal(node, "task_id") for node in calls] == [task_id(name) for name in steps]
    assert literal(dag.items[0].context_expr, "dag_id") == dag_id(pipeline)
    targets = [ast.unparse(node.targets[0]) for node in calls]
    assert len(set(targets)) == len(targets)
    taken = "Step DAG BUNDLE PYTHON ARTIFACTS worker stop datetime timezone print"
    assert not {*targets} & {*taken.split()}


def test_a_task_that_is_stopped_while_its_code_is_loaded_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"sys": sys}
    exec(WORKER, names)
    monkeypatch.setitem(sys.modules, "flowyml_airflow.worker", ModuleType("half"))
    with pytest.raises(SystemExit, match="stopped before the code of its step was loaded"):
        names["stop"]()
    try:
        raise TimeoutError
    except TimeoutError:
        names["stop"]()  # that error is what ends the task


# Ruff knows how wide characters are that came to Unicode after this Python did.
KNOWN = st.characters(exclude_categories=("Cn", "Cs"))


@settings(max_examples=15)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), NAMES, st.text(KNOWN, max_size=300))
def test_hostile_files_are_formatted_too(steps: list[str], pipeline: str, about: str) -> None:
    compiled = text(hostile_plan(steps, pipeline, about, []))
    assert formatted(compiled) == compiled


def hostile_plan(steps: list[str], pipeline: str, about: str, tags: list[str]) -> Plan:
    """A chain in which each name stands wherever a name can stand."""
    made = [
        Step(
            name=steps[0], function="m:f", inputs=(Input("p", FromParameter("p")),), outputs=("out",), description=about
        )
    ]
    for before, name in pairwise(steps):
        inputs = (Input("x", FromStep(before, "out")),)
        made.append(
            Step(name=name, function="m:f", inputs=inputs, outputs=("out",), after=(steps[0],), description=name)
        )
    return Plan(
        name=pipeline,
        steps=tuple(made),
        parameters=(
            Parameter(name="p", schema={"type": "string", "title": pipeline, "$comment": about}, default=about),
        ),
        outputs=(PipelineOutput(pipeline, FromStep(steps[-1], "out")),),
        tags=tuple(dict.fromkeys(tags)),
        description=about,
        options={"airflow": {"owner": pipeline}},
    )


def literal(node: ast.AST, keyword: str) -> Any:
    call = node.value if isinstance(node, ast.Assign) else node
    assert isinstance(call, ast.Call)
    return next(ast.literal_eval(item.value) for item in call.keywords if item.arg == keyword)
