"""Split chunks of bytes into lines."""

from __future__ import annotations

import sys
from collections.abc import Callable

from flowyml.core.logs import parts, with_level

__all__ = ["Lines", "OnLine", "print_line"]

OnLine = Callable[[str, str], None]
"""Gets each line with its source: ``stdout``, ``stderr``, or its log level."""

_LONGEST = 1 << 16


class Lines:
    """Passes each line of a stream on as soon as it is complete. Longer lines are cut at 64 KiB."""

    def __init__(self, stream: str, on_line: OnLine) -> None:
        self._stream = stream
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._give(line)
        while len(self._rest) > _LONGEST:
            head, self._rest = self._rest[:_LONGEST], self._rest[_LONGEST:]
            self._give(head)

    def end(self) -> None:
        """Pass on the rest, which has no line break."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._give(rest)

    def mute(self) -> None:
        """Drop everything from now on."""
        self._on_line = lambda stream, line: None

    def _give(self, line: bytes) -> None:
        for level, text in parts(line.decode("utf-8", "replace").removesuffix("\r")):
            self._on_line(level or self._stream, text)


def print_line(source: str, line: str) -> None:
    """Print a line here, as if it had been printed or logged here."""
    print(with_level(source, line), file=sys.stdout if source == "stdout" else sys.stderr, flush=True)
