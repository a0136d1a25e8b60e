"""``flowyml import airflow``: the content of Airflow DAG files, read without executing them, and pipelines from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flowyml.cli.dag_files import Env, Root, Stay, Variables, options_of, results_of, staying_of
from flowyml.cli.errors import FAILED, UsageError
from flowyml.cli.options import Argument, AsJson, Option
from flowyml.cli.output import Output, Word, note
from flowyml.core.durations import counted
from flowyml.core.plain_text import safe_line

if TYPE_CHECKING:
    from flowyml.migration.airflow.model import DagModel, FileModel
    from flowyml.migration.airflow.writer.notes import DagResult, FileResult

__all__ = ["airflow"]

_COLOURS = {"any engine": "green", "Airflow only": "cyan", "needs a hand": "yellow"}
_KINDS = {"refused": "red", "opaque": "cyan", "changed": "yellow"}


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
            raise UsageError(f"{missing[0]} does not exist. Name DAG files, or folders that contain some.")
        dag_files = find_files(paths, root)
        files: list[FileModel] = []
        with show_counting("DAG files read", len(dag_files)) as count:
            for number, file in enumerate(read_files(dag_files, root=root, options=options), 1):
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
            return _write_pipelines(out, files, output, report, verify, moment, staying, force)
        if report is not None or verify is not None or stay is not None or run is not None:
            raise UsageError(
                "--report, --verify, --run and --stay need -o DIR: they are about the pipelines that it writes."
            )
        if not as_json:
            _print_dags(out, files)
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


def _print_dags(out: Output, files: list[FileModel]) -> None:
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


def _write_pipelines(
    out: Output,
    files: Sequence[FileModel],
    folder: Path,
    report: Path | None,
    python: Path | None,
    moment: datetime | None,
    staying: Mapping[str, Sequence[str]],
    force: bool,
) -> int:
    """Write the modules below a folder, and print the result for each DAG. Returns the exit code."""
    results = results_of("flowyml import airflow -o", files, staying)
    from flowyml.migration.airflow.writer.copying import copied
    from flowyml.migration.airflow.writer.report import document, files_of_report, totals
    from flowyml.migration.airflow.writer.writing import check_free, write_into

    results, copies = copied(files, results, folder)
    pages = files_of_report(results)
    if report is not None:
        check_free(report, pages, force=force)
    modules = {file.module: file.written for file in results if file.module}
    write_into(folder, modules, copies=copies, force=force)
    if report is not None:
        write_into(report, pages, force=force)
    verified = _verified(out, results, folder, python, moment) if python else []
    if out.as_json:
        out.document({**document(results), **({"verified": verified} if python else {})})
    else:
        _print_results(out, results, folder)
        _print_copies(out, results, len(copies), folder)
        out.line(totals(results))
    return FAILED if any(row["differences"] or row["problem"] for row in verified) else 0


def _print_results(out: Output, results: Sequence[FileResult], folder: Path) -> None:
    from flowyml.migration.airflow.writer.writing import namesakes

    rows = [_result_row(file, dag, folder) for file in results for dag in file.dags]
    if rows:
        out.table(("DAG", "RUNS ON", "KEPT", "CHANGED", "OPAQUE", "REFUSED", "MODULE"), rows)
    seen: set[tuple[str, str, str]] = set()
    for dag_id, places in namesakes(results).items():
        where = ", ".join(map(str, places))
        note(Word("twice:", "yellow"), safe_line(f" several files define the DAG {dag_id!r}: {where}"))
    for file in results:
        if file.is_failed:
            note(Word("not written:", "yellow"), safe_line(f" {file.path}: {file.reason}"))
        for dag in file.dags:
            for item in dag.notes:
                key = (str(item.place), item.construct, item.reason)
                if item.kind == "refused" and key not in seen:
                    seen.add(key)
                    out.line(Word("refused", _KINDS["refused"]), f"  {item.place}: {item.construct}: {item.reason}")


def _print_copies(out: Output, results: Sequence[FileResult], copies: int, folder: Path) -> None:
    if copies:
        out.line(f"{counted(copies, 'module')} of the repository that pipelines import copied below {folder}.")
    lacking = {module.name: module for file in results for module in file.beside if module.is_elsewhere}
    if lacking:
        places = [f"{module.name} ({module.place})" for module in lacking.values()]
        (to_do, *_) = {module.to_do for module in lacking.values()}
        note(Word("not copied:", "yellow"), f" {', '.join(places)}: not below the root that was read. {to_do}")


def _result_row(file: FileResult, dag: DagResult, folder: Path) -> tuple[object, ...]:
    count = Counter(note.kind.value for note in dag.notes)
    numbers = [count[kind] or "" for kind in ("kept", "changed", "opaque", "refused")]
    module = str(folder / file.module) if dag.pipeline else ""
    return dag.dag_id, Word(dag.verdict.value, _COLOURS[dag.verdict.value]), *numbers, module


def _verified(
    out: Output, results: Sequence[FileResult], folder: Path, python: Path, moment: datetime | None
) -> list[dict[str, Any]]:
    from flowyml.core.progress import show_counting
    from flowyml.migration.airflow.writer.verifying import verify

    rows: list[dict[str, Any]] = []
    with show_counting("pipelines compiled", sum(len(file.dags) for file in results)) as count:
        for file, dag, result in verify(str(python), results, folder, count, moment):
            problem = result if isinstance(result, str) else None
            differences = [] if isinstance(result, str) else [str(row) for row in result]
            ran = moment.isoformat() if moment and not problem and dag.verdict != "needs a hand" else None
            rows.append({
                "path": file.path, "dag_id": dag.dag_id, "problem": problem, "differences": differences, "ran": ran,
            })  # fmt: skip
    if not out.as_json:
        for row in rows:
            for line in [*([f"{row['dag_id']}: {row['problem']}"] if row["problem"] else []), *row["differences"]]:
                out.line(Word("differs", "yellow"), f"  {line}")
        same = sum(not row["problem"] and not row["differences"] for row in rows)
        out.line(f"Airflow finds the same in {same} of {counted(len(rows), 'DAG')}.")
        if moment:
            by_hand = len(rows) - sum(row["ran"] is not None or row["problem"] is not None for row in rows)
            beside = f"; {by_hand} did not run, since they need a hand" if by_hand else ""
            out.line(f"Both sides of {sum(row['ran'] is not None for row in rows)} ran for {moment:%Y-%m-%d}{beside}.")
    return rows
