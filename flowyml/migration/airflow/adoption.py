"""The DAGs of a running Airflow, and the result of importing each: a plan for moving them, worst first."""

from __future__ import annotations

import csv
import html
import io
import json
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import takewhile
from pathlib import PurePosixPath

from flowyml.core.durations import counted
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.markdown import escaped, table
from flowyml.core.plain_text import safe_line
from flowyml.migration.airflow.model import DagModel, FileModel
from flowyml.migration.airflow.writer.notes import FileResult, Kind, Note, Verdict
from flowyml.orchestrators.workflows import Workflow


class Outlook(IntEnum):
    """The prospects of a DAG, worst first. For a DAG that an import writes, the import's own verdict."""

    NOT_FOUND = 0
    NOT_IMPORTED = 1
    """The import writes no pipeline from its file."""
    NEEDS_A_HAND = 2
    AIRFLOW_ONLY = 3
    ANY_ENGINE = 4
    UNKNOWN = 5
    """No folder was given."""
    IS_FLOWYMLS = 6

    def __str__(self) -> str:
        said = {"AIRFLOW_ONLY": Verdict.AIRFLOW.value, "IS_FLOWYMLS": "is FlowyML's", "UNKNOWN": "?"}
        return said.get(self.name, self.name.replace("_", " ").lower())


_OUTLOOKS = {Verdict.ANY: Outlook.ANY_ENGINE, Verdict.AIRFLOW: Outlook.AIRFLOW_ONLY, Verdict.HAND: Outlook.NEEDS_A_HAND}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A DAG with its outlook, and the reasons for it. ``tasks`` is None if the DAG was not read."""

    workflow: Workflow
    outlook: Outlook
    reasons: tuple[str, ...] = ()
    tasks: int | None = None

    @property
    def failed(self) -> int:
        """The number of failed runs among the last ones."""
        return self.workflow.runs.get(ExecutionStatus.FAILED, 0)


Files = Sequence[tuple[FileModel, FileResult]]


def adoption(workflows: Iterable[Workflow], files: Files | None) -> list[Adoption]:
    """Return each workflow with the result of importing it; ``files`` is None if no folder is known."""
    by_id: dict[str, list[_Found]] = defaultdict(list)
    by_file: dict[str, list[FileModel]] = defaultdict(list)
    for model, result in files or ():
        by_file[PurePosixPath(model.path).name].append(model)
        for dag in model.dags:
            if dag.id_known:
                by_id[dag.dag_id].append(_Found(dag, result))
    made = [_adoption(each, by_id, by_file, is_read=files is not None) for each in workflows]
    return sorted(made, key=lambda one: (one.outlook, -one.failed, one.workflow.name))


@dataclass(frozen=True, slots=True)
class _Found:
    """A DAG of a file, and the result of importing the file."""

    dag: DagModel
    result: FileResult


def _adoption(
    workflow: Workflow, by_id: Mapping[str, list[_Found]], by_file: Mapping[str, list[FileModel]], *, is_read: bool
) -> Adoption:
    if workflow.is_flowymls:
        return Adoption(workflow=workflow, outlook=Outlook.IS_FLOWYMLS)
    if not is_read:
        return Adoption(workflow=workflow, outlook=Outlook.UNKNOWN)
    if found := by_id.get(workflow.name):
        return _imported(workflow, max(found, key=lambda each: _in_common(each.dag.path, workflow.file)))
    same_name = by_file.get(PurePosixPath(workflow.file).name)
    file = max(same_name, key=lambda each: _in_common(each.path, workflow.file)) if same_name else None
    if file and file.reason:
        return Adoption(workflow=workflow, outlook=Outlook.NOT_IMPORTED, reasons=(file.reason,))
    return Adoption(workflow=workflow, outlook=Outlook.NOT_FOUND, reasons=("no file in the folder makes it",))


def _in_common(one: str, other: str) -> int:
    """Count the parts that two paths share, from their ends: Airflow has the same files in another folder."""
    pairs = zip(reversed(PurePosixPath(one).parts), reversed(PurePosixPath(other).parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _imported(workflow: Workflow, found: _Found) -> Adoption:
    """Return the import's verdict, and the notes that cause it."""
    made = next((each for each in found.result.dags if each.dag_id == found.dag.dag_id), None)
    tasks = len(found.dag.tasks)
    if made is None:
        reasons: tuple[str, ...] = (found.result.reason,)
        return Adoption(workflow=workflow, outlook=Outlook.NOT_IMPORTED, reasons=reasons, tasks=tasks)
    outlook = _OUTLOOKS[made.verdict]
    holding = [each for each in made.notes if each.kind is Kind.REFUSED]
    if outlook is Outlook.AIRFLOW_ONLY:
        holding = [each for each in made.notes if each.kind is Kind.OPAQUE or each.airflow_only]
    return Adoption(workflow=workflow, outlook=outlook, reasons=tuple(_reasons(holding)), tasks=tasks)


def _reasons(notes: Iterable[Note]) -> Iterator[str]:
    """Yield each reason once, with its subject: constructs, or lines where the reader is not certain."""
    about: dict[str, dict[str, None]] = defaultdict(dict)
    for note in notes:
        about[note.reason][str(note.place) if note.construct == "reading" else note.construct] = None
    for reason, constructs in about.items():
        yield f"{', '.join(constructs)}: {reason}"


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
    """Return a row under ``HEADERS``. Control characters in Airflow's texts are escaped."""
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
    """Return the counts of its last runs, in the order of the statuses."""
    return [(status, workflow.runs[status]) for status in ExecutionStatus if workflow.runs.get(status)]


def totals(found: Sequence[Adoption]) -> str:
    """Return a sentence about all DAGs."""
    counts = {outlook: sum(one.outlook is outlook for one in found) for outlook in Outlook}
    said = ", ".join(f"{count} {outlook}" for outlook, count in reversed(counts.items()) if count)
    return counted(len(found), "DAG") + (f": {said}" if said else "")


def exported(found: Sequence[Adoption], form: str) -> str:
    """Return the plan as ``markdown``, ``html``, ``csv`` or ``json``."""
    return FORMATS[form](found)


def _markdown(found: Sequence[Adoption]) -> str:
    rows = table(HEADERS, ([escaped(cell, in_file=True) for cell in cells(one)] for one in found))
    return f"# DAGs to move\n\n{totals(found)}.\n\n{rows}\n"


def _html(found: Sequence[Adoption]) -> str:
    head = "".join(f"<th>{html.escape(header)}</th>" for header in HEADERS)
    rows = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells(one))}</tr>" for one in found)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>DAGs to move</title>\n'
        "<style>body{font-family:sans-serif}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:.3em .5em;text-align:left;vertical-align:top}"
        "td:last-child{overflow-wrap:anywhere}</style></head>\n"  # a long path does not make the page wider
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
    """Return a cell that spreadsheets read as text: they run one that begins like a formula (OWASP, *CSV Injection*).

    Some spreadsheets also run the wide forms of these characters, as in Japanese text.
    """
    return f"'{text}" if unicodedata.normalize("NFKC", text[:1]) in ("=", "+", "-", "@", "\t", "\r") else text


def document(found: Sequence[Adoption]) -> list[dict[str, object]]:
    """Return the plan as JSON."""
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


FORMATS: Mapping[str, Callable[[Sequence[Adoption]], str]] = {"markdown": _markdown, "html": _html, "csv": _csv,
           "json": lambda found: json.dumps(document(found), indent=2) + "\n"}  # fmt: skip
