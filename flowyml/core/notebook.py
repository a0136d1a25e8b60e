"""HTML for runs in notebooks, with their results, steps and artifacts: tables, for a result below the graph.

An active run is drawn in the cell that waits for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from flowyml.core.durations import size_text, span_text, zone_text
from flowyml.core.execution_status import ExecutionStatus

if TYPE_CHECKING:
    from flowyml.core.runs import Artifact, PipelineResult, Run, StepRun

__all__ = ["artifacts_html", "html_of", "in_notebook", "progress_in_cell", "run_html", "runs_html", "steps_html"]

_LONGEST = 300
_MOST_ROWS = 200
_PAUSE = 0.5  # seconds between two drawings of a run
_RED = "#de3341"
_COLOURS = {  # with contrast to white and dark pages, since notebooks do not reveal their theme
    ExecutionStatus.COMPLETED: "#208a3e",
    ExecutionStatus.FAILED: _RED,
    ExecutionStatus.TIMEOUT: _RED,
    ExecutionStatus.CANCELLED: "#a37000",
}
_STEP_HEADERS = ("step", "status", "took", "attempt", "note")
_TABLE = 'style="border-collapse:collapse; margin:8px 0; font-size:inherit"'
_CELL = 'style="text-align:left; vertical-align:top; padding:2px 16px 2px 0; white-space:pre-wrap"'
_REPR = 'style="font-family:monospace"'  # the columns of a table in a repr stay in line


def in_notebook() -> bool:
    """Return True in a cell of a notebook, whose kernel shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def progress_in_cell() -> Callable[[Run, Iterable[tuple[StepRun, str]]], None]:
    """Return a function that draws a run and its steps with their notes, in place of its last drawing.

    Of an ended run one line is left, as its result or handle shows the steps.
    """
    import IPython.display

    display: Any = IPython.display.display  # which has no types
    handle: Any = None
    next_time = 0.0
    lock = threading.Lock()  # the thread that draws is not waited for when the run ends

    def update(run: Run, steps: Iterable[tuple[StepRun, str]]) -> None:
        nonlocal next_time
        with lock:
            is_over = run.status.is_terminal
            if is_over or time.monotonic() >= next_time:
                next_time = float("inf") if is_over else time.monotonic() + _PAUSE
                draw(run, steps, is_over)

    def draw(run: Run, steps: Iterable[tuple[StepRun, str]], is_over: bool) -> None:
        nonlocal handle
        took = span_text(run.duration_seconds)
        html = f"<div>{_title(run)} in {took}</div>" if is_over else run_html(run, steps, "")
        drawing = {"text/html": html, "text/plain": f"{run.pipeline} {run.run_id} {run.status} {took}"}
        if handle is None:
            handle = display(drawing, raw=True, display_id=True)
        else:
            handle.update(drawing, raw=True)

    return update


def run_html(run: Run, steps: Iterable[tuple[StepRun, str]], watch: str) -> str:
    """Return the HTML for a submitted run: its status, its steps with their notes, and the command that watches it."""
    parts = [
        f"<div>{_title(run)}</div>",
        _parameters(run.parameters),
        _error(run.error),
        _table(_STEP_HEADERS, [_step_row(step, note) for step, note in steps]),
        "" if run.status.is_terminal or not watch else f"<div><code>{_text(watch)}</code></div>",
    ]
    return "\n".join(part for part in parts if part)


def html_of(result: PipelineResult) -> str:
    """Return the HTML, in which every text is escaped. ``result.graph`` is FlowyML's own SVG."""
    seconds = f"in {span_text(result.duration_seconds)}"
    title = f"<b>{_text(result.pipeline)}</b> {_word(result.status)} {seconds}, run {_text(result.run_id)}"
    outputs = [
        (_text(name), f"<span {_REPR}>{_text(_format_value(value))}</span>") for name, value in result.outputs.items()
    ]
    outputs += [(_text(name), _text(reason)) for name, reason in result.outputs.not_kept.items()]
    parts = [
        f"<div>{title}</div>",
        "" if result.graph else _parameters(result.parameters),  # the graph has them
        _error(result.error),
        f'<div style="overflow-x:auto">{result.graph}</div>' if result.graph else "",
        _table(_STEP_HEADERS, [_step_row(step, step.note) for step in result.step_results.values()]),
        _table(("output", "value"), outputs) if outputs else "",
    ]
    return "\n".join(part for part in parts if part)


