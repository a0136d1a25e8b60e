"""Find values in text, in all usual notations at once, by comparing what the notations of a value have in common.

Quoting adds characters, breaking over lines adds others, and they combine without end. So texts and values are *read*,
by decoding escapes for as long as there are any, and then *folded*: characters that notations add are dropped. The
result is the same for a plain value, for JSON in HTML in a URL, or for a value that YAML breaks over lines. A value is
folded as far as it stays recognizable (``_FORMS``). Base64, also of Base64, has its own patterns.

Reading and searching take time in proportion to the text, however many and however long the values are.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from html.entities import html5
from typing import NamedTuple

__all__ = ["FoldedLines", "Folding"]

_WORD = 8
"""Shorter values are masked only as a separate word: a schema ``public`` is not in ``republican``."""
_TELLING = 4
"""The number of folded characters at the end of a line that reveal a value."""
_KEY = 4  # characters by which values are looked up, of four or more
_WIDEST_STRIDE = 8  # characters between two lookups
_MOST_BEGUN = 8  # ways in which the end of a line may begin one value: "aaa" is three beginnings of "aaaa"
_MOST_LAYERS = 20
_WIDEST_EDGE = 1000  # characters of a value before its first, or after its last, folded one

_PIECE = re.compile(r"(?s).{1,10000}\Z|.{1,9999}[^%\\&;#\[\x1b\w]|.{1,9999}(?:(?=[%&])|(?<!\\)(?=\\))|.{1,10000}")
"""Long lines are searched piece by piece, so that they take little memory. They are not cut within an escape."""
_ESCAPE = re.compile(
    r"%(?:25)*(?P<percent>[0-9A-Fa-f]{2})"
    r"|\\(?<!\\\\)\\*(?:u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|x(?P<x>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2}))"
    r"|&(?:amp;)*(?:#(?P<decimal>[0-9]{1,7})|#[xX](?P<hex>[0-9A-Fa-f]{1,6})|(?P<name>[A-Za-z][A-Za-z0-9]{1,31}));"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # colours of a terminal
    r"|(?P<utf8>[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})"  # escapes of single bytes
    r"|(?P<pair>[\ud800-\udbff][\udc00-\udfff])"
)
_LETTER = re.compile(r"\\(?<!\\\\)\\*(?P<letter>[abefnrtv])")
_BASES = {"octal": 8, "decimal": 10}
_HARMLESS = re.compile(r"\w+://|-+")
_SPACE, _BREAK = re.compile(r"\w[\s+]+\w"), re.compile(r"[\r\n]")  # between words; ``+`` as in URLs
_CODED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_")
_QUOTING = frozenset("\\'\"+ \t\r\n")

Span = tuple[int, int]


class _Form(dict[int, int | None]):
    """A table for ``str.translate`` that drops characters; ``shortest`` is the fewest that a value must have left."""

    def __init__(self, keeps: Callable[[str], bool], shortest: int) -> None:
        self._keeps = keeps
        self.shortest = shortest

    def __missing__(self, code: int) -> int | None:
        self[code] = code if self._keeps(chr(code)) else None
        return self[code]

    def kept(self, text: str) -> list[int]:
        """Return the positions of the characters that are not dropped."""
        return [position for position, character in enumerate(text) if self[ord(character)] is not None]


def _is_telling(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _is_more_than_quoting(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character not in "\\'\"+\ufffd"


_FORMS = (
    _Form(_is_telling, 10),
    _Form(_is_more_than_quoting, 4),
    _Form(lambda character: character not in "\r\n", 4),
)
"""The parts of a value that are compared: the first form in which enough remains."""


class _Pattern(NamedTuple):
    """A folded value; what of its beginning and its end is dropped; how much of it, such as ``https://``, is harmless.

    A value without spaces does not match a text with them: "test data" is not "testdata". Breaks of lines do not count.
    """

    text: str
    lead: str = ""
    trail: str = ""
    harmless: int = 0
    has_space: bool = True
    is_word: bool = False
    is_coded: bool = False


class _Match(NamedTuple):
    pattern: _Pattern
    start: int
    length: int


class _Located(NamedTuple):
    """A reading of a text, the span of the text for each of its characters, and the positions that a form keeps."""

    text: str
    spans: list[Span]
    kept: list[int]


class Folding:
    """The values to find. Of each form, the search costs one lookup for some characters, however many values it has."""

    def __init__(self, values: Iterable[str], lines: Iterable[str]) -> None:
        """Look for these values, and for these lines of them."""
        patterns: dict[int, set[_Pattern]] = defaultdict(set)
        for times, parts in ((2, values), (1, lines)):
            for part in parts:
                for form, pattern in _patterns(part, times):
                    patterns[form].add(pattern)
        self.forms = [(_FORMS[form], _Patterns(patterns[form])) for form in sorted(patterns)]


class _Patterns:
    """The values of one form."""

    def __init__(self, patterns: set[_Pattern]) -> None:
        self._stride = min(min(len(pattern.text) for pattern in patterns) - _KEY + 1, _WIDEST_STRIDE)
        self._shortest = (
            _KEY + self._stride - 1
        )  # with as many characters, a lookup is within a value, or its beginning
        self.keys: dict[str, list[tuple[_Pattern, int]]] = {}
        self._starts: dict[str, list[_Pattern]] = {}
        for pattern in patterns:
            for offset in reversed(range(self._stride)):
                self.keys.setdefault(pattern.text[offset : offset + _KEY], []).append((pattern, offset))
            for length in () if pattern.is_word else range(_TELLING, self._shortest):
                self._starts.setdefault(pattern.text[:length], []).append(pattern)

    def search(self, folded: str) -> tuple[list[_Match], dict[_Pattern, list[int]]]:
        """Return where values are, and how much of which values may be at the end, most first."""
        whole: list[_Match] = []
        begun: dict[int, tuple[_Pattern, list[int]]] = {}
        ends: dict[int, int] = {}  # where the last match of each pattern ends
        get, size = self.keys.get, len(folded)
        for key in range(0, size - _KEY + 1, self._stride):
            for pattern, before in get(folded[key : key + _KEY], ()):
                text, start = pattern.text, key - before
                if start < ends.get(id(pattern), 0):
                    continue
                if start + len(text) <= size:
                    if folded.startswith(text, start):
                        whole.append(_Match(pattern, start, len(text)))
                        ends[id(pattern)] = start + len(text)
                elif not pattern.is_word:
                    lengths = begun.setdefault(id(pattern), (pattern, []))[1]
                    if len(lengths) < _MOST_BEGUN and text.startswith(folded[start:]):
                        lengths.append(size - start)
        for start in range(max(0, size - self._shortest + 1), size - _TELLING + 1):
            for pattern in self._starts.get(folded[start:], ()):
                lengths = begun.setdefault(id(pattern), (pattern, []))[1]
                if size - start not in lengths:
                    lengths.append(size - start)
        return whole, {pattern: lengths for pattern, lengths in begun.values() if lengths}


class FoldedLines:
    """Replaces values in consecutive lines; a value may continue in the next line."""

    def __init__(self, folding: Folding, shown: str) -> None:
        self.has_found = False
        """True if a whole value was in the lines so far."""
        self._shown = shown
        self._states = [(form, patterns, _State()) for form, patterns in folding.forms]

    def line(self, line: str) -> str:
        """Return the line, or a text of several lines, without values."""
        return "".join(map(self._piece, _PIECE.findall(line) or [""]))

    def _piece(self, piece: str) -> str:
        readings = _readings(piece)
        spans: list[Span] = []
        unfinished: list[Span] = []  # of values that may continue in the next line
        for form, patterns, state in self._states:
            before, done = state.tail, set[str]()
            following: dict[_Pattern, list[int]] = defaultdict(list)
            for number, text in enumerate(readings):
                folded = text.translate(form)
                if folded in done:
                    continue
                done.add(folded)
                whole, begun = patterns.search(before + folded)
                goes_on = state.go_on(folded, following)
                state.tail = (before + folded)[1 - _TELLING :]
                if not (whole or begun or goes_on):
                    continue
                located = _located(piece, number, form)
                for match in whole:
                    if span := _span(located, match, len(before)):
                        self.has_found = True
                        spans.append(span)
                for pattern, lengths in begun.items():
                    following[pattern] += lengths
                    start = _first_of(located, pattern, len(folded) - lengths[0])
                    last = located.spans[located.kept[-1]][1]
                    if lengths[0] > pattern.harmless:
                        unfinished.append((start, last))
                for pattern, length, is_end in goes_on:
                    self.has_found = self.has_found or is_end
                    spans.append((0, _end_of(located, pattern, length) if is_end else len(piece)))
            state.open = {pattern: sorted(lengths)[-_MOST_BEGUN:] for pattern, lengths in following.items()}
        spans += [
            (start, len(piece))
            for start, last in unfinished
            if not any(first <= start and last <= end for first, end in spans)  # within another value
        ]
        return _replaced(piece, spans, self._shown) if spans else piece


class _State:
    """The beginnings of values at the end of earlier lines."""

    def __init__(self) -> None:
        self.open: dict[_Pattern, list[int]] = {}
        """Values that the last line may have begun, and how much of each was there."""
        self.tail = ""
        """The end of the lines before, which may be too little of a value to be looked for."""

    def go_on(self, folded: str, following: dict[_Pattern, list[int]]) -> list[tuple[_Pattern, int, bool]]:
        """Return which values go on in a line, for how many characters, and whether they end there.

        Adds those that do not to ``following``.
        """
        edges = []
        for pattern, lengths in self.open.items():
            for length in lengths:
                rest = len(pattern.text) - length
                if rest <= len(folded):
                    if folded.startswith(pattern.text[length:]):
                        edges.append((pattern, rest, True))
                elif pattern.text.startswith(folded, length):
                    following[pattern].append(length + len(folded))
                    if folded and length > pattern.harmless:
                        edges.append((pattern, len(folded), False))
        return edges


def _patterns(value: str, times: int) -> Iterator[tuple[int, _Pattern]]:
    """Yield the patterns of a value, each with the number of its form."""
    for text in _readings(value):
        for number, form in enumerate(_FORMS):
            if len(folded := text.translate(form)) >= form.shortest:
                kept = form.kept(text)
                harmless = _HARMLESS.match(text)
                yield (
                    number,
                    _Pattern(
                        folded,
                        text[: kept[0]],
                        text[kept[-1] + 1 :],
                        len(harmless[0].translate(form)) if harmless else 0,
                        bool(_SPACE.search(text, kept[0], kept[-1] + 1)),
                        len(text) < _WORD,
                    ),
                )
                break
    for coded in _in_base64(value.encode("utf-8", "surrogatepass"), times):
        for number, form in enumerate(_FORMS[:2]):
            if len(folded := coded.decode().translate(form)) >= form.shortest:
                yield number, _Pattern(folded, is_coded=True)
                break


def _in_base64(data: bytes, times: int) -> Iterator[bytes]:
    """Yield the characters that occur in base64 for these bytes alone, whatever is before and after them."""
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        for encode in (b64encode, urlsafe_b64encode):
            coded = encode(b"\0" * before + data).rstrip(b"=")
            coded = coded[skipped:] if (before + len(data)) % 3 == 0 else coded[skipped:-1]
            yield coded
            if times > 1:
                yield from _in_base64(coded, times - 1)
            if coded.isalnum():
                break  # in both alphabets the same


def _readings(text: str) -> list[str]:
    """Return a text as it is; with its numeric escapes decoded; and with letters such as those of ``\\n`` decoded too.

    As it is, since a value may follow a ``%`` or ``\\``; those that add nothing are left out.
    """
    decoded = _decoded(text)[0]
    letters = _LETTER.sub(_meaning, decoded) if "\\" in decoded else decoded
    if letters != decoded:
        return [text, decoded, letters]
    return [text, decoded] if decoded != text else [text]


def _decoded(text: str) -> tuple[str, int]:
    """Return a text with its escapes decoded until there are none, and how often that took."""
    layers = 0
    while layers < _MOST_LAYERS and (decoded := _ESCAPE.sub(_meaning, text)) != text:
        text, layers = decoded, layers + 1
    return text, layers


def _meaning(escape: re.Match[str]) -> str:
    """Return the characters of an escape: none for a colour, and itself, unquoted, if it means nothing."""
    match escape.lastgroup:
        case None:
            return ""
        case "letter":
            return "\n"
        case "name":
            return html5.get(f"{escape['name']};", escape[0].replace("amp;", ""))
        case "utf8":
            return escape[0].encode("latin-1").decode("utf-8", "replace")
        case "pair":
            return escape[0].encode("utf-16", "surrogatepass").decode("utf-16")
        case kind:
            number = int(escape[kind], _BASES.get(kind, 16))
            return chr(number) if number < 0x110000 else escape[0].replace("amp;", "")


def _located(text: str, reading: int, form: _Form) -> _Located:
    """Return a reading of a text, by its number."""
    spans = [(position, position + 1) for position in range(len(text))]
    passes = [_ESCAPE] * _decoded(text)[1] if reading else []
    for pattern in [*passes, _LETTER] if reading == 2 else passes:
        pieces, places, position = [], [], 0
        for escape in pattern.finditer(text):
            meaning = _meaning(escape)
            pieces += [text[position : escape.start()], meaning]
            places += spans[position : escape.start()]
            places += [(spans[escape.start()][0], spans[escape.end() - 1][1])] * len(meaning)
            position = escape.end()
        text, spans = "".join(pieces) + text[position:], places + spans[position:]
    return _Located(text, spans, form.kept(text))


def _span(located: _Located, match: _Match, before: int) -> Span | None:
    """Return the span of a match that begins so many characters before a line; None if it is none after all."""
    pattern, start, text = match.pattern, match.start - before, located.text
    first, last = located.kept[max(start, 0)], located.kept[start + match.length - 1]
    if pattern.is_word and (start < 0 or _is_in_word(text[:first][-1:]) or _is_in_word(text[last + 1 : last + 2])):
        return None
    if (
        not pattern.has_space
        and start >= 0
        and _SPACE.search(text, first, last + 1)
        and not _BREAK.search(text, first, last)
    ):
        return None
    return _first_of(located, pattern, start), _end_of(located, pattern, start + match.length)


def _is_in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _first_of(located: _Located, pattern: _Pattern, begin: int) -> int:
    """Return where a value begins whose first folded character is this one of the line, or before it."""
    if begin < 0:
        return 0
    first = located.kept[begin]
    before = located.text[max(0, first - _WIDEST_EDGE) : first][::-1]
    if pattern.is_coded:
        before = before.partition("=")[0]  # of token=…
    return located.spans[first - _edge(pattern, before, pattern.lead[::-1])][0]


def _end_of(located: _Located, pattern: _Pattern, length: int) -> int:
    """Return where a value ends whose last folded character is the one before this one of the line."""
    last = located.kept[length - 1]
    after = located.text[last + 1 : last + 1 + _WIDEST_EDGE]
    return located.spans[last + _edge(pattern, after, pattern.trail)][1]


def _edge(pattern: _Pattern, text: str, characters: str) -> int:
    """Return the number of characters beside a folded value that belong to it: those that folding dropped."""
    if pattern.is_coded:
        return next((edge for edge, character in enumerate(text[:4]) if character not in _CODED), min(4, len(text)))
    edge = 0
    for character in characters:
        place = edge
        while place < len(text) and text[place] != character and text[place] in _QUOTING:
            place += 1
        if place < len(text) and text[place] == character:
            edge = place + 1
        elif character not in _QUOTING:
            break
    return edge


def _replaced(text: str, spans: list[Span], replacement: str) -> str:
    """Return the text with each span replaced; ends of lines and indentation within a span stay."""
    pieces: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if end > done:
            hidden = replacement if start > done or not done else ""  # of spans that overlap, the first one shows
            pieces += [text[done:start], re.sub(r"\S[^\r\n]*", hidden, text[max(start, done) : end])]
            done = end
    return "".join(pieces) + text[done:]
