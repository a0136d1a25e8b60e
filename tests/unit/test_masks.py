"""Values of secrets are masked in all that a step prints and gives, however they are written."""

from __future__ import annotations

import base64
import json
import os
import pprint
import re
import shlex
import textwrap
import time
import tracemalloc
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowyml.runtime.folding import Folding
from flowyml.runtime.secrets import Mask


def wrapped(width: int) -> Callable[[str], str]:
    return lambda text: "\n".join(textwrap.wrap(text, width, break_on_hyphens=False) or [""])


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": json.dumps,
    "repr": repr,
    "quoted": lambda text: quote(text, safe=""),
    "plus": quote_plus,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "after a user": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "url-safe": lambda text: base64.urlsafe_b64encode(f"u:{text}".encode()).decode(),
    "in lines": wrapped(7),
    "base64 in lines": lambda text: wrapped(11)(base64.b64encode(text.encode()).decode()),
}


QUOTED: dict[str, Callable[[str], str]] = {
    "JSON as Go writes it": lambda text: (
        json.dumps(text, ensure_ascii=False).replace("&", "\\u0026").replace("<", "\\u003C")
    ),
    "ascii()": ascii,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "XML": lambda text: escape(text, quote=False).replace("'", "&apos;"),
    "decimal entities": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "hexadecimal entities": lambda text: "".join(f"&#x{ord(character):02X};" for character in text),
    "each byte in percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "a shell": shlex.quote,
    "a shell within quotes": lambda text: text.replace("'", "'\\''"),
    "SQL": lambda text: text.replace("'", "''"),
    "each character with a backslash": lambda text: "".join(f"\\{character}" for character in text),
    "bytes": lambda text: repr(text.encode()),
    "octal": lambda text: "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03o}" for byte in text.encode()
    ),
}


def nested(text: str) -> str:
    for _ in range(6):
        text = json.dumps(text)
    return text


BROKEN: dict[str, Callable[[str], str]] = {
    "not": str,
    "pprint": lambda text: pprint.pformat({"key": text}, width=60),
    "JSON": lambda text: json.dumps(text.split(" "), indent=2),
    "YAML": lambda text: "\\\n  \\ ".join(text.split(" ")),
    "an e-mail": lambda text: textwrap.indent(text.replace(" ", "\n"), "> "),
    "a comment": lambda text: text.replace(" ", " \r\n# "),
}


NOTATIONS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": json.dumps,
    "JSON of Unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "HTML": escape,
    "URL": lambda text: quote(text, safe="*"),
    "XML": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "octal": lambda text: "".join("*" if byte == ord("*") else f"\\{byte:03o}" for byte in text.encode()),
    "bytes": lambda text: "".join("*" if byte == ord("*") else f"\\x{byte:02x}" for byte in text.encode()),
}
VALUES = st.text(
    st.one_of(st.characters(min_codepoint=33, max_codepoint=126), st.sampled_from("äßжю日😀")), min_size=8, max_size=24
).filter(lambda value: len(re.sub(r"[\\'\"+]", "", value)) >= 4 and not {value[0], value[-1]} & set("\\'\"+"))


class Counted(dict[str, Any]):
    lookups = 0

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        self.lookups += 1 + len(found)
        return found


@pytest.mark.parametrize("way", [*QUOTED, *FORMS])
def test_every_way_to_write_it(way: str) -> None:
    write = {**QUOTED, **FORMS}[way]
    for value in ("p4ss&w'rd<größe>", "correct-horse%battery/staple"):
        shown = Mask([value]).text(f"before: {write(value)} :after")
        assert re.fullmatch(r"""before: [b'"\\]*\w{0,4}\*\*\*[\n*'"\\=]* :after""", shown)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("it's-a-secret", repr(["psql", "password='it's-a-secret' host=\"h\""])),
        ("plänted\udcff-secret", "plänted\ufffd-secret"),
        ("a/b%c-secret", "a%2fb%25c-secret"),
        ("a@b c/d-secret", "https://app.example.org/?token=a@b%20c/d-secret"),  # as httpx and requests leave a URL
        ("a@b c/d:é-secret", "https://app.example.org/login?next=%2F%3Fto%3Da%2540b%2Bc%252Fd%253a%25C3%25A9-secret"),
        ("a@b c:d-secret", "https://a%40b+c:d-secret@app.example.org"),
        ("a/b/c-secret", r'{"a":"a\/b\/c-secret"}'),
        ("Bearer secret.eyJhbGciOi", "Bearer\nsecret.eyJhbGciOi x"),
        ("größe-secret-Übung", "gr&ouml;&szlig;e-secret-&Uuml;bung"),
    ],
)
def test_a_way_to_write_some_characters(value: str, line: str) -> None:
    shown = Mask([value]).text(line)
    assert "***" in shown
    assert "secret" not in shown


