"""The output of commands: one JSON document, or lines and tables for people.

All output for people goes through ``_painted``: it escapes control characters in text from elsewhere, and is the only
place that writes escape sequences, for colours.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from types import TracebackType
from typing import Self, TextIO

from flowyml.core.logs import StderrHandler, make_records
from flowyml.core.plain_text import safe_line, safe_log, safe_text, wants_colours

__all__ = [
    "LogText",
    "Notes",
    "Output",
    "Word",
    "discard_output",
    "escape_what_cannot_be_encoded",
    "note",
    "print_info_of_logging",
    "print_warnings_of_logging",
    "print_error",
]

_GAP = 2
_NARROWEST = 8
_MOST_PADDED = 60  # of a column, where nothing is cut: one long name does not make all rows as long
_FOR_COLUMNS = 70  # of a terminal, for a table whose cells are not cut
_BUNDLE = "flowyml.bundle"  # the logger that lists the included data files
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Output:
    """Standard output, for the command alone: the output of pipelines and their children goes to standard error.

    With ``shared`` both go there, for people who run a pipeline and want to see its output.
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
        return self._own or self._stream

    @property
    def columns(self) -> int | None:
        """The width of the terminal; None if the output is not a terminal."""
        from shutil import get_terminal_size

        return get_terminal_size((100, 24)).columns if self.stream.isatty() else None

    def document(self, value: object) -> None:
        """Print the one JSON document of a command."""
        print(json.dumps(value, indent=2), file=self.stream)

    def answer(self, document: object, *lines: str) -> None:
        """Print the document of a command with ``--json``, and else its lines for people."""
        if self.as_json:
            self.document(document)
            return
        for line in lines:
            self.line(line)

    def json_line(self, value: object) -> None:
        """Print one of many JSON documents, one for each line."""
        print(json.dumps(value), file=self.stream, flush=True)

    def line(self, *parts: str | Word) -> None:
        """Print a line for people, from text and coloured words. Line ends in them are escaped."""
        print(_painted(parts, self.stream, safe_line), file=self.stream)

    def text(self, text: str) -> None:
        """Print text of several lines for people, such as a difference."""
        print(_painted([text], self.stream), file=self.stream)

    def log_line(self, *parts: str | Word | LogText) -> None:
        """Print a line of a log at once; above the drawing of a run, if there is one."""
        drawn = self.stream is self._stream and self._stream.isatty() and sys.stdout is not self._stream
        stream = sys.stdout if drawn else self.stream
        print(_painted(parts, self.stream, safe_line), file=stream, flush=True)

    def raw(self, data: bytes) -> None:
        """Print bytes unchanged; on a terminal, control characters are escaped."""
        self.stream.flush()
        buffer = getattr(self.stream, "buffer", None)
        if buffer is None or self.stream.isatty():
            text = data.decode()
            self.stream.write(safe_text(text) if self.stream.isatty() else text)
            self.stream.flush()
            return
        buffer.write(data)
        buffer.flush()

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, cut: str | None = None) -> None:
        """Print columns for people; if the output is not a terminal, nothing is cut, wrapped or coloured.

        On a terminal that is too narrow, cells are wrapped, and are stacked if there is hardly room for columns; or the
        column ``cut`` is cut, for one line in each row.
        """
        cells = [[cell if isinstance(cell, Word) else Word(str(cell)) for cell in row] for row in rows]
        if self.columns and self.columns < _FOR_COLUMNS and cut is None:
            self._stack(headers, cells)
            return
        if self.stream.isatty():
            self._draw(headers, cells, cut)
            return
        from flowyml.graph.text import width

        plain = [headers, *([safe_line(cell.text) for cell in row] for row in cells)]
        widths = [min(_MOST_PADDED, max(map(width, column))) for column in zip(*plain, strict=True)]
        for row in plain:
            padded = (text + " " * (wide - width(text)) for text, wide in zip(row, widths, strict=True))
            self.line("  ".join(padded).rstrip())

    def _stack(self, headers: Sequence[str], cells: Sequence[Sequence[Word]]) -> None:
        """Print the cells of a row below each other; a word that is longer than a line stays whole, for copying."""
        from textwrap import TextWrapper

        columns = max(_NARROWEST, self.columns or 0)
        whole, indented = (TextWrapper(wide, break_long_words=False, break_on_hyphens=False)
                           for wide in (columns, columns - _GAP))  # fmt: skip
        for first, *others in cells:
            for line in whole.wrap(safe_line(first.text)):
                self.line(Word(line, "bold"))
            below = ", ".join(
                f"{header.lower()} {safe_line(cell.text)}".strip()
                for header, cell in zip(headers[1:], others, strict=True)
                if cell.text
            )
            for line in indented.wrap(below):
                self.line(" " * _GAP, line)

    def _draw(self, headers: Sequence[str], cells: Sequence[Sequence[Word]], cut: str | None) -> None:
        from rich.table import Table
        from rich.text import Text

        from flowyml.core.progress import console_on

        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
        drawn = [[Text(safe_line(cell.text), cell.style) for cell in row] for row in cells]
        room = [max(len(header), *(row[index].cell_len for row in drawn)) for index, header in enumerate(headers)]
        spare = (self.columns or 0) - sum(room) - _GAP * (len(headers) - 1)
        for header, wide in zip(headers, room, strict=True):
            if cut is None:
                table.add_column(header, overflow="fold", no_wrap=header == "ID")
            else:
                limit = max(_NARROWEST, wide + spare) if header == cut else wide
                table.add_column(header, overflow="ellipsis", no_wrap=True, width=min(wide, limit))
        for row in drawn:
            table.add_row(*row)
        console_on(self.stream).print(table)


