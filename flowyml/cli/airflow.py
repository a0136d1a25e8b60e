"""``flowyml airflow``: a running Airflow whose DAGs move to FlowyML, one by one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from flowyml.cli.dag_files import Env, Root, Variables, options_of, results_of
from flowyml.cli.errors import FAILED, UsageError
from flowyml.cli.options import Argument, AsJson, Option
from flowyml.cli.output import Output, Word, note
from flowyml.cli.source import load
from flowyml.core.files import write_whole
from flowyml.migration.airflow.adoption import Adoption, Outlook, adoption, cells, document, exported, totals
from flowyml.orchestrators.handover import foreign_schedule, workflows
from flowyml.orchestrators.targets import resolve

if TYPE_CHECKING:
    from flowyml.migration.airflow.comparison import Comparison
    from flowyml.migration.airflow.cutover import Record
    from flowyml.migration.airflow.model import FileModel
    from flowyml.migration.airflow.reader.machine import Options
    from flowyml.migration.airflow.writer.notes import FileResult

__all__ = ["adopt", "compare", "cutover"]

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
            ("--dags",),
            "The folder of its DAG files, to rate each DAG as `flowyml import airflow` would. The files are read, "
            "never run.",
            "FOLDER",
        ),
    ] = None,
    root: Root = None,
    env: Env = None,
    variables: Variables = None,
    last: Annotated[int, Option(("--last",), "How many of each DAG's last runs to count.", min=0)] = 25,
    form: Annotated[
        Literal["table", "markdown", "html", "csv"], Option(("--format", "-f"), "How to write the plan.")
    ] = "table",
    output: Annotated[
        Path | None,
        Option(("--output", "-o"), "Write to this file, as .md, .html, .csv or .json.", metavar="PATH"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the DAGs of a running Airflow with the result of importing each, worst first: a plan for moving them."""
    with Output(as_json) as out:
        written = _SUFFIXES.get(output.suffix.lower()) if output is not None else None
        if output is not None and written is None:
            raise UsageError(f"-o {output}: end the name in {', '.join(_SUFFIXES)}, which chooses the format.")
        if dags is None and (root or env or variables):
            raise UsageError("--root, --env and --variables say how to read DAG files: name their folder with --dags.")
        files = None if dags is None else _read(dags, root, options_of(root, env, variables))
        adoptions = adoption(workflows(resolve(on), last=last), files)
        if output is not None and written is not None:
            write_whole(output, exported(adoptions, written).encode())
            note(f"wrote {output}")
        if as_json:
            out.document(document(adoptions))
        elif form != "table":
            out.raw(exported(adoptions, form).encode())
        elif output is None:
            _print(out, adoptions)


def cutover(
    dag_id: Annotated[str, Argument("DAG_ID", "A DAG with a cron schedule.")],
    to: Annotated[str | None, Option(("--to",), "Where to run the pipeline.", metavar="TARGET")] = None,
    pipeline: Annotated[
        str | None, Option(("--pipeline",), "The pipeline that takes the DAG's place.", metavar="FILE[:NAME]")
    ] = None,
    on: FromAirflow = "airflow",
    shadow: Annotated[
        bool,
        Option(("--shadow",), "Pause nothing: run the pipeline beside the DAG, for `flowyml airflow compare`."),
    ] = False,
    back: Annotated[bool, Option(("--back",), "Hand the schedule back to the DAG, or undo --shadow.")] = False,
    timeout: Annotated[
        float,
        Option(
            ("--timeout",), "How long to wait for a moment without a run (exit code 124 after that).", "SECONDS", min=0
        ),
    ] = 3600,
    as_json: AsJson = False,
) -> None:
    """Pause a DAG and start a pipeline's schedule in its place, so that each interval runs once.

    With --shadow, both run each interval for a while, including their side effects; the same command without --shadow
    then pauses the DAG. Each step is recorded: after a kill, the same command continues.
    """
    from flowyml.migration.airflow.cutover import Cutover

    if shadow and back:
        raise UsageError("--back also undoes --shadow: use it without --shadow.")

    with Output(as_json) as out:
        old = foreign_schedule(resolve(on), dag_id)
        with Cutover.alone(old.place, dag_id):
            record = _record_of(dag_id, old.place, to, pipeline, shadow=shadow, back=back)
            with Cutover.alone_there(record.new, record.pipeline):
                work, new = Cutover(old, record, note, timeout), resolve(record.new)
                if back:
                    record = work.back(new)
                elif shadow:
                    record = work.go_beside(new, load(record.file))
                    note("Both run from now on; each writes its own files, sends its own mails and changes databases.")
                    note(f"flowyml airflow compare {dag_id} shows whether their results are the same.")
                else:
                    record = work.go(new, load(record.file))
        out.answer(asdict(record), f"{dag_id}: {record.phase}")


