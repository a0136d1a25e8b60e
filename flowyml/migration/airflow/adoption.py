"""The DAGs of a running Airflow, and what the importer would make of each: a plan for moving them, worst first."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePosixPath

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.plain_text import safe_line
from flowyml.migration.airflow.model import DagModel, FileModel
from flowyml.orchestrators.workflows import Workflow

__all__ = ["FORMATS", "Adoption", "Outlook", "adoption", "exported"]

#: Tasks that `flowyml import airflow` writes as steps for any engine; it makes tasks of Airflow of all others.
_ANYWHERE = frozenset({
    "PythonOperator", "BranchPythonOperator", "ShortCircuitOperator", "BashOperator", "EmptyOperator", "DummyOperator",
})  # fmt: skip
_DECORATORS = frozenset({"@task", "@task.branch", "@task.short_circuit", "@task.bash"})


class Outlook(IntEnum):
    """What becomes of a DAG, the worst first."""

    NOT_FOUND = 0
    UNREADABLE = 1
    NEEDS_A_HAND = 2
    AIRFLOW_ONLY = 3
    ANY_ENGINE = 4
    UNKNOWN = 5
    """No folder was given."""
    IS_FLOWYMLS = 6

    def __str__(self) -> str:
        return {"IS_FLOWYMLS": "is FlowyML's", "UNKNOWN": "?"}.get(self.name, self.name.replace("_", " ").lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A DAG with its outlook, and the reasons for it. ``tasks`` is None where it was not read."""

    workflow: Workflow
    outlook: Outlook
    reasons: tuple[str, ...] = ()
    tasks: int | None = None

    @property
    def failed(self) -> int:
        """How many of the last runs failed."""
        return self.workflow.runs.get(ExecutionStatus.FAILED, 0)


def adoption(workflows: Iterable[Workflow], files: Sequence[FileModel] | None) -> list[Adoption]:
    """Each workflow with what the files say of it; ``files`` is None where no folder is known."""
    by_id: dict[str, DagModel] = {}
    unread: dict[str, str] = {}
    for file in files or ():
        by_id.update((dag.dag_id, dag) for dag in file.dags if dag.id_known)
        if file.reason is not None:
            unread[PurePosixPath(file.path).name] = file.reason
    made = [_adoption(workflow, files is not None, by_id, unread) for workflow in workflows]
    return sorted(made, key=lambda one: (one.outlook, -one.failed, one.workflow.name))


def _adoption(workflow: Workflow, is_read: bool, dags: Mapping[str, DagModel], unread: Mapping[str, str]) -> Adoption:
    if workflow.is_flowymls:
        return Adoption(workflow=workflow, outlook=Outlook.IS_FLOWYMLS)
    if not is_read:
        return Adoption(workflow=workflow, outlook=Outlook.UNKNOWN)
    dag = dags.get(workflow.name)
    if dag is None:
        if reason := unread.get(PurePosixPath(workflow.file).name):
            return Adoption(workflow=workflow, outlook=Outlook.UNREADABLE, reasons=(reason,))
        return Adoption(workflow=workflow, outlook=Outlook.NOT_FOUND, reasons=("no file in the folder makes it",))
    if dag.warnings:
        reasons = tuple(map(str, dag.warnings))
        return Adoption(workflow=workflow, outlook=Outlook.NEEDS_A_HAND, reasons=reasons, tasks=len(dag.tasks))
    held: dict[str, list[str]] = {}
    for task in dag.tasks:
        if task.decorator not in _DECORATORS and task.operator not in _ANYWHERE:
            held.setdefault(task.decorator or task.operator, []).append(task.task_id)
    reasons = tuple(f"{what}: {', '.join(tasks)}" for what, tasks in held.items())
    outlook = Outlook.AIRFLOW_ONLY if held else Outlook.ANY_ENGINE
    return Adoption(workflow=workflow, outlook=outlook, reasons=reasons, tasks=len(dag.tasks))


HEADERS = (
    "DAG",
    "Outlook",
    "Why",
    "Tasks",
    "Schedule",
    "Paused",
    "Owners",
    "Last runs",
    "Last run",
    "Next run",
    "File",
)


