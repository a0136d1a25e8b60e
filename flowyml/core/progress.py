"""Show an active run on the terminal."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from flowyml.core.durations import span_text
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.core.notebook import in_notebook, progress_in_cell
from flowyml.core.plain_text import safe_line, safe_log, wants_colours
from flowyml.core.progress_output import terminal_of
from flowyml.core.runs import Run, StepRun, opened

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Update", "console_on", "show_counting", "show_progress", "show_waiting", "wants_progress"]

logger = logging.getLogger("flowyml.progress")

Update = Callable[[Run, Sequence[StepRun]], None]
"""Called with the current state whenever it changes."""

_MARKS = {
    ExecutionStatus.QUEUED: ("·", "dim"),
    ExecutionStatus.RUNNING: ("", "bold"),
    ExecutionStatus.COMPLETED: ("✓", "green"),
    ExecutionStatus.FAILED: ("✗", "red"),
    ExecutionStatus.CANCELLED: ("-", "yellow"),
    ExecutionStatus.TIMEOUT: ("✗", "red"),
}
_FEW = 12
_FAILED_ITEMS = 5  # of one step
_BARS = 5  # lines of progress bars
_A_WHILE = 10  # seconds


def wants_progress() -> bool:
    """Return True if standard error is a terminal, or in a notebook, unless ``FLOWYML_PROGRESS=0``."""
    return _draws_on_terminal() or (in_notebook() and os.environ.get("FLOWYML_PROGRESS") != "0")


def _draws_on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("FLOWYML_PROGRESS") != "0"


@contextmanager
def show_progress(
    pipeline: str, run_id: str, *, console: Console | None = None, tail: Callable[[], str] = str
) -> Iterator[Update]:
    """Draw the steps live: in a notebook in the running cell, else on standard error.

    If that is not a terminal, write a line for each change.

    Output in the meantime appears above, unless a ``console`` is given for the drawing. ``tail`` returns the unfinished
    line, which is shown below.
    """
    if in_notebook():
        draw = progress_in_cell()
        yield lambda run, steps: draw(run, opened(steps, _FAILED_ITEMS))
        return
    if console is None and sys.stderr is None:  # closed, or never open, as in a service
        yield lambda run, steps: None
        return
    if console is None and not sys.stderr.isatty():
        yield _Lines(pipeline, run_id)
        return
    from rich.live import Live

    own = console is None
    console = console or console_on(sys.stderr)
    with Live(
        console=console, refresh_per_second=8, transient=False,
        redirect_stdout=own and sys.stdout is not None and sys.stdout.isatty(), redirect_stderr=own,
    ) as live:  # fmt: skip
        picture = _Picture(pipeline, run_id, console, tail)

        def update(run: Run, steps: Sequence[StepRun]) -> None:
            live.update(picture.of(run, list(opened(steps, _FAILED_ITEMS))))

        yield update


def console_on(stream: TextIO) -> Console:
    """Return rich's console for a stream, without any colour or style if the user wants none."""
    from rich.console import Console

    stream = terminal_of(stream)
    return Console(file=stream, color_system="auto" if wants_colours(stream) else None, highlight=False)


@contextmanager
def show_waiting(what: str) -> Iterator[Callable[[], None]]:
    """Show on standard error what the program waits for. Call the result now and then while waiting.

    On a terminal it is a spinner; otherwise a line of the logger ``flowyml.progress``, after ten seconds.
    """
    if _draws_on_terminal():
        from rich.text import Text

        with console_on(sys.stderr).status(Text(safe_line(what))):
            yield lambda: None
        return
    silent_until = time.monotonic() + _A_WHILE

    def log() -> None:
        nonlocal silent_until
        if time.monotonic() > silent_until:
            silent_until = float("inf")
            logger.warning("%s", what)

    yield log


