"""Values of secrets on a worker: reading them, and masking them in all output."""

from __future__ import annotations

import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

from flowyml.core.errors import MissingSecretError, StepFailedError
from flowyml.plan.secrets import variable_of
from flowyml.runtime.folding import FoldedLines, Folding, fully_folded, is_foldable
from flowyml.runtime.lines import OnLine
from flowyml.runtime.tracebacks import described

__all__ = ["Mask", "ReadSecret", "from_environment", "missing", "secrets_of"]

ReadSecret = Callable[[str], str]
"""From a reference to its value. Raises ``MissingSecretError``."""

SHOWN = "***"
_SHORTEST = 4
"""The fewest masked characters: shorter values, and shorter pieces at the end of a line, would mask half a log."""
_WORD = 8
"""Shorter values are masked only as a separate word: a schema ``public`` is not in ``republican``."""

_BREAK = re.compile(r"(\r\n|\n|\r)")
_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_BEGINNING = 16
"""The number of characters of a quoted value to search for; then the value is followed to its end."""
_QUOTES = frozenset("%\\&'\"+")
"""Without one of these, nothing in a text is quoted."""
_LOGIN = re.compile(r"://([^\s:/@]*):(\S+)@")
_AFTER_SCHEME = re.compile(r"(:|%3a)(\\?/|%2f){2}", re.IGNORECASE)  # of a URL, however it is written


def from_environment(reference: str) -> str:
    """Return the value in the environment of this process."""
    if value := os.environ.get(variable_of(reference)):
        return value
    raise MissingSecretError(f"There is no secret {reference!r}: set {variable_of(reference)}.")


def secrets_of(step: str, names: Mapping[str, str], read: ReadSecret) -> dict[str, str]:
    """Return the values of a step's secrets, by argument or variable.

    Raises ``MissingSecretError`` that names the step.
    """
    values = {}
    for filled, reference in names.items():
        try:
            values[filled] = read(reference)
        except MissingSecretError as error:
            named = MissingSecretError(f"step {step!r}: {error}")
            named.step = step
            raise named from error
    return values


def missing(references: Iterable[str], read: ReadSecret) -> dict[str, str]:
    """Return the references that cannot be read, each with advice."""
    lacking = {}
    for reference in references:
        try:
            read(reference)
        except MissingSecretError as error:
            lacking[reference] = str(error)
    return lacking


