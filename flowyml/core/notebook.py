"""What a notebook shows of a run and of its result: status, steps and outputs as tables, below the graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from flowyml.core.execution_status import ExecutionStatus

if TYPE_CHECKING:
    from flowyml.core.runs import PipelineResult, Run, StepRun

__all__ = ["html_of", "run_html"]

_LONGEST = 300
_RED = "#de3341"
_COLOURS = {  # as far from white as from a dark page, since notebooks do not say which theme they have
    ExecutionStatus.COMPLETED: "#208a3e",
    ExecutionStatus.FAILED: _RED,
    ExecutionStatus.TIMEOUT: _RED,
    ExecutionStatus.CANCELLED: "#a37000",
}
_STEP_HEADERS = ("step", "status", "took", "attempt", "")
_TABLE = 'style="border-collapse:collapse; margin:8px 0; font-size:inherit"'
_CELL = 'style="text-align:left; vertical-align:top; padding:2px 16px 2px 0; white-space:pre-wrap"'
_REPR = 'style="font-family:monospace"'  # the columns of a table in a repr stay in line


def run_html(run: Run, steps: Iterable[tuple[StepRun, str]], watch: str) -> str:
    """The HTML for a submitted run: how it stands, its steps with their notes, and the command that watches it."""
    is_page = (run.url or "").startswith(("http://", "https://"))
    where = f', <a href="{escape(run.url or "", quote=True)}">{_text(run.url or "")}</a>' if is_page else ""
    title = f"<b>{_text(run.pipeline)}</b> {_word(run.status)}, run {_text(run.run_id)}{where}"
    parts = [
        f"<div>{title}</div>",
        _error(run.error),
        _table(_STEP_HEADERS, [_step_row(step, note) for step, note in steps]),
        "" if run.status.is_terminal else f"<div><code>{_text(watch)}</code></div>",
    ]
    return "\n".join(part for part in parts if part)


def html_of(result: PipelineResult) -> str:
    """The HTML, in which every text is escaped. ``result.graph`` is SVG that FlowyML drew itself."""
    seconds = f"in {result.duration_seconds:.1f} s"
    title = f"<b>{_text(result.pipeline)}</b> {_word(result.status)} {seconds}, run {_text(result.run_id)}"
    outputs = [(_text(name), f"<span {_REPR}>{_text(_shown(value))}</span>") for name, value in result.outputs.items()]
    outputs += [(_text(name), _text(reason)) for name, reason in result.outputs.not_kept.items()]
    parts = [
        f"<div>{title}</div>",
        _error(result.error),
        f'<div style="overflow-x:auto">{result.graph}</div>' if result.graph else "",
        _table(_STEP_HEADERS, [_step_row(step, step.note) for step in result.step_results.values()]),
        _table(("output", "value"), outputs) if outputs else "",
    ]
    return "\n".join(part for part in parts if part)


def _step_row(step: StepRun, note: str) -> Sequence[str]:
    took = f"{step.duration_seconds:.1f} s" if step.started_at else ""
    return _text(step.label), _word(step.status), took, str(step.attempt or ""), _text(note)


def _error(error: str | None) -> str:
    return f'<pre style="color:{_RED}; white-space:pre-wrap">{_text(error)}</pre>' if error else ""


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th {_CELL}>{header}</th>" for header in headers)
    body = "".join(f"<tr>{''.join(f'<td {_CELL}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table {_TABLE}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _word(status: ExecutionStatus) -> str:
    return f'<span style="color:{_COLOURS.get(status, "inherit")}">{escape(status.name)}</span>'


def _text(text: str) -> str:
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a class of the user's, whose values are shown all the same
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"