@contextmanager
def show_counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show the progress of long work on standard error. Call the result with the number of items done so far.

    On a terminal it is a bar, or a spinner if the ``total`` is unknown; otherwise a line of the logger
    ``flowyml.progress``, every ten seconds.
    """
    last = time.monotonic()

    def line(number: int) -> str:
        return f"{what}: {number}" if total is None else f"{what}: {number} of {total}"

    if not _draws_on_terminal():

        def log(number: int) -> None:
            nonlocal last
            if time.monotonic() - last > _A_WHILE:
                last = time.monotonic()
                logger.warning("%s", line(number))

        yield log
        return
    if total is not None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console_on(sys.stderr), transient=True) as bar:
            task = bar.add_task(safe_line(what), total=total)
            yield lambda number: bar.update(task, completed=number)
        return
    from rich.text import Text

    with console_on(sys.stderr).status(Text(safe_line(line(0)))) as status:
        yield lambda number: status.update(Text(safe_line(line(number))))


class _Lines:
    """One line for each step that changed."""

    def __init__(self, pipeline: str, run_id: str) -> None:
        self._name = f"{pipeline} {run_id}"
        self._seen: dict[str, ExecutionStatus] = {}

    def __call__(self, run: Run, steps: Sequence[StepRun]) -> None:
        if not run.status.is_terminal:
            self._print_change("", self._name, run.status, run.duration_seconds)
        for step, _ in opened(steps):
            subject = f"{self._name}: {labelled(step.name, step.index)}"
            cached = step.note if step.is_cached else step.cached_part
            note = f", {cached}" if cached else ""
            self._print_change(labelled(step.name, step.index), subject, step.status, step.duration_seconds, note)
        self._print_change("", self._name, run.status, run.duration_seconds)

    def _print_change(self, key: str, subject: str, status: ExecutionStatus, seconds: float, note: str = "") -> None:
        if self._seen.get(key, ExecutionStatus.QUEUED) is not status:
            self._seen[key] = status
            took = f" after {span_text(seconds)}" if status.is_terminal and seconds else ""
            print(safe_line(f"{subject} {status}{took}{note}"), file=sys.stderr, flush=True)


class _Picture:
    """Draws a run: all its steps if they fit, else the important ones."""

    def __init__(self, pipeline: str, run_id: str, console: Console, tail: Callable[[], str]) -> None:
        from rich.spinner import Spinner

        self._pipeline = pipeline
        self._run_id = run_id
        self._console = console
        self._tail = tail
        self._spinner = Spinner("dots", style="cyan")

    def of(self, run: Run, rows: Sequence[tuple[StepRun, str]]) -> RenderableType:
        """Return the present drawing, of steps with their notes."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        chosen, steps = self._chosen(rows), [step for step, _ in rows if not step.index]
        half = self._console.width // 2
        labels = [safe_line(step.short_label(half) if step.which else step.name) for step, _ in chosen]
        table.add_column()
        table.add_column(no_wrap=max(map(len, labels), default=0) <= half)
        for (step, about), label in zip(chosen, labels, strict=True):
            note = _first_line(about) or (step.raw_status if step.status is ExecutionStatus.CANCELLED else "")
            one_line = bool(step.index or step.items)
            table.add_row(
                self._mark(step.status),
                Text(label, _MARKS[step.status][1]),
                _seconds(step),
                Text(safe_line(note), "dim", no_wrap=one_line, overflow="ellipsis" if one_line else None),
            )
        if len(chosen) < len(rows):
            done = sum(step.status.is_terminal for step in steps)
            table.add_row("", Text(f"{done} of {len(steps)} steps done", "dim"), "", "")
        title = Text.assemble(
            (safe_line(self._pipeline), "bold"), " ", (safe_line(self._run_id), "dim"),
            f" {run.status} {span_text(run.duration_seconds)}", (safe_line(f" {run.url}") if run.url else "", "dim"),
        )  # fmt: skip
        bars = [Text.from_ansi(safe_log(line, colours=True)) for line in self._tail().splitlines()[-_BARS:]]
        return Group(title, table, *bars)

    def _chosen(self, rows: Sequence[tuple[StepRun, str]]) -> Sequence[tuple[StepRun, str]]:
        room = max(_FEW, self._console.height - 8)
        if len(rows) <= room:
            return rows
        order = sorted(range(len(rows)), key=lambda number: (_INTEREST.index(rows[number][0].status), -number))
        return [rows[number] for number in sorted(order[: room - 1])]

    def _mark(self, status: ExecutionStatus) -> Any:
        from rich.text import Text

        return self._spinner if status is ExecutionStatus.RUNNING else Text(*_MARKS[status])


_INTEREST = (
    ExecutionStatus.FAILED,
    ExecutionStatus.TIMEOUT,
    ExecutionStatus.RUNNING,
    ExecutionStatus.COMPLETED,
    ExecutionStatus.CANCELLED,
    ExecutionStatus.QUEUED,
)


def _seconds(step: StepRun) -> str:
    attempt = f" (attempt {step.attempt})" if step.attempt > 1 else ""
    return f"{span_text(step.duration_seconds)}{attempt}" if step.started_at else ""


def _first_line(text: str | None) -> str:
    line = (text or "").partition("\n")[0]
    return line if len(line) <= 80 else f"{line[:79]}…"