def cells(one: Adoption) -> tuple[str, ...]:
    """A row under ``HEADERS``. Control characters of what Airflow says are shown, not sent."""
    workflow = one.workflow
    row = (
        workflow.name,
        str(one.outlook),
        "; ".join(one.reasons),
        "" if one.tasks is None else str(one.tasks),
        workflow.schedule or "by hand",
        "paused" if workflow.is_paused else "",
        ", ".join(workflow.owners),
        ", ".join(f"{count} {status.name.lower()}" for status, count in sorted_runs(workflow)),
        "" if workflow.last_run is None else workflow.last_run.isoformat(timespec="minutes"),
        "" if workflow.next_run is None else workflow.next_run.isoformat(timespec="minutes"),
        workflow.file,
    )
    return tuple(map(safe_line, row))


def sorted_runs(workflow: Workflow) -> list[tuple[ExecutionStatus, int]]:
    """The counts of its last runs, in the order of the statuses."""
    return [(status, workflow.runs[status]) for status in ExecutionStatus if workflow.runs.get(status)]


def totals(found: Sequence[Adoption]) -> str:
    """One sentence about all."""
    counts = {outlook: sum(one.outlook is outlook for one in found) for outlook in Outlook}
    said = ", ".join(f"{count} {outlook}" for outlook, count in reversed(counts.items()) if count)
    return f"{len(found)} DAG{'s' * (len(found) != 1)}" + (f": {said}" if said else "")


def exported(found: Sequence[Adoption], form: str) -> str:
    """The plan as ``markdown``, ``html``, ``csv`` or ``json``."""
    return FORMATS[form](found)


def _markdown(found: Sequence[Adoption]) -> str:
    lines = ["# DAGs to move", "", f"{totals(found)}.", "", _line(HEADERS), _line(["---"] * len(HEADERS))]
    lines += [_line(map(_in_markdown, cells(one))) for one in found]
    return "\n".join(lines) + "\n"


def _line(parts: Iterable[str]) -> str:
    return f"| {' | '.join(parts)} |"


def _in_markdown(text: str) -> str:
    """Text that stays text in a cell: names of DAGs, owners and files come from elsewhere."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|~$" else letter for letter in html.escape(plain))


def _html(found: Sequence[Adoption]) -> str:
    head = "".join(f"<th>{html.escape(header)}</th>" for header in HEADERS)
    rows = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells(one))}</tr>" for one in found)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>DAGs to move</title>\n'
        "<style>body{font-family:sans-serif}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:.3em .5em;text-align:left;vertical-align:top}</style></head>\n"
        f"<body><h1>DAGs to move</h1><p>{html.escape(totals(found))}.</p>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></body></html>\n"
    )


def _csv(found: Sequence[Adoption]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADERS)
    writer.writerows([_in_csv(cell) for cell in cells(one)] for one in found)
    return file.getvalue()


def _in_csv(text: str) -> str:
    """A cell that spreadsheets take as text: one that begins as a formula would be run (OWASP, *CSV Injection*)."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _json(found: Sequence[Adoption]) -> str:
    return json.dumps(document(found), indent=2) + "\n"


def document(found: Sequence[Adoption]) -> list[dict[str, object]]:
    """The plan as JSON."""
    return [
        {
            "dag_id": one.workflow.name, "outlook": one.outlook.name.lower(), "reasons": list(one.reasons),
            "tasks": one.tasks, "schedule": one.workflow.schedule, "paused": one.workflow.is_paused,
            "owners": list(one.workflow.owners), "tags": list(one.workflow.tags), "file": one.workflow.file,
            "runs": {status.name: count for status, count in sorted_runs(one.workflow)},
            "last_run": one.workflow.last_run.isoformat() if one.workflow.last_run else None,
            "next_run": one.workflow.next_run.isoformat() if one.workflow.next_run else None,
            "url": one.workflow.url,
        }
        for one in found
    ]  # fmt: skip


FORMATS = {"markdown": _markdown, "html": _html, "csv": _csv, "json": _json}