class Mask:
    """Replaces values in text by ``***``, in all usual notations.

    Long values are found by ``folding``, also where they are both quoted and broken over lines. Those with fewer than
    a dozen letters and digits are found by their forms: the value itself, base64, and the quoting of URLs, JSON,
    Python, HTML, shells and SQL, whichever of their characters are quoted, and how often. The password of a URL counts
    as a value too. Values of fewer than four characters are not masked.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._values = frozenset(part for value in values for part in (value, *_logins_of(value)))
        parts = _lines_of(self._values)
        long = {part for part in parts if is_foldable(part)}
        self._folding = Folding(long) if long else None
        short = parts - long
        forms = sorted({form for part in short for form in _forms(part)}, key=len, reverse=True)
        self._parts = [(part, fully_folded(part)) for part in sorted(short, key=len, reverse=True)]
        self._beginning = cache(_beginning)
        words = {part for part in short if len(part) < _WORD}
        others = _any_of(form for form in forms if form not in words)
        self._pattern = re.compile(f"{others}|{_word(_any_of(sorted(words, key=len, reverse=True)))}")
        self._starts: dict[str, list[str]] = {}
        """The forms by their first one to four characters, to look up the end of a line."""
        forms = sorted({*forms, *long}, key=len, reverse=True)
        for form in forms:
            for length in range(1, _SHORTEST + 1):
                self._starts.setdefault(form[:length], []).append(form)
        self._longest = len(forms[0]) if forms else 0

    def text(self, text: str) -> str:
        """Return a text of several lines without the values, even those broken over lines."""
        if self._folding is not None:
            text = FoldedLines(self._folding, SHOWN).line(text)
        follow, parts = _Lines(self), _BREAK.split(self.whole(text))
        return "".join(part if number % 2 else follow.line(part) for number, part in enumerate(parts))

    def whole(self, text: str) -> str:
        """Return a text without the values that are unbroken in it."""
        if not _QUOTES.isdisjoint(text):
            letters = fully_folded(text)  # a value is in the text, however quoted, only if its letters are
            for part, folded in self._parts:
                if folded in letters:
                    text = "".join(_without(part, self._beginning(part), text))
        return self._pattern.sub(SHOWN, text)

    def error(self, error: BaseException) -> StepFailedError:
        """Return an error's message without the values, and without its causes, notes and local variables."""
        return StepFailedError(self.text(described(error)))

    def finds(self, value: Any) -> bool:
        """Return whether plain data contains a whole value in one of its strings, keys or numbers.

        The beginning of a value is not one: ``postgresql`` is not the URL of a database.
        """
        if isinstance(value, str):
            return self.whole(value) != value or (self._folding is not None and self._folding.is_in(value))
        if isinstance(value, bytes):
            return self.finds(value.decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            return any(map(self.finds, value)) or any(map(self.finds, value.values()))
        if isinstance(value, list | tuple | set | frozenset):
            return any(map(self.finds, value))
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and str(value).removesuffix(".0") in self._values

    def lines(self, on_line: OnLine) -> OnLine:
        """Wrap ``on_line``, so that it gets lines without the values. Each stream is tracked separately."""
        streams: dict[bool, Callable[[str], str]] = {}

        def take(source: str, line: str) -> None:
            stream = source == "stderr"
            if stream not in streams:
                streams[stream] = self._follower()
            on_line(source, streams[stream](line))

        return take

    def _follower(self) -> Callable[[str], str]:
        """Takes the lines of one stream."""
        forms = _Lines(self).line
        if self._folding is None:
            return forms
        folded, unfolded = FoldedLines(self._folding, SHOWN).line, _Lines(self).line

        def follow(line: str) -> str:
            shown, other = forms(folded(line)), unfolded(line)
            return other if shown == line else shown  # a line of a value may have nothing that folding compares

        return follow

    def begun(self, line: str) -> Iterator[tuple[int, str]]:
        """Yield the positions where a form begins at the end of a line, and the rest of the form."""
        for start in range(max(0, len(line) - self._longest), len(line)):
            end = line[start:]
            for form in self._starts.get(end[:_SHORTEST], ()):
                if len(form) > len(end) and form.startswith(end):
                    yield start, form[len(end) :]


class _Lines:
    """Tracks a value that is broken over lines: its beginning ends one line, and the next line continues it."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._begun: list[str] = []
        """The possible continuations of a value that the last line may have begun."""

    def line(self, line: str) -> str:
        """Return the line without values."""
        indent = line[: len(line) - len(line.lstrip())]
        shown, is_inside, still = line[len(indent) :], False, []
        for rest in {form for begun in self._begun for form in (begun, begun.lstrip())}:
            if 0 < len(shown) < len(rest) and rest.startswith(shown):
                still.append(rest[len(shown) :])
                is_inside = is_inside or len(shown) >= _SHORTEST
            elif len(rest) >= _SHORTEST and shown.startswith(rest):
                shown = SHOWN + shown[len(rest) :]
        if is_inside:
            self._begun = still
            return indent + SHOWN
        shown = self._mask.whole(shown)
        begun = list(self._mask.begun(shown))
        self._begun = [*still, *(rest for _, rest in begun)]
        hidden = [start for start, rest in begun if _gives_away(shown[start:], rest)]
        return indent + (shown[: min(hidden)] + SHOWN if hidden else shown)


def _gives_away(end: str, rest: str) -> bool:
    """Return whether the end of a line reveals part of a value: not the ``https`` of a URL, nor the dashes of a key."""
    is_scheme = end.isalpha() and _AFTER_SCHEME.match(rest)
    return len(end) >= _SHORTEST and not is_scheme and bool(end.strip("-"))


def _logins_of(value: str) -> Iterator[str]:
    """The password in a URL, and the user with it as basic authentication sends them: what servers echo of a URL."""
    for user, password in _LOGIN.findall(value):
        for part in (password, unquote(password), f"{unquote(user)}:{unquote(password)}"):
            if len(password) >= _SHORTEST:
                yield part


def _lines_of(values: Iterable[str]) -> set[str]:
    """Return values and their lines, without those shorter than four characters."""
    parts = {part.strip() for value in values for part in (value, *value.splitlines())}
    return {part for part in parts if len(part) >= _SHORTEST}


def _any_of(forms: Iterable[str]) -> str:
    """Return a pattern for any of these forms, grouped by first character: hundreds then take as long as one."""
    groups: dict[str, list[str]] = {}
    for form in forms:
        groups.setdefault(re.escape(form[0]), []).append(re.escape(form[1:]))
    branches = [f"{first}(?:{'|'.join(rests)})" for first, rests in groups.items()]
    return f"(?:{'|'.join(branches) or '(?!)'})"


def _word(pattern: str) -> str:
    return rf"(?<!\w){pattern}(?!\w)"


def _beginning(part: str) -> re.Pattern[str]:
    """Return the pattern of the beginning of a value, however it is quoted. A character takes 0.25 ms to compile."""
    pattern = "".join(map(_ways, part[:_BEGINNING]))
    return re.compile(_word(pattern) if len(part) < _WORD else pattern)


def _without(part: str, beginning: re.Pattern[str], text: str) -> Iterator[str]:
    """Yield the pieces of a text without a value that is quoted in it."""
    shown = at = 0
    while found := beginning.search(text, at):
        end = _end_of(part[_BEGINNING:], text, found.end())
        if end is None:
            at = found.start() + 1
            continue
        yield text[shown : found.start()]
        yield SHOWN
        shown = at = end
    yield text[shown:]


def _end_of(rest: str, text: str, at: int) -> int | None:
    """Return the end, in a text, of the rest of a quoted value that begins at a position; None if it does not match."""
    for run in re.findall(r"(?s)\\+|[^\\]", rest):
        for character in run:
            if not (found := _written(character).match(text, at)):
                return None
            at = found.end()
            if character == "\\" and not found[0].strip("\\"):
                break  # this match has taken all backslashes that follow one another
    return at


@cache
def _written(character: str) -> re.Pattern[str]:
    return re.compile(_ways(character))


def _ways(character: str) -> str:
    """Return the pattern of a character that may be quoted, in any of the usual ways."""
    return f"(?:{'|'.join(_each_way(character))})"


def _each_way(character: str) -> Iterator[str]:
    """Yield a pattern for a character in each notation.

    Repetitions are bounded, so that no line takes long to search.
    """
    number, data = ord(character), character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass")
    yield "".join(f"%(?:25){{0,16}}(?i:{byte:02x})" for byte in data)  # URLs
    yield "".join(rf"\\{{1,255}}+u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2))  # JSON
    yield rf"\\{{1,255}}+U(?i:{number:08x})"  # Python
    yield "".join(rf"\\{{1,255}}+x(?i:{byte:02x})" for byte in data)  # bytes, and shells
    yield "".join(rf"\\{{1,255}}+{byte:03o}" for byte in data)
    if number < 256:
        yield rf"\\{{1,255}}+x(?i:{number:02x})"
    if character in "\n\r\t":
        yield rf"\\{{1,255}}+{repr(character)[2]}"
    yield rf"&(?:amp;){{0,16}}#(?:0{{0,6}}{number}|[xX]0{{0,6}}(?i:{number:x}));"  # HTML, as entities
    if name := _ENTITIES.get(character):
        yield f"&(?:amp;){{0,16}}{name};"
    if character == " ":
        yield r"\+"
        yield "%(?:25){0,16}2[bB]"
    if character == "'":
        yield "''"  # SQL
        yield r"""'\\{0,255}(?:'|"'")'"""  # shells
    if character == '"':
        yield '""'
    yield rf"\\{{0,255}}{re.escape(character)}"  # last, since a backslash may begin each of the others


def _forms(value: str) -> Iterator[str]:
    """Yield the ways to write a value that are not quotings."""
    data = value.encode("utf-8", "surrogatepass")
    yield from (value, os.fsencode(value).decode("utf-8", "replace"))
    yield from (form for form in _in_base64(data) if len(form) >= _SHORTEST)


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield the characters for these bytes in base64, at each possible offset."""
    for encode in (b64encode, urlsafe_b64encode):
        for before, skipped in ((0, 0), (1, 2), (2, 3)):
            coded = encode(b"\0" * before + data).decode()[skipped:]
            yield coded  # nothing follows these bytes
            if coded.endswith("="):
                yield coded.rstrip("=")[:-1]  # without the character that holds bits of what follows