@dataclass(frozen=True, slots=True)
class Word:
    """Text with a colour, for tables and lines."""

    text: str
    style: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class LogText:
    """A line that a step logged: on a terminal its own colours stay."""

    text: str

    def __str__(self) -> str:
        return self.text


def escape_what_cannot_be_encoded() -> None:
    """Print a character that standard output's encoding lacks as its escape, as standard error does anyway."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Write nothing more to standard output: a step closed it, or its reader has ended, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(message: str) -> None:
    """Print ``error: …`` on standard error."""
    note(Word("error:", "bold red"), f" {message.rstrip()}")


def note(*parts: str | Word | LogText) -> None:
    """Print information that is not data, on standard error."""
    print(_painted(parts, sys.stderr), file=sys.stderr)


class Notes(StderrHandler):
    """Prints log records like all other output; ``leveled``, with the levels of others' records.

    The writer is logging itself: a run records the output of steps, and has recorded their log records already.
    """

    def __init__(self, level: int = logging.NOTSET, *, leveled: bool = False) -> None:
        super().__init__(level)
        self._leveled = leveled

    def format(self, record: logging.LogRecord) -> str:
        has_level = self._leveled and not record.name.startswith("flowyml.")
        return _painted((f"{record.levelname}: " if has_level else "", super().format(record)), sys.stderr)


def print_warnings_of_logging() -> None:
    """Print warnings, and the list of files in a bundle, if logging is not set up; a user's own setup comes first."""
    notes = Notes(logging.INFO)
    notes.addFilter(lambda record: record.levelno >= logging.WARNING or record.name == _BUNDLE)
    logging.lastResort = notes
    logging.getLogger(_BUNDLE).setLevel(logging.INFO)


def print_info_of_logging() -> None:
    """Create and print INFO records of steps, too, from now on; a user's own logging comes first."""
    make_records()
    logging.getLogger("flowyml").setLevel(logging.WARNING)  # its own work; the logger of steps has a level itself
    logging.lastResort = Notes(logging.INFO, leveled=True)


def _painted(parts: Iterable[str | Word | LogText], stream: TextIO, safe: Callable[[str], str] = safe_text) -> str:
    colours = wants_colours(stream)
    return "".join(_painted_part(part, colours, safe) for part in parts)


def _painted_part(part: str | Word | LogText, colours: bool, safe: Callable[[str], str]) -> str:
    if isinstance(part, LogText):
        return safe_log(part.text, colours=colours)
    if isinstance(part, str):
        return safe(part)
    text = safe(part.text)
    if not part.style or not text or not colours:
        return text
    codes = ";".join(_CODES[word] for word in part.style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"
