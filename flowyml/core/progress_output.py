"""Stand-ins for a terminal's streams: printed text never controls the terminal, and progress bars stay readable.

While a run is drawn, complete lines appear above the drawing, and the current progress bar below it.
"""

from __future__ import annotations

import codecs
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

from flowyml.core.plain_text import safe_log, wants_colours

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["OutputAbove", "SafeOutput", "guard_terminals", "release_terminals", "terminal_of"]

# Sequences that move the cursor, erase, or show and hide the cursor (ECMA-48, 8.3). Colours stay.
_CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlsu]")
# New text replaces old text after this. "\r\n" only ends a line.
_AGAIN = re.compile(r"^(\r(?!\n)|\x1b\[[0-9]*[AF])|\x1b\[[0-9]*[AF]")
_ERASE = "\r\x1b[2K"


def guard_terminals() -> None:
    """Keep text that this process prints by ``sys.stdout`` and ``sys.stderr`` from controlling a terminal.

    A stream that is not a terminal, such as a pipe, is unchanged.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not stream.closed and stream.isatty():
            setattr(sys, name, SafeOutput(stream))


def release_terminals() -> None:
    """Restore the streams that ``guard_terminals`` replaced."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, terminal_of(getattr(sys, name)))


def terminal_of(stream: Any) -> Any:
    """Return the stream that draws on the terminal: the original one of a ``SafeOutput``."""
    return stream.terminal if isinstance(stream, SafeOutput) else stream


class SafeOutput:
    """Stands in for a terminal's stream. Each piece of text is shown at once, made safe by ``safe_log``.

    Moves of the cursor are left out. Text that returns to the start of its line replaces that line.
    """

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal
        self._lock = threading.RLock()
        self._begun = self._returned = False

    def write(self, text: str) -> int:
        """Write text without control sequences."""
        with self._lock:
            plain = _CURSOR.sub("", text)
            is_again = self._returned and not plain.startswith("\n")
            first, *lines = plain.split("\n")
            if self._begun and (is_again or _AGAIN.search(text) or "\r" in first.rstrip("\r")):
                self.terminal.write(_ERASE)
            colours = wants_colours(self.terminal)
            self.terminal.write("\n".join(safe_log(line, colours=colours) for line in (first, *lines)))
            if plain:
                last = lines[-1] if lines else first
                self._begun = bool(last) or (self._begun and not lines)
                self._returned = last.endswith("\r")
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> _Bytes:
        return _Bytes(self)

    def __iter__(self) -> Any:
        return iter(self.terminal)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


class _Bytes:
    """The binary stream below a ``SafeOutput``."""

    def __init__(self, output: SafeOutput) -> None:
        self._output = output

    def write(self, data: Any) -> int:
        r"""Write text in the stream's encoding; other bytes are shown as ``\x9b``."""
        self._output.write(codecs.decode(data, self._output.encoding or "utf-8", "backslashreplace"))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output.terminal.buffer, name)


class OutputAbove:
    """Stands in for a terminal's stream. ``tail`` is the unfinished line.

    Output that returns to the start of its line, as tqdm's bars do, or moves up, as rich's do, replaces the tail.
    """

    def __init__(self, console: Console, stream: TextIO, begun: str = "") -> None:
        self._console = console
        self._stream = terminal_of(stream)
        self._lock = threading.Lock()
        self.tail = _CURSOR.sub("", begun)
        if begun:
            self._stream.write(_ERASE)  # from now on it is part of the drawing

    def write(self, text: str) -> int:
        """Print the complete lines."""
        with self._lock:
            plain = _CURSOR.sub("", text)
            if _AGAIN.search(text) and not plain.endswith("\n"):
                self.tail = plain.lstrip("\r")
            else:
                whole = plain if _AGAIN.search(text) else self.tail + plain
                *lines, self.tail = whole.split("\n")
                self._print(lines)
        return len(text)

    def flush(self) -> None:
        """Do nothing: only the tail is buffered."""

    def close(self) -> None:
        """Print the tail: the drawing ends."""
        with self._lock:
            lines, self.tail = self.tail.splitlines(), ""
            self._print(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _print(self, lines: list[str]) -> None:
        from rich.text import Text

        if lines:
            text = "\n".join(safe_log(line, colours=True) for line in lines)
            self._console.print(Text.from_ansi(text), soft_wrap=True)
