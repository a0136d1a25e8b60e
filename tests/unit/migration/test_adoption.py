"""The plan for moving the DAGs of an Airflow: its order, and its files, whatever the names in it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flowyml.cli import airflow, main
from flowyml.core.execution_status import ExecutionStatus
from flowyml.migration.airflow.adoption import FORMATS, HEADERS, Adoption, Outlook, adoption, exported, totals
from flowyml.migration.airflow.model import DagModel, FileModel, Place, TaskModel
from flowyml.migration.airflow.writer.notes import DagResult, FileResult, Kind, Note
from flowyml.orchestrators.workflows import Workflow

ROOT = Path(__file__).resolve().parents[3]
HERE = Place("dags/a.py", 1)
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b\nc",
    "=cmd|' /C calc'!A0",
    "**x** [l](javascript:1)",
    "\x1b[2J",
    "`",
    "&lt;",
    "＝1+1",
]


def _dag(name: str, tasks: int = 1) -> DagModel:
    made = [
        TaskModel(task_id=f"t{number}", label="t", operator="PythonOperator", import_path="x", place=HERE)
        for number in range(tasks)
    ]
    return DagModel(dag_id=name, path="dags/a.py", place=HERE, tasks=tuple(made))


def _result(name: str, *notes: Note) -> DagResult:
    return DagResult(name, name, HERE, notes)


def _workflow(name: str, *, failed: int = 0, file: str = "/opt/dags/a.py", own: bool = False) -> Workflow:
    runs = Counter({ExecutionStatus.FAILED: failed, ExecutionStatus.COMPLETED: 3})
    return Workflow(name=name, schedule="0 3 * * *", owners=("ada",), file=file, runs=runs, is_flowymls=own)


def _file(path: str, *results: DagResult, reason: str = "", unwritten: str = "") -> tuple[FileModel, FileResult]:
    dags = tuple(replace(_dag(each.dag_id, 2), path=path) for each in results)
    written = FileResult(path, reason=unwritten) if unwritten else FileResult(path, dags=results)
    return FileModel(path=path, root="/x", dags=dags, reason=reason or None), written


FILES = [
    _file(
        "dags/a.py",
        _result("plain", Note(Kind.KEPT, "task a", HERE), Note(Kind.CHANGED, "catchup", HERE, "it is on")),
        _result("flaky", Note(Kind.KEPT, "task a", HERE, "it is flowyml.steps.bash")),
        _result(
            "cloud",
            Note(Kind.OPAQUE, "task a", HERE, "it is S3ListOperator"),
            Note(Kind.OPAQUE, "task b", HERE, "it is S3ListOperator"),
            Note(Kind.KEPT, "task c", HERE, "it imports airflow", airflow_only=True),
        ),
        _result(
            "odd",
            Note(Kind.OPAQUE, "task a", HERE, "it is S3ListOperator"),
            Note(Kind.REFUSED, "reading", HERE, "a loop over what is unknown"),
            Note(Kind.REFUSED, "task b", HERE, "it is mapped within a mapped task group"),
        ),
    ),
    _file("dags/broken.py", reason="it is not valid Python: invalid syntax (line 3)"),
    _file("dags/unwritten.py", _result("unwritten"), unwritten="it could not be written: X"),
    _file("dags/other/a.py", _result("twice", Note(Kind.REFUSED, "task a", HERE, "why"))),
    _file("dags/one/a.py", _result("twice")),
]
FOUND = adoption(
    [
        _workflow("plain"), _workflow("cloud"), _workflow("odd"), _workflow("ours", own=True), _workflow("gone"),
        _workflow("flaky", failed=2), _workflow("broken", file="/opt/dags/broken.py"), _workflow("unwritten"),
        _workflow("twice", file="/opt/one/a.py"),
    ],
    FILES,
)  # fmt: skip


def test_the_worst_come_first_with_their_reasons() -> None:
    assert [(one.workflow.name, str(one.outlook)) for one in FOUND] == [
        ("gone", "not found"), ("broken", "not imported"), ("unwritten", "not imported"), ("odd", "needs a hand"),
        ("cloud", "Airflow only"), ("flaky", "any engine"), ("plain", "any engine"), ("twice", "any engine"),
        ("ours", "is FlowyML's"),
    ]  # fmt: skip
    reasons = {one.workflow.name: one.reasons for one in FOUND if one.reasons}
    assert reasons == {
        "gone": ("no file in the folder makes it",),
        "broken": ("it is not valid Python: invalid syntax (line 3)",),
        "unwritten": ("it could not be written: X",),
        "odd": ("dags/a.py:1: a loop over what is unknown", "task b: it is mapped within a mapped task group"),
        "cloud": ("task a, task b: it is S3ListOperator", "task c: it imports airflow"),
    }
    assert totals(FOUND) == (
        "9 DAGs: 1 is FlowyML's, 3 any engine, 1 Airflow only, 1 needs a hand, 2 not imported, 1 not found"
    )


def test_without_a_folder_nothing_is_guessed() -> None:
    assert [one.outlook for one in adoption([_workflow("plain")], None)] == [Outlook.UNKNOWN]


def test_every_format_has_every_dag() -> None:
    rows = list(csv.reader(io.StringIO(exported(FOUND, "csv"))))
    assert tuple(rows[0]) == HEADERS
    assert [row[0] for row in rows[1:]] == [one.workflow.name for one in FOUND]
    assert rows[6][7] == "3 completed, 2 failed"
    assert [one["dag_id"] for one in json.loads(exported(FOUND, "json"))] == [one.workflow.name for one in FOUND]
    for form in ("markdown", "html"):
        assert all(one.workflow.name in exported(FOUND, form) for one in FOUND)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", HOSTILE)
def test_names_stay_text(form: str, text: str) -> None:
    """The same table as with a plain name: no cell, row, tag or formula more."""
    workflow = Workflow(name=text, schedule=text, owners=(text,), tags=(text,), file=text)
    made = exported([Adoption(workflow=workflow, outlook=Outlook.NEEDS_A_HAND, reasons=(text,))], form)
    if form == "csv":
        (_, row) = csv.reader(io.StringIO(made))
        assert len(row) == len(HEADERS)
        assert not any(cell.startswith(("=", "+", "-", "@", "＝")) for cell in row)
    elif form == "html":
        if "\x1b" not in text:  # no XML has that character
            table = ElementTree.fromstring(made[made.index("<table") : made.index("</body>")])
            assert [len(row) for row in table.iter("tr")] == [len(HEADERS)] * 2
        assert "<script" not in made
    elif form == "markdown":
        assert made.splitlines()[-1].replace("\\|", "").count("|") == len(HEADERS) + 1
        assert "<" not in made.splitlines()[-1]
    else:
        assert json.loads(made)[0]["dag_id"] == text


ODD = """
import os
from datetime import datetime
from airflow import DAG
from airflow.models import Variable
from airflow.operators.bash import BashOperator
from airflow.operators.python import PythonOperator
from airflow.providers.amazon.aws.operators.s3 import S3ListOperator
from helpers import unknown

