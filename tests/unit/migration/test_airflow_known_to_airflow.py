"""What only Airflow knows when it reads a DAG file, and what the file makes of it: never the default alone."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.model import Symbolic
from flowyml.migration.airflow.writer.notes import Kind
from tests.unit.migration.dag_files import HEAD, read
from tests.unit.migration.modules import dag, of_kind, written

KNOWN = """
SCHEMA = Variable.get("schema", default_var="mart")
BUCKET = Variable.get("bucket")
HOST = os.environ.get("HOST", "localhost")
CONFIG = Variable.get("config", default_var={"k": "v", "t": ["p", "q"]}, deserialize_json=True)
OTHER = Variable.get("other", default_var=HOST)
"""
VARIABLE = 'imported("airflow.models:Variable.get")'
S, B, H = (
    f'{VARIABLE}("schema", default_var="mart")',
    f'{VARIABLE}("bucket")',
    'imported("os:environ.get")("HOST", "localhost")',
)
PLAIN = "BashOperator(task_id='t', bash_command='x')"


def argument(folder: Path, expression: str) -> tuple[str, list[str]]:
    """The module for an operator with this argument on one line, and what the report refuses."""
    task = f"BashOperator(task_id='t', bash_command='x', env={{'A': {expression}}}, pool='p', queue='q')"
    made = written(folder, dag(task, before=KNOWN))
    text = " ".join(made.text.split())
    return text.replace("( ", "(").replace(", )", ")").replace(", }", "}"), [*of_kind(made, Kind.REFUSED).values()]


@pytest.mark.parametrize(
    ("expression", "written_as"),
    [
        ("SCHEMA", S),
        ('{"x": SCHEMA}.get("x")', S),
        ('{}.get("x", SCHEMA)', S),
        ("OTHER", f'{VARIABLE}("other", default_var={H})'),
        ("CONFIG", f'{VARIABLE}("config", default_var={{"k": "v", "t": ["p", "q"]}}, deserialize_json=True)'),
        ('Variable.get("a", "b")', f'{VARIABLE}("a", default_var="b")'),
        ('Variable.get("j", deserialize_json=True)', f'{VARIABLE}("j", deserialize_json=True)'),
        ('os.environ["H"]', 'imported("os:environ.__getitem__")("H")'),  # which fails where it is not set
        *((expression, f'imported("builtins:str.format")("{text}", {", ".join(values)})')
          for expression, text, *values in (
              ('f"select {SCHEMA}.t {{{{ ds }}}}"', "select {}.t {{{{ ds }}}}", S),
              ('"select " + SCHEMA + ".t"', "select {}.t", S),
              ('"select {}.t {h}".format(SCHEMA, h=HOST)', "select {}.t {}", S, H),
              ('"select %s.t 100%%" % SCHEMA', "select {}.t 100%", S),
              ('"%(s)s on %(h)s" % {"s": SCHEMA, "h": HOST}', "{} on {}", S, H),
              ('".".join([SCHEMA, "t", HOST])', "{}.t.{}", S, H),
              ('f"{BUCKET}/{SCHEMA}"', "{}/{}", B, S),
              ('"s3://" + BUCKET + "/x"', "s3://{}/x", B),
              ('"s3://%s/x" % BUCKET', "s3://{}/x", B),
              ('f"{os.environ[\'X\']}!"', "{}!", 'imported("os:environ.__getitem__")("X")'),
              ('f"{OTHER}!"', "{}!", f'{VARIABLE}("other", default_var={H})'),
          )),
    ],
)  # fmt: skip
def test_a_variable_is_asked_where_airflow_reads_the_file(tmp_path: Path, expression: str, written_as: str) -> None:
    """As it stands, in a text, or under its name in the file."""
    text, refused = argument(tmp_path, expression)
    assert refused == []
    assert (f"{expression} = " if expression.isidentifier() else '"A": ') + written_as in text


@pytest.mark.parametrize("expression", [
    "SCHEMA.upper()", 'f"{SCHEMA.upper()} done"', 'f"{SCHEMA!r}"', 'SCHEMA or "none"',
    '"a" if SCHEMA == "mart" else "b"',
    "SCHEMA[0]", 'CONFIG["k"]', '",".join(CONFIG["t"])', 'os.path.join(SCHEMA, "x")', '{"mart": 1}.get(SCHEMA)',
    '[each + "1" for each in CONFIG["t"]]', "[*CONFIG['t'], 'x']", "{**CONFIG}", "sorted(CONFIG)", "dict(CONFIG)",
    'max(SCHEMA, "a")', '"abc"[:len(SCHEMA)]', "{SCHEMA: 1}", 'any(each == SCHEMA for each in ["a"])',
    "SCHEMA.format(1)", "len(CONFIG)", '("%s" % BUCKET).upper()', 'SCHEMA.partition("-")[::2][0]',
])  # fmt: skip
def test_what_is_otherwise_made_of_a_variable_is_refused_with_the_reason(tmp_path: Path, expression: str) -> None:
    text, refused = argument(tmp_path, expression)
    assert len(refused) == 1
    assert "only Airflow knows" in refused[0]
    assert "NotImplementedError" in text


def test_a_model_says_what_a_text_is_made_of(tmp_path: Path) -> None:
    task = 'BashOperator(task_id="t", bash_command=f"echo {SCHEMA} on {HOST}")'
    given = read(tmp_path, HEAD + dag(task, before=KNOWN)).dags[0].tasks[0].argument("bash_command")
    assert given is not None
    assert isinstance(given.value, Symbolic)
    assert given.value.derived
    assert given.value.default == "echo mart on localhost"
    assert [getattr(each, "origin", each) for each in given.value.parts] == [
        "echo ", "variable:schema", " on ", "env:HOST",
    ]  # fmt: skip


@pytest.mark.parametrize(("lines", "said"), [
    ("if SCHEMA == 'mart':\n    X = 'a'",
     "`SCHEMA == 'mart'` is True with the default of variable:schema: its body is read"),
    ("match SCHEMA:\n    case 'mart': X = 'a'", "`match SCHEMA` depends on the default of variable:schema"),
    ("X = []\nX += CONFIG['t']", "what `X += CONFIG['t']` adds depends on the default of variable-json:config"),
    ("X = {}\nX[SCHEMA] = 1", "where `X[SCHEMA]` stands depends on the default of variable:schema"),
    ("X = []\nfor each in CONFIG['t']: X.append(each)",
     "what this loop makes depends on the default of variable-json:config"),
])  # fmt: skip
def test_what_a_default_decides_is_said(tmp_path: Path, lines: str, said: str) -> None:
    made = written(tmp_path, dag(PLAIN, before=f"{KNOWN}\n{lines}"))
    assert said in [note.reason for dag in made.dags for note in dag.notes if note.kind is Kind.CHANGED]


def test_what_a_file_puts_into_the_environment_is_what_it_reads_there(tmp_path: Path) -> None:
    body = """
    os.environ["TEAM"] = "data"
    os.environ.setdefault("ENV", "dev")
    os.environ.update({"A": "a"}, B="b")
    if Variable.get("c"):
        os.environ["A"] = "c"
    with DAG(os.environ["TEAM"], schedule=None):
        EmptyOperator(task_id=os.environ["ENV"])
        EmptyOperator(task_id=os.getenv("B"))
        EmptyOperator(task_id=os.environ["A"])
    """
    (found,) = read(tmp_path, HEAD + textwrap.dedent(body)).dags
    assert found.dag_id == "data"
    assert [task.task_id if task.id_known else "?" for task in found.tasks] == ["dev", "b", "?"]
    assert "a task's id depends on env:ENV: 'dev' comes from its default" in {one.text for one in found.warnings}
    (given,) = read(tmp_path, HEAD + textwrap.dedent(body), env={"ENV": "prod", "TEAM": "x"}).dags
    assert (given.dag_id, given.tasks[0].task_id) == ("data", "prod")