@pytest.mark.parametrize("piece", ["\\", "%25", "&amp;", "'", "p", "x", "\\u0078", "%2578"])
def test_a_long_line_is_searched_soon(piece: str) -> None:
    line = piece * 50_000
    begin = time.process_time()
    Mask(["x" * 100 + "y" * 100, "p4ss&w'rd<größe>" * 4]).text(line)
    assert time.process_time() - begin < 20


@settings(max_examples=30)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.integers(5, 20))
def test_whatever_it_is_and_however_it_is_broken(value: str, width: int) -> None:
    lines = [value[index : index + width] for index in range(0, len(value), width)]
    got: list[str] = []
    take = Mask([value]).lines(lambda source, line: got.append(line))
    for line in ("before", f"x{lines[0]}", *lines[1:], "after"):
        take("stdout", line)
    assert got[0] == "before"
    shown = "".join(got[1:-1])
    assert value not in shown
    is_long = sum(map(str.isalnum, value)) >= 10
    for part in lines:  # of what ends a line, up to three characters that count may be left
        if sum(character.isalnum() if is_long else character not in "\\'\"+" for character in part) >= 4:
            assert part not in shown


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_broken_by_any_end_of_a_line(end: str) -> None:
    value = "correct-horse-battery-staple"
    mask = Mask([value])
    assert mask.text(f"it was{end}{value[:12]}{end}{value[12:]}") == f"it was{end}***{end}***"
    assert mask.finds([f"{value[:12]}{end}{value[12:]}"])


def test_a_key_of_several_lines() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQ\n-----END KEY-----\n"
    got: list[str] = []
    take = Mask([key]).lines(lambda source, line: got.append(line))
    for line in f"the key:\n{key}done".split("\n"):
        take("stdout", line)
    assert got == ["the key:", "***", "***", "***", "***", "done"]


def test_streams_are_followed_by_themselves() -> None:
    got: list[tuple[str, str]] = []
    take = Mask(["abcdefghij"]).lines(lambda source, line: got.append((source, line)))
    for source, line in (("stdout", "x abcdef"), ("stderr", "warning"), ("stdout", "ghij y")):
        take(source, line)
    assert got == [("stdout", "x ***"), ("stderr", "warning"), ("stdout", "*** y")]


def test_ordinary_text_stays() -> None:
    text = "epoch 3\nloss 0.1\n\n  indented\nabc"
    assert Mask(["zzzzzzzzzz", "abc"]).text(text) == text  # three characters would mask half a log


def test_of_an_error_only_its_words_are_left() -> None:
    error = ValueError("no")
    error.__cause__ = KeyError("abcdef")
    shown = Mask(["abcdef"]).error(error)
    assert str(shown) == "ValueError: no"
    assert shown.__cause__ is None


def test_an_error_that_cannot_say_what_it_is() -> None:
    class Mute(Exception):
        def __str__() -> str:
            raise RuntimeError("no words")

    assert str(Mask(["abcdef"]).error(Mute())) == "Mute"


def test_a_short_value_in_a_word_or_over_lines_stays() -> None:
    """Seven characters are a word; eight are found anywhere."""
    got: list[str] = []
    for value, lines in (
        ("abcdefg", ["xabcdefg abcd", "efg abcdefgy"]),
        ("abcdefgh", ["xabcdefgh abcd", "efgh y"]),
    ):
        take = Mask([value]).lines(lambda source, line: got.append(line))
        for line in lines:
            take("stdout", line)
    assert got == ["xabcdefg abcd", "efg abcdefgy", "x*** ***", "*** y"]


