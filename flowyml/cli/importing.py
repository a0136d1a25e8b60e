"""``flowyml import airflow``: the content of Airflow DAG files, read without executing them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from flowyml.cli.dag_files import Env, Root, Stay, Variables, options_of, staying_of
from flowyml.cli.failures import UsageError
from flowyml.cli.import_report import write_pipelines
from flowyml.cli.options import Argument, AsJson, Option
from flowyml.cli.output import Output, Word, note
from flowyml.core.durations import counted
from flowyml.core.plain_text import safe_line

if TYPE_CHECKING:
    from flowyml.migration.airflow.model import DagModel, FileModel

__all__ = ["airflow"]


def airflow(
    paths: Annotated[list[str], Argument("PATH…", "DAG files, or folders of them.")],
    root: Root = None,
    env: Env = None,
    variables: Variables = None,
    output: Annotated[
        Path | None, Option(("--output", "-o"), "Write a module of pipelines for each DAG file to this folder.", "DIR")
    ] = None,
    report: Annotated[
        Path | None,
        Option(("--report",), "Write the report as Markdown, JSON, and HTML with a page for each DAG.", "DIR"),
    ] = None,
    verify: Annotated[
        Path | None,
        Option(
            ("--verify",),
            "A Python with Airflow, to load the DAG files and the compiled pipelines and compare them.",
            "PYTHON",
        ),
    ] = None,
    run: Annotated[
        str | None,
        Option(
            ("--run",),
            "With --verify: also run the DAGs and what is compiled, for this day (today), and compare the runs.",
            "[DATE]",
            bare="today",
        ),
    ] = None,
    stay: Stay = None,
    force: Annotated[bool, Option(("--force",), "Replace files that FlowyML did not write.")] = False,
    as_json: AsJson = False,
) -> int:
    """Read Airflow DAG files: their tasks, edges, schedules, and values that only Airflow knows.

    With -o, each becomes a module of FlowyML pipelines. Only --verify executes the files, and --run their tasks. Values
    that only Airflow knows when it parses them, such as Variables, stay symbolic in arguments of operators. If an id, a
    schedule, an option, a loop or a condition depends on such a value, the import takes the file's default, with a
    warning; it refuses any other use.
    """
    from flowyml.core.progress import show_counting
    from flowyml.migration.airflow.reader.reading import documents, find_files, read_files

    with Output(as_json) as out:
        options = options_of(root, env, variables)
        if missing := [path for path in paths if not Path(path).exists()]:
            raise UsageError(f"There is no {missing[0]}.")
        found = find_files(paths, root)
        files: list[FileModel] = []
        with show_counting("DAG files read", len(found)) as count:
            for number, file in enumerate(read_files(found, root=root, options=options), 1):
                files.append(file)
                count(number)
                if as_json and output is None:
                    for document in documents(file):
                        out.json_line(document)
        if output is not None:
            staying = staying_of(stay, files)
            if staying and verify is not None:
                raise UsageError("--verify compares whole DAGs: give it without --stay, before you split them.")
            if run is not None and verify is None:
                raise UsageError("--run needs --verify PYTHON, the Airflow that runs the DAGs.")
            moment = _moment(run) if run is not None else None
            return write_pipelines(out, files, output, report, verify, moment, staying, as_json=as_json, force=force)
        if report is not None or verify is not None or stay is not None or run is not None:
            raise UsageError(
                "--report, --verify, --run and --stay need -o DIR: they are about the pipelines that it writes."
            )
        if not as_json:
            _tell(out, files)
    return 0


def _moment(day: str) -> datetime:
    """Return the start of a day, or a moment, in UTC if it names no zone."""
    try:
        moment = datetime.fromisoformat(datetime.now(UTC).date().isoformat() if day == "today" else day)
    except ValueError:
        raise UsageError(
            f"--run {day} is not a date like 2024-03-01: give one, or write --run after the paths."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _tell(out: Output, files: list[FileModel]) -> None:
    dags = [dag for file in files for dag in file.dags]
    if dags:
        out.table(("DAG", "TASKS", "SCHEDULE", "WARNINGS", "FILE"), [_row(dag) for dag in dags])
    for file in files:
        if file.reason is not None and (file.warnings or len(files) <= 3 or not file.is_other):
            note(Word("no DAG:", "yellow"), safe_line(f" {file.path}: {file.reason}"))
    seen: set[str] = set()
    for dag in dags:
        for warning in dag.warnings:
            if str(warning) not in seen:
                seen.add(str(warning))
                note(Word("not certain:", "yellow"), safe_line(f" {warning}"))
    sure = sum(not dag.warnings for dag in dags)
    are = "is" if sure == 1 else "are"
    out.line(f"{counted(len(dags), 'DAG')} in {counted(len(files), 'file')}; {sure} {are} known for certain.")


def _row(dag: DagModel) -> tuple[object, ...]:
    warnings = Word(str(len(dag.warnings)), "yellow" if dag.warnings else "dim")
    return dag.dag_id, len(dag.tasks), dag.schedule or "?", warnings, f"{dag.path}:{dag.place.line}"
