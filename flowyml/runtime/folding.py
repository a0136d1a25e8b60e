"""Find long values in text by comparing the characters that all notations of them share.

Quoting adds characters, breaking over lines adds others, and the two combine without end. So text and values are
*folded* before they are compared: escapes are decoded for as long as there are any, and only letters and digits stay,
without those letters that escapes use (``\\n``). The result is the same for the plain value, for JSON nested ten times,
for the line breaks of ``pprint`` or YAML, or for the quotes of an e-mail, with ``> `` before each line. Base64, also
of Base64, has its own forms.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["FoldedLines", "Folding", "fully_folded", "is_foldable"]

_SHORTEST = 10
"""The fewest folded characters of a value. Shorter ones would match ordinary text, such as "test data"."""
_TELLING = 4
"""The number of folded characters at the end of a line that reveal a value."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_KEY = 5  # characters by which values are looked up
_STRIDE = _SHORTEST - _KEY + 1  # between lookups: wherever a value begins, one of them is within it
_PIECE = re.compile(r"(?s).{1,10000}\Z|.{1,9999}[^%\\&;#\w]|.{1,9999}(?:(?=[%&])|(?<!\\)(?=\\))|.{1,10000}")
"""Long lines are searched piece by piece, so that they take little memory. They are not cut within an escape."""
_DROPPED = bytes(set(range(256)) - set(b"cdeghijklmopqsuwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
_ESCAPE = re.compile(
    r"%(?:25)*(?P<percent>[0-9A-Fa-f]{2})"
    r"|\\(?<!\\\\)\\*(?:u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|x(?P<x>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2}))"
    r"|&(?:amp;)*(?:#(?P<decimal>[0-9]{1,7})|#[xX](?P<hex>[0-9A-Fa-f]{1,6})|(?P<name>[A-Za-z]{2,8}));"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # colours of a terminal
)
_BASES = {"octal": 8, "decimal": 10}
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_MOST_LAYERS = 20
_WIDEST_EDGE = 1000  # characters of a value before its first, or after its last, folded one
_SCHEME = re.compile(r"\w+(?=://)")
_CODED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_")
_QUOTING = frozenset("\\'\" \t\r\n")

Span = tuple[int, int]


class _Pattern(NamedTuple):
    """A folded value; its beginning and end that folding drops; the length of its part that is a URL's scheme."""

    text: bytes
    lead: str = ""
    trail: str = ""
    harmless: int = 0
    coded: bool = False


class _Match(NamedTuple):
    pattern: _Pattern
    at: int
    length: int


class _Text(NamedTuple):
    """A text with some of its escapes decoded, and the positions of its characters in the original."""

    text: str
    spans: list[Span]


def is_foldable(value: str) -> bool:
    """Return whether a value is long enough for folding."""
    return len(_fold(value)) >= _SHORTEST


def fully_folded(text: str) -> bytes:
    """Return what a text has in common with all its quotings."""
    return _fold(text, _layers(text))


class Folding:
    """The values to find. The search costs one lookup per six characters, however many values there are."""

    def __init__(self, values: Iterable[str]) -> None:
        self._keys: dict[bytes, list[tuple[_Pattern, int]]] = {}
        self._starts: dict[bytes, list[_Pattern]] = {}
        for pattern in {pattern for value in values for pattern in _patterns(value)}:
            for at in range(_STRIDE):
                self._keys.setdefault(pattern.text[at : at + _KEY], []).append((pattern, at))
            for length in range(_TELLING, _SHORTEST):
                self._starts.setdefault(pattern.text[:length], []).append(pattern)

    def matches(self, folded: bytes) -> list[_Match]:
        """Return the positions where values are, or begin at the end."""
        found, get, size = [], self._keys.get, len(folded)
        for key in range(0, size - _KEY + 1, _STRIDE):
            for pattern, before in get(folded[key : key + _KEY], ()):
                at = key - before
                length = min(len(pattern.text), size - at)
                if at >= 0 and length >= _SHORTEST and folded.startswith(pattern.text[:length], at):
                    found.append(_Match(pattern, at, length))
        for at in range(max(0, size - _SHORTEST + 1), size):
            found += [_Match(pattern, at, size - at) for pattern in self._starts.get(folded[at:], ())]
        return found

    def is_in(self, text: str) -> bool:
        """Return whether a whole value is in a text."""
        foldings = (_fold(text, layers) for layers in {0, _layers(text)})
        return any(match.length == len(match.pattern.text) for folded in foldings for match in self.matches(folded))


class FoldedLines:
    """Replaces values in consecutive lines; a value may continue in the next line."""

    def __init__(self, folding: Folding, shown: str) -> None:
        self._folding = folding
        self._shown = shown
        self._open: set[tuple[_Pattern, int]] = set()
        """Values that the last line may have begun, and how much of each was there."""
        self._tail = b""
        """The end of the lines before, which may be too little of a value to be looked for."""

    def line(self, line: str) -> str:
        """Return the line, or a text of several lines, without values."""
        return "".join(map(self._piece, _PIECE.findall(line) or [""]))

    def _piece(self, line: str) -> str:
        spans: list[Span] = []
        following: set[tuple[_Pattern, int]] = set()
        tail = before = self._tail
        for layers in sorted({0, _layers(line)}):
            folded = _fold(line, layers)
            hidden: list[_Match] = []
            ends = []  # in the folded line, of values that earlier lines began
            for pattern, at, length in self._folding.matches(before + folded):
                if length < len(pattern.text):
                    following.add((pattern, length))
                    if length <= pattern.harmless:
                        continue
                if at >= len(before):
                    hidden.append(_Match(pattern, at - len(before), length))
                elif at + length > len(before):
                    ends.append((pattern, at + length - len(before)))
            for pattern, done in self._open:
                rest = pattern.text[done:]
                if folded.startswith(rest):
                    ends.append((pattern, len(rest)))
                elif rest.startswith(folded):
                    following.add((pattern, done + len(folded)))
                    if folded and done > pattern.harmless:
                        ends.append((pattern, len(folded)))
            if hidden or ends:
                spans += _spans(_decoded(line, layers), hidden, ends)
            tail = (before + folded)[1 - _TELLING :]
        self._open, self._tail = following, tail
        return _replaced(line, spans, self._shown) if spans else line


def _patterns(value: str) -> Iterator[_Pattern]:
    """Yield a value unchanged and with its escapes decoded, and the characters of Base64 that occur for it alone."""
    for layers in {0, _layers(value)}:
        decoded = _unescaped(value, layers)
        kept = [place for place, character in enumerate(decoded) if _fold(character)]
        scheme = _SCHEME.match(decoded)
        yield _Pattern(
            _fold(decoded), decoded[: kept[0]], decoded[kept[-1] + 1 :], len(_fold(scheme[0])) if scheme else 0
        )
    for coded in _in_base64(value.encode("utf-8", "surrogatepass"), times=2):
        if len(text := _fold(coded.decode())) >= _SHORTEST:
            yield _Pattern(text, coded=True)


def _in_base64(data: bytes, times: int) -> Iterator[bytes]:
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        coded = b64encode(b"\0" * before + data).rstrip(b"=")
        coded = coded[skipped:] if (before + len(data)) % 3 == 0 else coded[skipped:-1]
        yield coded
        for form in {coded, coded.translate(_URL_SAFE)} if times > 1 else ():
            yield from _in_base64(form, times - 1)


def _fold(text: str, layers: int = 0) -> bytes:
    return _unescaped(text, layers).encode("ascii", "ignore").translate(None, _DROPPED)


def _unescaped(text: str, layers: int) -> str:
    for _ in range(layers):
        text = _ESCAPE.sub(_meaning, text)
    return text


def _layers(text: str) -> int:
    """Return how often escapes must be decoded until there are none."""
    layers = 0
    while layers < _MOST_LAYERS and (decoded := _ESCAPE.sub(_meaning, text)) != text:
        text, layers = decoded, layers + 1
    return layers


def _meaning(escape: re.Match[str]) -> str:
    """Return the character of an escape; empty for one outside ASCII, since those are not compared, and for colours."""
    if (kind := escape.lastgroup) is None:
        return ""
    if kind == "name":
        return _NAMED.get(escape["name"], "")
    number = int(escape[kind], _BASES.get(kind, 16))
    return chr(number) if number < 128 else ""


def _decoded(text: str, layers: int) -> _Text:
    spans = [(place, place + 1) for place in range(len(text))]
    for _ in range(layers):
        pieces, places, at = [], [], 0
        for escape in _ESCAPE.finditer(text):
            meaning = _meaning(escape)
            pieces += [text[at : escape.start()], meaning]
            places += spans[at : escape.start()]
            if meaning:
                places.append((spans[escape.start()][0], spans[escape.end() - 1][1]))
            at = escape.end()
        text, spans = "".join(pieces) + text[at:], places + spans[at:]
    return _Text(text, spans)


def _spans(decoded: _Text, hidden: Iterable[_Match], ends: Iterable[tuple[_Pattern, int]]) -> Iterator[Span]:
    """Yield the spans of the original to hide: from the first to the last character of each value."""
    text, spans = decoded
    kept = [place for place, character in enumerate(text) if _fold(character)]

    def end_of(pattern: _Pattern, last: int) -> int:
        after = text[last + 1 : last + 1 + _WIDEST_EDGE]
        return spans[last + _edge(pattern, after, pattern.trail)][1]

    for pattern, at, length in hidden:
        before = text[max(0, kept[at] - _WIDEST_EDGE) : kept[at]][::-1]
        first = kept[at] - _edge(pattern, before, pattern.lead[::-1])
        goes_on = length < len(pattern.text)  # in the next line
        yield spans[first][0], spans[-1][1] if goes_on else end_of(pattern, kept[at + length - 1])
    for pattern, length in ends:
        yield 0, spans[-1][1] if length == len(kept) else end_of(pattern, kept[length - 1])


def _edge(pattern: _Pattern, text: str, wanted: str) -> int:
    """Return the number of characters beside a folded value that belong to it: those that folding dropped."""
    if pattern.coded:
        return next((at for at, character in enumerate(text[:4]) if character not in _CODED), min(4, len(text)))
    at = end = 0
    for character in wanted:
        while at < len(text) and text[at] != character and text[at] in _QUOTING:
            at += 1
        if at == len(text) or text[at] != character:
            break
        at = end = at + 1
    return end


def _replaced(text: str, spans: list[Span], shown: str) -> str:
    """Return the text with each span replaced; ends of lines and indentation within a span stay."""
    pieces: list[str] = []
    at = 0
    for start, end in sorted(spans):
        if end > at:
            hidden = shown if start > at or not at else ""  # of spans that overlap, the first one shows
            pieces += [text[at:start], re.sub(r"\S[^\r\n]*", hidden, text[max(start, at) : end])]
            at = end
    return "".join(pieces) + text[at:]