@pytest.mark.parametrize("value", ["ab c", "Z. l", "g'fK", "'' ''"])
def test_a_value_of_four_characters_is_masked_as_it_is(value: str) -> None:
    mask = Mask([value])
    assert mask.text(f"x {value} y") == "x *** y"
    assert mask.finds({"a": value})


def test_a_value_of_quotes_is_masked_as_it_is_alone() -> None:
    value = "'\"\\+'ab\"+"
    assert Mask([value]).text(f"<{value}> ab <'ab'>") == "<***> ab <'ab'>"
    assert value in json.loads(Mask([value]).text(json.dumps(value)))


def test_a_short_value_is_a_word() -> None:
    mask = Mask(["public", "https://app:key@host"])
    assert mask.text("the republican schema public") == "the republican schema ***"
    assert mask.text("it speaks https\n-----") == "it speaks https\n-----"
    assert not mask.finds("the republican schema")


def test_the_beginning_of_a_value_is_none() -> None:
    """In an output; the end of a line of the log may go on in the next one."""
    url = "postgresql+psycopg2://ada:pw12345secret@db/sales"
    mask = Mask([url, "DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=9sd8f7s9d8f7"])
    assert not mask.finds(["postgresql", "Default", {"client": "mysql"}])
    assert mask.finds([f"see {url}!"])
    assert mask.finds("DefaultEndpointsProtocol=https;\n AccountName=abc;AccountKey=9sd8f7s9d8f7")


def test_what_is_found_in_an_output() -> None:
    mask = Mask(["12345678", "correct-horse-battery"])
    found = [
        12345678,
        12345678.0,
        ["x", {"correct-horse-battery": 1}],
        b"a correct-horse-battery",
        "correct-horse\n-battery",
    ]
    assert all(map(mask.finds, found))
    assert not any(map(mask.finds, [True, 1234567, ["x"], {"y": None}, object()]))


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("way", [*QUOTED, "plain", "JSON nested", "base64"])
def test_quoted_and_broken(way: str, broken: str) -> None:
    value = "p4ss&w'rd<größe> of/the:Warehouse-Q7Z3kX9mLc2HdY5E"
    quoted = {**QUOTED, **FORMS, "JSON nested": nested}[way](value)
    text = f"before:\n{BROKEN[broken](quoted)}\n:after"
    mask, got = Mask([value]), []
    take = mask.lines(lambda source, line: got.append(line))
    for line in text.split("\n"):
        take("stdout", line)
    for shown in (mask.text(text), "\n".join(got)):
        assert "***" in shown
        assert "before:" in shown
        assert ":after" in shown
        plain = "".join(filter(str.isalnum, shown))
        assert [piece for piece in ("Warehouse", "Q7Z3kX9", "9mLc2Hd", "cHQ0c3M", "UTdaM2tY") if piece in plain] == []


@pytest.mark.parametrize("password", ["S3cr%2Ft-pass-word", "s3c%2Fr", "Sec/ret-w0rd"])
def test_the_login_of_a_url(password: str) -> None:
    """A server may echo the header, and name the password."""
    mask = Mask([f"https://hugo:{password}@host.example/x"])
    header = base64.b64encode(f"hugo:{unquote(password)}".encode()).decode()
    assert mask.text(f"Authorization: Basic {header}!") == "Authorization: Basic ***!"
    assert mask.text(f"no: {unquote(password)}, {password} at host.example") == "no: ***, *** at host.example"


def test_ordinary_text_beside_long_values_stays() -> None:
    text = 'GET https://host.example/orders?since=2026 \\n {"a": 1}\n  the correct horse is\n100%25 &amp; more'
    values = [
        "https://ada:S3cret-w0rd@host.example/orders",
        "correct-horse-battery-staple",
        "\n".join(["x" * 50] * 9),
    ]
    assert Mask(values).text(text) == text


def test_a_long_line_is_not_cut_within_a_quoted_value() -> None:
    value = "K3y" + "f" * 5 + "QzX91" * 800
    for quoted in ("".join(f"&#{ord(each)};" for each in value), "".join(f"%{ord(each):02X}" for each in value)):
        for before in range(0, 10_000, 1_700):
            assert len(Mask([value]).text("x" * before + quoted)) < before + 50


