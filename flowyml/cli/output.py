"""What commands print: one JSON document, or lines and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TextIO

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import ScheduleInfo

__all__ = [
    "Output",
    "Word",
    "note",
    "plain_log",
    "plain_outputs",
    "plain_run",
    "plain_schedule",
    "plain_step",
    "shown",
    "status_word",
    "tell_error",
]

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_LONGEST_VALUE = 200


class Output:
    """Standard output. It is the command's alone: what pipelines and their children print goes to standard error.

    With ``shared`` both go there, for people who run a pipeline and want to see it talk.
    """

    def __init__(self, as_json: bool = False, *, shared: bool = False) -> None:
        self.as_json = as_json
        self._shared = shared and not as_json
        self._stream: TextIO = sys.stdout
        self._own: TextIO | None = None

    def __enter__(self) -> Self:
        if not self._shared:
            self._stream.flush()
            with suppress(OSError, ValueError):  # a stream without a file below it, in tests and notebooks
                if self._stream.fileno() == 1:
                    self._own = os.fdopen(os.dup(1), "w", encoding=self._stream.encoding, errors=self._stream.errors)
                    os.dup2(2, 1)
            sys.stdout = sys.stderr
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shared:
            return
        sys.stdout = self._stream
        if self._own is not None:
            os.dup2(self._own.fileno(), 1)
            own, self._own = self._own, None
            own.close()

    @property
    def stream(self) -> TextIO:
        """Where data goes."""
        return self._own or self._stream

    def styled(self, text: str, style: str = "") -> str:
        """The text in colour where data goes to a terminal."""
        return styled(text, style or getattr(text, "style", ""), self.stream)

    def document(self, value: object) -> None:
        """The one JSON document of a command."""
        print(json.dumps(value, indent=2), file=self.stream)

    def json_line(self, value: object) -> None:
        """One of many JSON documents, a line each."""
        print(json.dumps(value), file=self.stream, flush=True)

    def line(self, text: str = "") -> None:
        """A line for people."""
        print(text, file=self.stream)

    def raw(self, data: bytes) -> None:
        """Text as it is, byte for byte."""
        self.stream.flush()
        if (buffer := getattr(self.stream, "buffer", None)) is None:
            self.stream.write(data.decode())
            return
        buffer.write(data)
        buffer.flush()

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Columns for people; where the output is no terminal, nothing is cut, wrapped or coloured."""
        cells = [[cell if isinstance(cell, Word) else Word(str(cell)) for cell in row] for row in rows]
        if self.stream.isatty():
            self._draw(headers, cells)
            return
        from flowyml.plan.graph.text import width

        widths = [max(map(width, column)) for column in zip(headers, *cells, strict=True)]
        for row in (headers, *cells):
            padded = (text + " " * (wide - width(text)) for text, wide in zip(row, widths, strict=True))
            self.line("  ".join(padded).rstrip())

    def _draw(self, headers: Sequence[str], cells: Iterable[Sequence[Word]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for header in headers:
            table.add_column(header, overflow="fold", no_wrap=header in ("JOB", "ID"))
        for row in cells:
            table.add_row(*(Text(word, word.style) for word in row))
        Console(file=self.stream).print(table)


class Word(str):
    """A word with a colour, for tables and lines."""

    __slots__ = ("style",)

    style: str

    def __new__(cls, text: str, style: str = "") -> Self:
        word = super().__new__(cls, text)
        word.style = style
        return word


def status_word(status: ExecutionStatus) -> Word:
    """The word for a status."""
    return Word(status.name, _STYLES[status])


_STYLES = {
    ExecutionStatus.QUEUED: "dim",
    ExecutionStatus.RUNNING: "cyan",
    ExecutionStatus.COMPLETED: "green",
    ExecutionStatus.FAILED: "red",
    ExecutionStatus.CANCELLED: "yellow",
    ExecutionStatus.TIMEOUT: "red",
}


def tell_error(message: str) -> None:
    """``error: …`` on standard error."""
    print(f"{styled('error:', 'bold red', sys.stderr)} {message.rstrip()}", file=sys.stderr)


def note(message: str) -> None:
    """What is good to know and no data: on standard error."""
    print(message, file=sys.stderr)


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in colour if the stream is a terminal that wants it."""
    if not style or not stream.isatty() or "NO_COLOR" in os.environ:
        return text
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def plain_run(run: Run, orchestrator: str) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "job_id": run.job_id,
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "orchestrator": orchestrator,
        "status": run.status.name,
        "raw_status": run.raw_status,
        "created_at": _iso(run.created_at),
        "started_at": _iso(run.started_at),
        "ended_at": _iso(run.ended_at),
        "duration_seconds": round(run.duration_seconds, 6),
        "error": run.error,
        "url": run.url,
        "parameters": dict(run.parameters),
    }


def plain_step(step: StepRun) -> dict[str, Any]:
    """A step of a run as JSON."""
    return {
        "name": step.name,
        "status": step.status.name,
        "raw_status": step.raw_status,
        "attempt": step.attempt,
        "started_at": _iso(step.started_at),
        "ended_at": _iso(step.ended_at),
        "duration_seconds": round(step.duration_seconds, 6),
        "error": step.error,
    }


def plain_log(line: LogLine) -> dict[str, Any]:
    """A log line as JSON."""
    return {"time": _iso(line.time), "step": line.step, "level": line.level, "message": line.message}


def plain_schedule(info: ScheduleInfo, orchestrator: str) -> dict[str, Any]:
    """A schedule as JSON."""
    return {
        "schedule_id": info.schedule_id,
        "pipeline": info.pipeline,
        "orchestrator": orchestrator,
        "schedule": info.schedule.to_dict(),
        "paused": info.paused,
        "next_runs": [_iso(time) for time in info.next_runs],
    }


def plain_outputs(outputs: Outputs) -> dict[str, Any]:
    """Outputs as JSON. What JSON cannot hold is ``{"$type", "$repr"}``, what was not kept ``{"$not_kept"}``."""
    kept = {name: _plain(value) for name, value in outputs.items()}
    return kept | {name: {"$not_kept": reason} for name, reason in outputs.not_kept.items()}


def shown(value: object) -> str:
    """A value on one line, cut when it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    kind = type(value)
    return {"$type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."), "$repr": shown(value)}


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
