"""``flowyml airflow``: a running Airflow whose DAGs move to FlowyML, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from flowyml.cli.failures import UsageError
from flowyml.cli.options import AsJson, Option
from flowyml.cli.output import Output, Word, note
from flowyml.core.files import write_whole
from flowyml.migration.airflow.adoption import Adoption, Outlook, adoption, cells, document, exported, totals
from flowyml.migration.airflow.model import FileModel
from flowyml.orchestrators.targets import resolve

__all__ = ["adopt"]

_SUFFIXES = {".md": "markdown", ".html": "html", ".csv": "csv", ".json": "json"}
_COLOURS = {Outlook.ANY_ENGINE: "green", Outlook.AIRFLOW_ONLY: "yellow", Outlook.IS_FLOWYMLS: "dim"}
_SHOWN = (0, 1, 3, 4, 5, 6, 7)

FromAirflow = Annotated[
    str, Option(("--on",), "An Airflow: `airflow`, a configured target, or its URL.", metavar="TARGET")
]


def adopt(
    on: FromAirflow = "airflow",
    dags: Annotated[
        str | None,
        Option(
            ("--dags",), "The folder of its DAG files, which are read, not run, and say what an import gives.", "FOLDER"
        ),
    ] = None,
    last: Annotated[int, Option(("--last",), "How many of the last runs of each DAG are counted.", min=0)] = 25,
    form: Annotated[
        Literal["table", "markdown", "html", "csv"], Option(("--format", "-f"), "How to write the plan.")
    ] = "table",
    output: Annotated[
        Path | None,
        Option(("--output", "-o"), "Write there; .md, .html, .csv or .json says how.", metavar="PATH"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the DAGs of a running Airflow, and what would become of each, worst first: a plan for moving them."""
    with Output(as_json) as out:
        written = _SUFFIXES.get(output.suffix.lower()) if output is not None else None
        if output is not None and written is None:
            raise UsageError(f"-o {output}: a name that ends in {', '.join(_SUFFIXES)} says how to write the plan.")
        files = None if dags is None else _read(dags)
        found = adoption(resolve(on).workflows(last=last), files)
        if output is not None and written is not None:
            write_whole(output, exported(found, written).encode())
            note(f"wrote {output}")
        if as_json:
            out.document(document(found))
        elif form != "table":
            out.raw(exported(found, form).encode())
        elif output is None:
            _print(out, found)


def _read(folder: str) -> list[FileModel]:
    from flowyml.migration.airflow.reader.reading import find_files, read_files

    if not Path(folder).is_dir():
        raise UsageError(f"--dags {folder}: no such folder.")
    return list(read_files(find_files([folder])))


def _print(out: Output, found: list[Adoption]) -> None:
    headers = ("DAG", "OUTLOOK", "TASKS", "SCHEDULE", "PAUSED", "OWNERS", "LAST RUNS")
    rows = []
    for one in found:
        row: list[str] = [cells(one)[index] for index in _SHOWN]
        row[1] = Word(row[1], _COLOURS.get(one.outlook, "red" if one.outlook < Outlook.AIRFLOW_ONLY else ""))
        rows.append(row)
    out.table(headers, rows)
    for one in found:
        for reason in one.reasons:
            out.line(f"{one.workflow.name}: {reason}")
    note(f"{totals(found)}.")
