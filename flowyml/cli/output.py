"""What commands print: one JSON document, or lines and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from types import TracebackType
from typing import Self, TextIO

__all__ = ["Output", "Word", "escape_what_cannot_be_encoded", "note", "styled", "tell_error"]

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


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
        from flowyml.graph.text import width

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


def escape_what_cannot_be_encoded() -> None:
    """A character that standard output's encoding lacks is printed as its escape, as standard error does anyway."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


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