def runs_html(runs: Sequence[Run]) -> str | None:
    """Return the HTML for a list of runs, with times in the zone of this machine; None for an empty list."""
    begun = [began for run in runs if (began := run.started_at or run.created_at)]
    headers = ("run", "pipeline", "status", f"started ({zone_text(begun)})" if begun else "started", "took", "")
    if all(run.job_id == run.run_id for run in runs):
        return _list(headers, map(_run_row, runs))
    return _list((*headers, "job"), [(*_run_row(run), _whole(_text(run.job_id))) for run in runs])


def _title(run: Run) -> str:
    where = f", {_link(run.url, run.url)}" if _is_page(run.url) else ""
    return f"<b>{_text(run.pipeline)}</b> {_word(run.status)}, run {_text(run.run_id)}{where}"


def _parameters(values: Mapping[str, object]) -> str:
    pairs = ", ".join(f"{name}={_format_value(value)}" for name, value in values.items())
    return f"<div {_REPR}>{_text(pairs)}</div>" if pairs else ""


def _run_row(run: Run) -> Sequence[str]:
    began = run.started_at or run.created_at
    return (
        _whole(_link(run.url, run.run_id)),
        _whole(_text(run.pipeline)),
        _word(run.status),
        _whole(f"{began.astimezone():%Y-%m-%d %H:%M:%S}" if began else ""),
        _took(run),
        _prose((run.error or "").partition("\n")[0]),
    )


def steps_html(steps: Sequence[StepRun]) -> str | None:
    """Return the HTML for the steps of a run; None without steps."""
    return _list(_STEP_HEADERS, [_step_row(step, step.note) for step in steps])


def artifacts_html(artifacts: Sequence[Artifact]) -> str | None:
    """Return the HTML for a list of artifacts, with kind and URL; None for an empty list."""
    rows = [
        (
            _text(artifact.label),
            _text(artifact.type),
            _whole("" if artifact.size is None else size_text(artifact.size)),
            _prose(", ".join(f"{name}={value}" for name, value in artifact.metadata.items())),
            _link(artifact.url, artifact.url),
        )
        for artifact in artifacts
    ]
    return _list(("output", "type", "size", "facts", "url"), rows)


def _list(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str | None:
    """Return a table that scrolls if the page is too narrow, with a limited number of rows."""
    listed = list(rows)
    hidden = len(listed) - _MOST_ROWS
    more = f"<div>and {hidden} more</div>" if hidden > 0 else ""
    return f'<div style="overflow-x:auto">{_table(headers, listed[:_MOST_ROWS])}</div>{more}' if listed else None


def _step_row(step: StepRun, note: str) -> Sequence[str]:
    return _text(step.label), _word(step.status), _took(step), str(step.attempt or ""), _text(note)


def _error(error: str | None) -> str:
    return f'<pre style="color:{_RED}; white-space:pre-wrap">{_text(error)}</pre>' if error else ""


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th {_CELL}>{header}</th>" for header in headers)
    body = "".join(f"<tr>{''.join(f'<td {_CELL}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table {_TABLE}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _is_page(url: str | None) -> bool:
    return (url or "").startswith(("http://", "https://"))


def _link(url: str | None, text: str | None) -> str:
    """Return a text, as a link if its URL is that of a page."""
    label = _text(text or "")
    return f'<a href="{escape(url or "", quote=True)}" style="color:inherit">{label}</a>' if _is_page(url) else label


def _took(run: Run | StepRun) -> str:
    return _whole(span_text(run.duration_seconds) if run.started_at else "")


def _whole(html: str) -> str:
    """Return HTML on one line, for ids, and numbers with their units."""
    return f'<span style="white-space:nowrap">{html}</span>' if html else ""


def _prose(text: str) -> str:
    """Return text with room for a few words on a line."""
    return f'<div style="min-width:16em">{_text(text)}</div>' if text else ""


def _word(status: ExecutionStatus) -> str:
    return f'<span style="color:{_COLOURS.get(status, "inherit")}">{escape(status.name)}</span>'


def _text(text: str) -> str:
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _format_value(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a class of the user's, whose values are shown anyway
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"
