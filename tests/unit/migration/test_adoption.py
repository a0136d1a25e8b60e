"""The plan for moving the DAGs of an Airflow: its order, and its files, whatever the names in it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from xml.etree import ElementTree

import pytest

from flowyml.core.execution_status import ExecutionStatus
from flowyml.migration.airflow.adoption import FORMATS, HEADERS, Adoption, Outlook, adoption, exported, totals
from flowyml.migration.airflow.model import DagModel, DagWarning, FileModel, Place, TaskModel
from flowyml.orchestrators.workflows import Workflow

HERE = Place("dags/a.py", 1)
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b\nc",
    "=cmd|' /C calc'!A0",
    "**x** [l](javascript:1)",
    "\x1b[2J",
    "`",
    "&lt;",
]


def _task(name: str, operator: str = "PythonOperator", decorator: str | None = None) -> TaskModel:
    return TaskModel(
        task_id=name, label=name, operator=operator, import_path=f"airflow.{operator}", place=HERE, decorator=decorator
    )


def _dag(name: str, *tasks: TaskModel, warnings: tuple[DagWarning, ...] = ()) -> DagModel:
    return DagModel(dag_id=name, path="dags/a.py", place=HERE, tasks=tasks, warnings=warnings)


def _workflow(name: str, *, failed: int = 0, file: str = "/opt/dags/a.py", own: bool = False) -> Workflow:
    runs = Counter({ExecutionStatus.FAILED: failed, ExecutionStatus.COMPLETED: 3})
    return Workflow(name=name, schedule="0 3 * * *", owners=("ada",), file=file, runs=runs, is_flowymls=own)


FILES = [
    FileModel(
        path="dags/a.py",
        root="/x",
        dags=(
            _dag("plain", _task("a"), _task("b", "_PythonDecoratedOperator", "@task")),
            _dag("flaky", _task("a", "BashOperator"), _task("b", "_BashDecoratedOperator", "@task.bash")),
            _dag("cloud", _task("a"), _task("b", "S3ListOperator"), _task("c", "S3ListOperator")),
            _dag("choosing", _task("a", "BranchPythonOperator"), _task("b", "_BranchDecorated", "@task.branch")),
            _dag("waiting", _task("a", "_SensorDecorated", "@task.sensor")),
            _dag("asking", _task("a", "HttpOperator")),
            _dag("odd", _task("a"), warnings=(DagWarning("unknown-loop", "a loop over what is not known", HERE),)),
        ),
    ),
    FileModel(path="dags/broken.py", root="/x", reason="it is no Python: invalid syntax (line 3)"),
]
FOUND = adoption(
    [
        _workflow("plain"), _workflow("cloud"), _workflow("odd"), _workflow("ours", own=True), _workflow("gone"),
        _workflow("flaky", failed=2), _workflow("broken", file="/opt/dags/broken.py"),
        _workflow("choosing"), _workflow("asking"), _workflow("waiting"),
    ],
    FILES,
)  # fmt: skip


def test_the_worst_come_first_with_their_reasons() -> None:
    assert [(one.workflow.name, str(one.outlook)) for one in FOUND] == [
        ("gone", "not found"), ("broken", "unreadable"), ("odd", "needs a hand"), ("asking", "airflow only"),
        ("cloud", "airflow only"), ("waiting", "airflow only"), ("flaky", "any engine"), ("choosing", "any engine"),
        ("plain", "any engine"),
        ("ours", "is FlowyML's"),
    ]  # fmt: skip
    reasons = {one.workflow.name: one.reasons for one in FOUND}
    assert reasons["cloud"] == ("S3ListOperator: b, c",)
    assert reasons["waiting"] == ("@task.sensor: a",)
    assert reasons["broken"] == ("it is no Python: invalid syntax (line 3)",)
    assert reasons["odd"] == ("dags/a.py:1: a loop over what is not known",)
    assert totals(FOUND) == (
        "10 DAGs: 1 is FlowyML's, 3 any engine, 3 airflow only, 1 needs a hand, 1 unreadable, 1 not found"
    )


def test_without_a_folder_nothing_is_guessed() -> None:
    assert [one.outlook for one in adoption([_workflow("plain")], None)] == [Outlook.UNKNOWN]


def test_every_format_has_every_dag() -> None:
    rows = list(csv.reader(io.StringIO(exported(FOUND, "csv"))))
    assert tuple(rows[0]) == HEADERS
    assert [row[0] for row in rows[1:]] == [one.workflow.name for one in FOUND]
    assert rows[7][7] == "3 completed, 2 failed"
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
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)
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