def greet():
    print("hello")

def ask(ti):
    return ti.try_number

with DAG("kept", schedule="@daily", start_date=datetime(2026, 1, 1)):
    PythonOperator(task_id="greet", python_callable=greet) >> BashOperator(task_id="say", bash_command="echo {{ ds }}")

with DAG("asking", schedule=None):
    PythonOperator(task_id="ask", python_callable=ask)

with DAG("shell", schedule=None):
    BashOperator(task_id="alone", bash_command="env", env={"A": "1"})

with DAG("cloud", schedule=None):
    S3ListOperator(task_id="list", bucket="b")

with DAG("unsure", schedule=None):
    for name in unknown():
        BashOperator(task_id=f"say_{name}", bash_command="true")

with DAG("by_variable", schedule=None):
    for name in Variable.get("names", deserialize_json=True):
        BashOperator(task_id=f"say_{name}", bash_command="true")
"""


class _Airflow:
    """One that has DAGs by these ids."""

    def __init__(self, *ids: str) -> None:
        self._ids = ids

    def workflows(self, *, last: int) -> list[Workflow]:
        return [Workflow(name=each, schedule=None, file="/opt/dags/odd.py") for each in self._ids]


@pytest.mark.parametrize("options", [[], ["--variables", "variables.json"]])
def test_adopt_and_import_say_the_same_of_each_dag(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("libcst")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples/airflow_dags", tmp_path / "dags")
    (tmp_path / "dags/odd.py").write_text(ODD)
    (tmp_path / "variables.json").write_text('{"names": ["a", "b"]}')
    assert main(["import", "airflow", "dags", "-o", "pipelines", "--json", *options]) == 0
    by_import = json.loads(capfd.readouterr().out)
    verdicts = {dag["dag_id"]: dag["verdict"] for file in by_import["files"] for dag in file["dags"]}
    assert {"kept", "asking", "shell", "cloud", "unsure", "by_variable", "order_totals"} <= verdicts.keys()
    assert set(verdicts.values()) == {"any engine", "Airflow only", "needs a hand"}
    assert (verdicts["by_variable"] == "any engine") is bool(options)

    monkeypatch.setattr(airflow, "resolve", lambda _: _Airflow(*verdicts))
    assert main(["airflow", "adopt", "--dags", "dags", "--json", *options]) == 0
    by_adopt = json.loads(capfd.readouterr().out)
    assert {one["dag_id"]: one["outlook"] for one in by_adopt} == {
        name: verdict.lower().replace(" ", "_") for name, verdict in verdicts.items()
    }
    assert all(bool(one["reasons"]) is (one["outlook"] != "any_engine") for one in by_adopt)


def test_how_to_read_needs_a_folder(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["airflow", "adopt", "--env", "A=1"]) == 2
    assert "name their folder with --dags" in " ".join(capfd.readouterr().err.split())
