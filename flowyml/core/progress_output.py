"""Output while a run is drawn: complete lines appear above the drawing, the current progress bar below it."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, TextIO

from flowyml.core.plain_text import safe_log

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["OutputAbove"]

# What moves the cursor, erases, or shows and hides the cursor (ECMA-48, 8.3). Colours stay.
_CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlsu]")
# What is written takes the place of what was. "\r\n" only ends a line.
_AGAIN = re.compile(r"^(\r(?!\n)|\x1b\[[0-9]*[AF])|\x1b\[[0-9]*[AF]")


class OutputAbove:
    """Stands in for a terminal's stream. ``tail`` is the unfinished line.

    Output that returns to the start of its line, as tqdm's bars do, or moves up, as rich's do, replaces the tail.
    """

    def __init__(self, console: Console, stream: TextIO, begun: str = "") -> None:
        self._console = console
        self._stream = stream
        self._lock = threading.Lock()
        self.tail = _CURSOR.sub("", begun)
        if begun:
            stream.write("\r\x1b[2K")  # from now on it is part of the drawing

    def write(self, text: str) -> int:
        """Print the lines that are complete."""
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
        """Nothing is held back but the tail."""

    def close(self) -> None:
        """Print the tail too: the drawing ends."""
        with self._lock:
            lines, self.tail = self.tail.splitlines(), ""
            self._print(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _print(self, lines: list[str]) -> None:
        from rich.text import Text

        if lines:
            shown = "\n".join(safe_log(line, colours=True) for line in lines)
            self._console.print(Text.from_ansi(shown), soft_wrap=True)
