"""``flowyml import airflow -o DIR``: pipelines from DAG files, the report, and the comparison by Airflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml.cli.dag_files import results_of
from flowyml.cli.failures import FAILED
from flowyml.cli.output import Output, Word, note
from flowyml.core.durations import counted
from flowyml.core.plain_text import safe_line

if TYPE_CHECKING:
    from datetime import datetime

    from flowyml.migration.airflow.model import FileModel
    from flowyml.migration.airflow.writer.notes import DagResult, FileResult

__all__ = ["write_pipelines"]

_COLOURS = {"any engine": "green", "Airflow only": "cyan", "needs a hand": "yellow"}
_KINDS = {"refused": "red", "opaque": "cyan", "changed": "yellow"}


def write_pipelines(
    out: Output,
    files: Sequence[FileModel],
    folder: Path,
    report: Path | None,
    python: Path | None,
    moment: datetime | None,
    staying: Mapping[str, Sequence[str]],
    *,
    as_json: bool,
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
    found = _verified(out, results, folder, python, moment, quiet=as_json) if python else []
    if as_json:
        out.document({**document(results), **({"verified": found} if python else {})})
    else:
        _tell(out, results, folder)
        _tell_copies(out, results, len(copies), folder)
        out.line(totals(results))
    return FAILED if any(each["differences"] or each["problem"] for each in found) else 0


def _tell(out: Output, results: Sequence[FileResult], folder: Path) -> None:
    from flowyml.migration.airflow.writer.writing import namesakes

    rows = [_row(file, dag, folder) for file in results for dag in file.dags]
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
            for each in dag.notes:
                key = (str(each.place), each.construct, each.reason)
                if each.kind == "refused" and key not in seen:
                    seen.add(key)
                    out.line(Word("refused", _KINDS["refused"]), f"  {each.place}: {each.construct}: {each.reason}")


def _tell_copies(out: Output, results: Sequence[FileResult], copies: int, folder: Path) -> None:
    if copies:
        out.line(f"{counted(copies, 'module')} of the repository that pipelines import copied below {folder}.")
    lacking = {each.name: each for file in results for each in file.beside if each.is_elsewhere}
    if lacking:
        places = [f"{each.name} ({each.place})" for each in lacking.values()]
        (to_do, *_) = {each.to_do for each in lacking.values()}
        note(Word("not copied:", "yellow"), f" {', '.join(places)}: not below the root that was read. {to_do}")


def _row(file: FileResult, dag: DagResult, folder: Path) -> tuple[object, ...]:
    count = Counter(each.kind.value for each in dag.notes)
    numbers = [count[kind] or "" for kind in ("kept", "changed", "opaque", "refused")]
    module = str(folder / file.module) if dag.pipeline else ""
    return dag.dag_id, Word(dag.verdict.value, _COLOURS[dag.verdict.value]), *numbers, module


def _verified(
    out: Output, results: Sequence[FileResult], folder: Path, python: Path, moment: datetime | None, *, quiet: bool
) -> list[dict[str, Any]]:
    from flowyml.core.progress import show_counting
    from flowyml.migration.airflow.writer.verifying import verify

    made: list[dict[str, Any]] = []
    with show_counting("pipelines compiled", sum(len(file.dags) for file in results)) as count:
        for file, dag, found in verify(str(python), results, folder, count, moment):
            problem = found if isinstance(found, str) else None
            differences = [] if isinstance(found, str) else [str(each) for each in found]
            ran = moment.isoformat() if moment and not problem and dag.verdict != "needs a hand" else None
            made.append({
                "path": file.path, "dag_id": dag.dag_id, "problem": problem, "differences": differences, "ran": ran,
            })  # fmt: skip
    if not quiet:
        for each in made:
            for line in [*([f"{each['dag_id']}: {each['problem']}"] if each["problem"] else []), *each["differences"]]:
                out.line(Word("differs", "yellow"), f"  {line}")
        same = sum(not each["problem"] and not each["differences"] for each in made)
        out.line(f"Airflow finds the same in {same} of {counted(len(made), 'DAG')}.")
        if moment:
            by_hand = len(made) - sum(each["ran"] is not None or each["problem"] is not None for each in made)
            beside = f"; {by_hand} did not run, since they need a hand" if by_hand else ""
            out.line(
                f"Both sides of {sum(each['ran'] is not None for each in made)} ran for {moment:%Y-%m-%d}{beside}."
            )
    return made
