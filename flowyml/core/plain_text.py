"""Make text from elsewhere harmless for a terminal: characters that move the cursor or change a colour are escaped.

Names, errors and log lines come from engines, bundles and steps. Printed unchanged, an escape sequence in one of them
could rewrite the screen, set the window's title or fill the clipboard.
"""

from __future__ import annotations

import os
import re
from typing import TextIO

__all__ = ["safe_line", "safe_log", "safe_text", "storable_text", "wants_colours"]

# C0 and C1 controls, line and paragraph separators, changes of the direction of text (Unicode TR 36, 2.1.3), lone
# surrogates, interlinear annotations. Tabs and line ends are handled separately.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
_UNSAFE_IN_LINE = re.compile(f"[\t\n]|{_UNSAFE.pattern}")
_COLOUR = re.compile(r"\x1b\[([0-9;]{0,40})m")
_RESET = "\x1b[0m"
# Select Graphic Rendition (ECMA-48, 8.3.117) without blinking (5, 6) and concealing (8).
_HARMLESS = {"", *map(str, (0, 1, 2, 3, 4, 7, 9, *range(21, 26), 27, 29, 39, 49))} | {
    str(first + colour) for first in (30, 40, 90, 100) for colour in range(8)
}


def storable_text(text: str) -> str:
    r"""Escape characters that databases and APIs refuse: lone surrogates and NUL.

    >>> storable_text("half \ud800, zero \0")
    'half \\ud800, zero \\x00'
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def safe_text(text: str) -> str:
    r"""Escape each control character; line ends and tabs stay.

    >>> safe_text("done\x1b[2J\n")
    'done\\x1b[2J\n'
    """
    return _UNSAFE.sub(_escaped, text)


def safe_line(text: str) -> str:
    r"""Escape the text for one line, such as a name or a cell of a table: line ends and tabs, too.

    >>> safe_line("a\nb")
    'a\\nb'
    """
    return _UNSAFE_IN_LINE.sub(_escaped, text)


def safe_log(line: str, *, colours: bool = False) -> str:
    r"""Make a line that a step logged safe to print.

    A progress bar, which keeps returning to its start, is shown as it ended.

    With ``colours``, its colours stay, and end with the line; otherwise they are removed, so that text stays readable.
    Any other sequence is shown.

    >>> safe_log("10%\r100%\x1b[32m done\x1b[2A")
    '100% done\\x1b[2A'
    """
    line = line.rstrip("\r\n")
    line = line[line.rfind("\r") + 1 :]
    parts, end = [], 0
    for match in _COLOUR.finditer(line):
        if _is_harmless(match[1]):
            parts += [safe_text(line[end : match.start()]), match[0] if colours else ""]
            end = match.end()
    text = "".join((*parts, safe_text(line[end:])))
    return f"{text}{_RESET}" if colours and parts else text


def wants_colours(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that shows colours and whose user wants them (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _is_harmless(parameters: str) -> bool:
    """Return whether a sequence only sets colours and weights.

    38 and 48 take a colour of 256 (5;n) or of 24 bits (2;r;g;b).
    """
    codes = iter(parameters.split(";"))
    for parameter in codes:
        if parameter in ("38", "48"):
            numbers = {"5": 1, "2": 3}.get(next(codes, ""), 0)
            colour = [next(codes, "") for _ in range(numbers)]
            if not colour or not all(number.isdecimal() and int(number) < 256 for number in colour):
                return False
        elif (parameter.lstrip("0") or ("0" if parameter else "")) not in _HARMLESS:
            return False
    return True


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