def _record_of(dag_id: str, place: str, to: str | None, pipeline: str | None, *, shadow: bool, back: bool) -> Record:
    """Return the record of a cutover, completed by the arguments; raises ``UsageError`` if they do not match it."""
    from flowyml.migration.airflow.cutover import Cutover, Record

    record = Cutover.recorded(place, dag_id)
    if record is None or (record.phase == "back" and not back):
        if back:
            raise UsageError(
                f"{dag_id!r} was not cut over from here, or is back already. To undo a cut-over, run this with the "
                f"data folder of FlowyML in which it was made."
            )
        if to is None or pipeline is None:
            raise UsageError("Say where to, and which pipeline: --to TARGET --pipeline FILE.")
        return Record(dag=dag_id, old=place, new=to, file=pipeline, pipeline=load(pipeline).name)
    if back:
        return record
    if record.phase == "begun" and not record.shadow:  # nothing has been handed over yet
        file = pipeline or record.file
        return replace(record, new=to or record.new, file=file, pipeline=load(file).name)
    if shadow and record.phase not in ("shadowing", "shadow"):
        raise UsageError(f"{dag_id!r} is cut over to {record.new} already ({record.phase}): --back undoes it.")
    if to not in (None, record.new) or pipeline not in (None, record.file):
        raise UsageError(
            f"A cutover of {dag_id!r} to {record.new} with {record.file} is in progress ({record.phase}). Run this "
            f"command without --to and --pipeline to finish it, or with --back to undo it."
        )
    return record


def compare(
    dag_id: Annotated[str, Argument("DAG_ID", "A DAG with a pipeline beside it, from `cutover --shadow`.")],
    on: FromAirflow = "airflow",
    last: Annotated[int, Option(("--last",), "How many of the newest intervals to compare.", min=1)] = 25,
    output: Annotated[
        Path | None, Option(("--output", "-o"), "Write the report to this file, as .md or .json.", metavar="PATH")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare a DAG with the pipeline beside it, interval by interval: how runs and steps ended, and the values.

    The exit code is 0 if at least one interval is equal and none differs, and 1 otherwise, even if all of them wait or
    have nothing to compare.
    """
    from flowyml.migration.airflow import comparison
    from flowyml.migration.airflow.cutover import Cutover, shadowed

    with Output(as_json) as out:
        if output is not None and output.suffix.lower() not in (".md", ".json"):
            raise UsageError(f"-o {output}: end the name in .md or .json, which chooses the format.")
        old = resolve(on)
        record = Cutover.recorded(foreign_schedule(old, dag_id).place, dag_id)
        if record is None or not record.shadow:
            raise UsageError(f"No pipeline runs beside {dag_id!r}: begin with flowyml airflow cutover --shadow.")
        result = shadowed(old, resolve(record.new), record, last)
        if output is not None:
            as_text = json.dumps(comparison.document(result), indent=2) + "\n"
            write_whole(output, (as_text if output.suffix.lower() == ".json" else comparison.markdown(result)).encode())
            note(f"wrote {output}")
        if as_json:
            out.document(comparison.document(result))
        else:
            _print_comparison(out, result)
            if not result.intervals:
                note(f"Both sides run from {record.shadow} on: compare them after that.")
    return 0 if result.is_same else FAILED


def _print_comparison(out: Output, result: Comparison) -> None:
    from flowyml.migration.airflow import comparison

    colours = {"equal": "green", "differs": "red", "nothing to compare": "yellow", "waits": "dim"}
    rows = [(time, Word(verdict, colours[verdict]), *sides) for time, verdict, *sides in comparison.rows(result)]
    if rows:
        out.table(comparison.HEADERS, rows)
    for line in comparison.lines(result):
        out.line(line)
    out.line(f"{result.total}.")


def _read(folder: str, root: Path | None, options: Options) -> list[tuple[FileModel, FileResult]]:
    from flowyml.migration.airflow.reader.reading import find_files, read_files

    if not Path(folder).is_dir():
        raise UsageError(f"--dags {folder}: no such folder.")
    files = list(read_files(find_files([folder], root), root=root, options=options))
    return list(zip(files, results_of("flowyml airflow adopt --dags", files), strict=True))


def _print(out: Output, adoptions: list[Adoption]) -> None:
    headers = ("DAG", "OUTLOOK", "TASKS", "SCHEDULE", "PAUSED", "OWNERS", "LAST RUNS")
    rows = []
    for entry in adoptions:
        dag, outlook, *others = (cells(entry)[index] for index in _SHOWN)
        colour = _COLOURS.get(entry.outlook, "red" if entry.outlook < Outlook.AIRFLOW_ONLY else "")
        rows.append((dag, Word(outlook, colour), *others))
    out.table(headers, rows)
    for entry in adoptions:
        for reason in entry.reasons:
            out.line(f"{entry.workflow.name}: {reason}")
    note(f"{totals(adoptions)}.")