@pytest.mark.parametrize("value", ["bat-fan-tab-!!-ab-\\\\x-9", "<<!!>>((~~))__++a\\9f"])
def test_a_backslash_within_a_short_value(value: str) -> None:
    octal = "".join(f"\\{ord(each):03o}" for each in value)
    for written in (json.dumps(value), json.dumps(json.dumps(value)), repr(value), octal):
        assert value[-4:] not in Mask([value]).text(written).replace("\\\\", "\\")
        assert "***" in Mask([value]).text(written)


def test_base64_of_base64_for_urls() -> None:
    value = "Kd0>>>?Zp~~?XX12mQ?xyQ>>9"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        written = base64.b64encode(encode(value.encode())).decode()
        assert Mask([value]).text(written) == "***"


def test_a_list_of_the_parts_of_a_value() -> None:
    value = "correct-horse-battery-staple"
    assert Mask([value]).text(f"parts: {value.split('-')}!") == "parts: ['***']!"


def test_colours_within_a_value() -> None:
    text = "\x1b[35mcorrect-\x1b[0mhorse-\x1b[1;36mbattery\x1b[0m"
    for written in (text, json.dumps(text)):
        assert "horse" not in Mask(["correct-horse-battery"]).text(written)


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_base64_of_base64(before: str) -> None:
    """As a Kubernetes secret holds the login of a registry of images."""
    key = "Q7Z3kX9mLc2HdY5E"
    login = json.dumps({"auth": base64.b64encode(f"{before}:{key}".encode()).decode()})
    shown = Mask([key]).text(base64.b64encode(login.encode()).decode())
    assert "***" in shown
    assert "UTdaM2tY" not in base64.b64decode(shown.split("***")[0] + "==").decode("latin-1")


@pytest.mark.parametrize("value", ["key", "word", "x" * 5000, f"{'x' * 5000}y", "ab" * 2500])
def test_a_text_is_searched_in_few_steps_whatever_the_values_are(value: str) -> None:
    """Counted, not timed: a value of equal letters took ten million comparisons for 1 MB of them."""
    values = base64.b64encode(os.urandom(48 * 1050)).decode() if value == "key" else value
    lines = ["".join(part) for part in zip(*[iter(values)] * 64, strict=False)] if value == "key" else [value]
    ((form, patterns),) = Folding([], lines).forms
    counted = patterns.keys = Counted(patterns.keys)
    for text in ("ordinary" * 1250, "x" * 10_000, "ab" * 5000):
        counted.lookups = 0
        whole, begun = patterns.search(text.translate(form))
        assert counted.lookups < 12_000
        assert len(whole) + sum(map(len, begun.values())) < 50


@settings(max_examples=100)
@given(VALUES, st.sampled_from(["base64", *NOTATIONS]), st.sampled_from([*NOTATIONS]), st.booleans())
@example("00000000%00", "plain", "URL", False)  # the end of its notation looks like the beginning of another
def test_two_notations_at_once(value: str, inner: str, outer: str, as_lines: bool) -> None:
    """Only what the notations write around a value is left."""
    inside = {**NOTATIONS, "base64": lambda text: text if text == "***" else FORMS["base64"](text)}
    written, shown = (NOTATIONS[outer](inside[inner](text)) for text in (value, "***"))
    mask, got = Mask([value]), []
    mask.lines(lambda source, line: got.append(line))("stdout", f"<{written}>")
    assert (got[0] if as_lines else mask.text(f"<{written}>")) == f"<{shown}>"
    assert mask.finds({"output": [written]})


@pytest.mark.parametrize("value", ["test data", "testdata", "testdatabase"])
def test_words_that_a_space_separates_are_another_value(value: str) -> None:
    text = "the latest data, the latest database, on 100% of a\\b"
    assert Mask([value.replace(" ", "")]).text(text) == text
    assert not Mask([value.replace(" ", "")]).finds(text)


def test_a_large_text_takes_little_memory() -> None:
    """An error may quote a whole statement: 9 MB took 1.4 GB."""
    value, text = "Zq7PxW2sT8vB4nC6-abc", "it's (1,'abc def'), " * 20_000
    mask = Mask([value])
    tracemalloc.start()
    try:
        shown = mask.text(f"{value} {text}{value}{text}%20{value[:9]}")
        assert tracemalloc.get_traced_memory()[1] < 20 * len(text)
    finally:
        tracemalloc.stop()
    assert shown == f"*** {text}***{text}%20***"
