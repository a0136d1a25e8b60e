"""Text: fields, templates, regular expressions, encodings."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import shlex
import string
import textwrap
import unicodedata
import zlib
from functools import partial
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.library.natives import natives, plain
from flowyml.migration.airflow.reader.machine import short
from flowyml.migration.airflow.reader.operations import LARGEST, joined, pieces


def format_text(machine: Any, text: str, arguments: values.Arguments, node: ast.AST) -> Any:
    """Return ``text.format(…)``: fields may have items and attributes of the evaluator's values."""
    out: list[Any] = []
    count = 0
    for literal, name, spec, conversion in pieces(text):
        out.append(literal)
        if name is None:
            continue
        head, rest = _field(name)
        if not head:
            head, count = str(count), count + 1
        given = arguments.get(head, int(head) if head.isdigit() else None)
        value = machine.unknown(node) if given is None else _walk(machine, given.value, rest, node)
        inner = format_text(machine, spec, arguments, node) if "{" in spec else spec
        out.append(machine.unknown(node) if "{}" in spec else machine.text_of(node, value, conversion, inner))
    if all(isinstance(values.hard(one), str) for one in out):
        return machine.soft(joined("", map(values.hard, out)), *out, parts=values.parts_of(out))
    return machine.unknown(node, text="".join(values.shape(one)[:500] for one in out[:500]), parts=values.parts_of(out))


def _field(name: str) -> tuple[str, list[str]]:
    parts = re.findall(r"\.[^.\[]+|\[[^\]]*\]", name)
    return re.split(r"[.\[]", name, maxsplit=1)[0], parts


def _walk(machine: Any, value: Any, parts: list[str], node: ast.AST) -> Any:
    for part in parts:
        if part.startswith("."):
            value = machine.attribute(value, part[1:], node)
        else:
            key = part[1:-1]
            value = machine.item(value, int(key) if key.isdigit() else key, node)
    return value


_LETTERS = ("ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits", "hexdigits", "punctuation")
_VERSIONS = (
    "packaging.version.Version", "packaging.version.parse", "pkg_resources.parse_version",
    "distutils.version.LooseVersion", "distutils.version.StrictVersion",
)  # fmt: skip
_FUNCTIONS = ("sub", "match", "search", "fullmatch", "findall", "finditer", "split")


def _regex(name: str) -> values.Native:
    """Return a function of ``re``, for a pattern and a text that a trial shows to take little time."""

    def call(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        def found(pattern: Any, *args: Any, **kwargs: Any) -> Any:
            text, flags = pattern, {}
            if isinstance(pattern, re.Pattern):
                text, flags = pattern.pattern, {"flags": pattern.flags}
                if len(args) + len(kwargs) > _MOST_ARGUMENTS.get(name, 1):
                    raise values.NotKnown  # of a part of the text
            if not all(isinstance(one, (str, int)) or callable(one) for one in (text, *args, *kwargs.values())):
                raise values.NotKnown
            machine.step(10)
            tried = [text, *("" if callable(one) else one for one in args)]
            named = {key: "" if callable(one) else one for key, one in kwargs.items()}
            if not machine.ends_in_time("re", name, *tried, **named, **flags):
                machine.warn("steps", f"`{short(machine.source(node))}` takes too long: its result is unknown", node)
                raise values.NotKnown
            result = getattr(re, name)(pattern, *args, **kwargs)
            return list(result) if name == "finditer" else result

        return plain(found).call(machine, arguments, node)

    return values.Native(name, call)


_MOST_ARGUMENTS = {"split": 2, "sub": 3}
"""Arguments that a pattern's method shares with ``re``, 1 unless named here; one more is the start position."""


def _substituted(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    """Call ``re.sub``, also with a function of the file for the replacements."""
    function, letters = values.hard(arguments.value("repl", 1)), 0

    def replacement(found: re.Match[str]) -> str:
        nonlocal letters
        new = values.hard(machine.call(function, values.Arguments.of(found), node))
        letters += len(new) if isinstance(new, str) else LARGEST + 1
        if letters > LARGEST:
            raise values.NotKnown
        return str(new)

    if isinstance(function, (values.Function, values.Bound, values.Native)):
        given = values.Given(replacement)
        positional = [given if index == 1 else one for index, one in enumerate(arguments.positional)]
        named = arguments.named | ({"repl": given} if "repl" in arguments.named else {})
        arguments = values.Arguments(positional, named, arguments.open)
    return _SUB.call(machine, arguments, node)


def pattern_attribute(pattern: re.Pattern[str], name: str) -> values.Native | None:
    """Return a method of a compiled pattern, which is the function of ``re``; None for any other name."""
    function = NAMES.get(f"re.{name}") if name in _FUNCTIONS else None
    return function and values.Native(name, lambda machine, given, at: function.call(machine, given.after(pattern), at))


_DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


def _digest(name: str, data: bytes = b"", **_: Any) -> Any:
    """Return ``hashlib.new(name, data)``. Raises ``NotKnown`` for any other than MD5, SHA-1 and SHA-2."""
    if name.lower() not in _DIGESTS:
        raise values.NotKnown
    return hashlib.new(name, data, usedforsecurity=False)


def _indented(text: str, prefix: str) -> str:
    if (text.count("\n") + 1) * len(prefix) > LARGEST:
        raise values.NotKnown
    return textwrap.indent(text, prefix)


def _normalized(form: Any, text: str) -> str:
    if len(text) > 500:  # it sorts combining letters in the square of their number
        raise values.NotKnown
    return unicodedata.normalize(form, text)


def _version(text: str) -> tuple[int, ...]:
    """Return a version for comparisons: its first three numbers."""
    found = [int(each) for each in re.findall(r"\d+", text)[:3]]
    return tuple([*found, 0, 0, 0][:3])


NAMES = natives({
    **dict.fromkeys(_VERSIONS, plain(_version)),
    **{f"string.{name}": getattr(string, name) for name in _LETTERS},
    "string.capwords": plain(string.capwords),
    "string.Template": plain(string.Template),
    "re.escape": plain(re.escape),
    "re.compile": _regex("compile"),
    **{f"re.{name}": int(re.RegexFlag[name]) for name in ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE")},
    **{f"re.{name}": int(re.RegexFlag[name]) for name in ("I", "M", "S", "X")},
    **{f"hashlib.{name}": plain(partial(getattr(hashlib, name), usedforsecurity=False)) for name in _DIGESTS},
    "hashlib.new": plain(_digest),
    "base64.b64encode": plain(base64.b64encode),
    "base64.b64decode": plain(base64.b64decode),
    "base64.urlsafe_b64encode": plain(base64.urlsafe_b64encode),
    "textwrap.dedent": plain(textwrap.dedent),
    "textwrap.indent": plain(_indented),
    "shlex.quote": plain(shlex.quote),
    "unicodedata.normalize": plain(_normalized),
    "zlib.crc32": plain(zlib.crc32),
})  # fmt: skip
_SUB = _regex("sub")
NAMES |= natives({**{f"re.{name}": _regex(name) for name in _FUNCTIONS}, "re.sub": _substituted})
