"""What a ``Param`` of a DAG checks is checked of a pipeline's parameter too, or named in the report."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml.core.errors import ParameterError
from flowyml.migration.airflow.writer.notes import Kind
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.plan.parameters import check_values
from tests.unit.migration.dag_files import read
from tests.unit.migration.modules import loaded

HEAD = """
from airflow import DAG
from airflow.models.param import Param
from airflow.operators.bash import BashOperator
"""


def written(folder: Path, param: str) -> Written:
    text = f"""
        with DAG("flow", schedule=None, params={{"p": {param}}}):
            BashOperator(task_id="t", bash_command="echo {{{{ params.p }}}}")
    """
    file = read(folder, HEAD + textwrap.dedent(text))
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


def unsaid(made: Written) -> list[str]:
    return [note.construct for dag in made.dags for note in dag.notes if note.kind is Kind.CHANGED
            and "parameter" in note.construct]  # fmt: skip


@pytest.mark.parametrize(("param", "annotation", "right", "wrong"), [
    ("Param(3, type='integer', minimum=1, maximum=9)", "Annotated[int, Field(ge=1, le=9)]", 9, 10),
    ("Param(3, schema={'type': 'integer', 'minimum': 1})", "Annotated[int, Field(ge=1)]", 1, 0),
    ("Param(0.5, type='number', exclusiveMaximum=1)", "Annotated[float, Field(lt=1)]", 0.9, 1.0),
    ("Param(1, type='number')", "int | float", 0.5, "a"),
    ("Param('full', enum=['full', 'delta'])", 'Literal["full", "delta"]', "delta", "other"),
    ("Param('u', enum=['u', None], type=['string', 'null'])", 'Literal["u", None]', None, "v"),
    ("Param('abc', type='string', minLength=2, pattern='^a(?=b)')",
     'Annotated[str, Field(min_length=2, json_schema_extra={"pattern": "^a(?=b)"})]', "ab", "ba"),
    ("Param('2026-01-01', type='string', format='date')", 'Annotated[str, Field(json_schema_extra={"format": "date"})]',
     "2026-02-01", "2026-13-01"),
    ("Param([1], type='array', items={'type': 'integer'}, minItems=1)",
     'Annotated[list, Field(min_length=1, json_schema_extra={"items": {"type": "integer"}})]', [2], ["x"]),
    ("Param(None, type=['null', 'integer'], minimum=2)",
     'Annotated[int | None, Field(json_schema_extra={"minimum": 2})]', 2, 1),
    ("Param('x', type=['null', 'string'])", "str | None", None, 1),
    ("Param('x', type='string', format='multiline')", "str", "y", 1),
    ("Param('x', type='string', title='Shown', description='why', section='s')", "str", "y", 1),
])  # fmt: skip
def test_what_a_param_checks_is_checked(tmp_path: Path, param: str, annotation: str, right: Any, wrong: Any) -> None:
    made = written(tmp_path, param)
    assert unsaid(made) == []
    assert f"p: {annotation} = " in " ".join(made.text.split()).replace("[ ", "[").replace(", ]", "]")
    parameters = loaded(tmp_path, made, "params_of_dag").flow.compile().parameters
    check_values("flow", parameters, {})
    check_values("flow", parameters, {"p": right})
    with pytest.raises(ParameterError, match="'p'"):
        check_values("flow", parameters, {"p": wrong})


@pytest.mark.parametrize(("param", "construct"), [
    ("Param('a@b.c', type='string', format='email')", "format of parameter p"),
    ("Param(type='string')", "default of parameter p"),
    ("Param(None, type='integer', minimum=1)", "default of parameter p"),
    ("Param(3, type='integer', maximum=limit())", "maximum of parameter p"),
])  # fmt: skip
def test_what_it_cannot_check_is_named(tmp_path: Path, param: str, construct: str) -> None:
    assert unsaid(written(tmp_path, param)) == [construct]


def test_workers_need_no_pydantic(tmp_path: Path) -> None:
    made = written(tmp_path, "Param(3, type='integer', minimum=1)")
    assert "with suppress(ImportError):  # what checks parameters has it\n    from pydantic import Field\n" in made.text


def test_no_text_of_a_param_becomes_code(tmp_path: Path) -> None:
    evil = '"] = 1, *, x=__import__("os").system("x")  # \n"""'
    made = written(tmp_path, f"Param({evil!r}, enum=[{evil!r}, 'x'], type='string')")
    other = written(tmp_path, f"Param({evil!r}, type='string', pattern={evil!r}, **{{{evil!r}: {evil!r}}})")
    for text in (made.text, other.text):
        calls = {ast.unparse(each.func) for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Call)}
        assert calls <= {"Field", "bash", "suppress", "t"}
