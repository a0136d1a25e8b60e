"""``flowyml migrate``: a project that was written for FlowyML 0.x."""

from __future__ import annotations

from typing import Annotated

from flowyml.cli.errors import FAILED
from flowyml.cli.options import Argument, AsJson, Option
from flowyml.cli.output import Output, Word, note
from flowyml.core.durations import counted
from flowyml.core.plain_text import safe_line
from flowyml.migration.legacy.checklist import Item, Place
from flowyml.migration.legacy.migrate import Report
from flowyml.migration.legacy.migrate import migrate as migrated

__all__ = ["migrate"]

_COLOURS = {"done": "green", "nothing to do": "dim", "needs you": "yellow"}


def migrate(
    paths: Annotated[list[str], Argument("PATH…", "Files and folders of a project that uses FlowyML 0.x.")],
    write: Annotated[bool, Option(("--write",), "Write the changes instead of showing them.")] = False,
    check: Annotated[
        bool,
        Option(("--check",), "For CI: exit with 1 if anything needs a change or a decision; show no changes."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Go through the checklist of the migration guide from 0.x to 1.0, and show what would change.

    Runs none of the project's code. Points out what needs your decision, except in lines with the comment
    `flowyml-migrate: ok`.
    """
    with Output(as_json) as out:
        report = migrated(paths)
        if write:
            report.write()
        if as_json:
            out.document(_document(report, write))
        else:
            if not (write or check):
                for change in report.changes:
                    out.text(change.diff.replace("\r\n", "\n").rstrip("\n"))
                if report.changes:
                    out.line()
            _print_checklist(out, report, write)
        for path, reason in report.unreadable:
            note(Word("not read:", "yellow"), safe_line(f" {path} {reason}"))
        return FAILED if check and not report.is_finished else 0


def _print_checklist(out: Output, report: Report, is_written: bool) -> None:
    for item in Item:
        state = report.state(item)
        shown = "done by --write" if state == "done" and not is_written else state
        out.line(Word(f"{shown:<15}", _COLOURS[state]), f"  {item.value}")
        for place, mark in _places(report, item):
            out.line(" " * 17, Word(mark, "green" if mark == "changed" else "yellow"), f"  {place}: {place.message}")
    if report.changes and not is_written:
        out.line()
        out.line(f"{counted(len(report.changes), 'file')} would change. To write them, add --write.")


def _places(report: Report, item: Item) -> list[tuple[Place, str]]:
    found = [(place, "changed") for place in report.done[item]] + [(place, "you") for place in report.needs_you[item]]
    return sorted(found, key=lambda pair: (pair[0].path, pair[0].cell or 0, pair[0].line))


def _document(report: Report, is_written: bool) -> dict[str, object]:
    return {
        "written": is_written,
        "finished": report.is_finished,
        "files": [{"path": change.file.shown, "diff": change.diff} for change in report.changes],
        "checklist": [
            {
                "item": item.name.lower(),
                "title": item.value,
                "state": report.state(item),
                "places": [
                    {
                        "path": place.path, "cell": place.cell, "line": place.line, "message": place.message,
                        "changed": mark == "changed",
                    }
                    for place, mark in _places(report, item)
                ],
            }
            for item in Item
        ],
        "unreadable": [{"path": path, "reason": reason} for path, reason in report.unreadable],
    }  # fmt: skip
