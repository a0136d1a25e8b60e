"""Text: fields, templates, regular expressions, encodings."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import string
import textwrap
from typing import Any

from flowyml.migration.airflow.reader.library.natives import known, plain
from flowyml.migration.airflow.reader.operations import LARGEST, TooLarge, checked, pieces
from flowyml.migration.airflow.reader.parts import settle
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Native, hard, parts_of, shape

__all__ = ["NAMES", "format_text"]


def format_text(machine: Any, text: str, arguments: Arguments, node: ast.AST) -> Any:
    """``text.format(…)``: fields may take items and attributes, as the evaluator knows them."""
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
        out.append(machine.text_of(node, value, conversion, "" if "{" in spec else spec))
    if all(isinstance(hard(one), str) for one in out):
        return machine.soft(checked("".join(hard(one) for one in out)), *out, parts=parts_of(out))
    return machine.unknown(node, text="".join(shape(one) for one in out)[:500], parts=parts_of(out))


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


def _template(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``string.Template``: its ``substitute`` on plain values."""
    text = hard(arguments.value("template", 0))

    def substitute(_: Any, given: Arguments, where: ast.AST) -> Any:
        values = {name: one.value for name, one in given.named.items()}
        if given.positional and isinstance(hard(given.positional[0].value), dict):
            values = {**hard(given.positional[0].value), **values}
        values, _, soft, known = settle([values])
        if not known or not isinstance(text, str):
            return machine.unknown(where)
        if text.count("$") * max((len(str(one)) for one in values[0].values()), default=0) > LARGEST:
            return machine.unknown(where)
        return machine.soft(machine.attempt(where, string.Template(text).safe_substitute, values[0]), *soft)

    return Instance(None, {name: Native(name, substitute) for name in ("substitute", "safe_substitute")})


# Regular expressions, within bounds: no group is repeated, little is optional, and texts are short; so none takes long.


def _safe(pattern: Any, *texts: Any) -> None:
    if not isinstance(pattern, str) or len(pattern) > 200 or re.search(r"\)[*+{]", pattern):
        raise TooLarge
    if len(re.findall(r"[*+{]", pattern)) > 4 or len(re.findall(r"(?<![(*+}])\?", pattern)) > 4:
        raise TooLarge
    if any(isinstance(text, str) and len(text) > 300 for text in texts):
        raise TooLarge


_FUNCTIONS = ("sub", "match", "search", "fullmatch", "findall", "finditer", "split")


def _regex(name: str) -> Native:
    def call(pattern: Any, *args: Any, **kwargs: Any) -> Any:
        _safe(pattern, *args, *kwargs.values())
        if not all(isinstance(one, (str, int)) for one in args):
            raise TooLarge
        found = getattr(re, name)(pattern, *args, **kwargs)
        return list(found) if name == "finditer" else found

    return plain(call)


def _compiled(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """A pattern, whose methods are the functions of ``re``."""
    pattern, flags = Given(arguments.value("pattern", 0)), arguments.get("flags", 1)

    def method(name: str) -> Native:
        def call(_: Any, given: Arguments, where: ast.AST) -> Any:
            named = given.named if flags is None else {**given.named, "flags": flags}
            return machine.call(NAMES[f"re.{name}"], Arguments([pattern, *given.positional], named), where)

        return Native(name, call)

    return Instance(None, {"pattern": pattern.value, **{name: method(name) for name in _FUNCTIONS}})


def _digest(name: str) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        data = hard(arguments.value("string", 0, b""))
        if not isinstance(data, bytes):
            return machine.unknown(node)
        found = hashlib.new(name, data, usedforsecurity=False)
        methods = {"hexdigest": found.hexdigest(), "digest": found.digest()}
        return Instance(None, {key: Native(key, lambda *_, value=value: value) for key, value in methods.items()})

    return Native(name, call)


def _version(text: str) -> tuple[int, ...]:
    """A version that can be compared with another one: its first three numbers."""
    found = [int(each) for each in re.findall(r"\d+", text)[:3]]
    return tuple([*found, 0, 0, 0][:3])


NAMES: dict[str, Any] = {
    "packaging.version.Version": plain(_version),
    "packaging.version.parse": plain(_version),
    "pkg_resources.parse_version": plain(_version),
    "distutils.version.LooseVersion": plain(_version),
    "distutils.version.StrictVersion": plain(_version),
    "string.ascii_lowercase": "abcdefghijklmnopqrstuvwxyz",
    "string.ascii_uppercase": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "string.digits": "0123456789",
    "string.punctuation": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "string.Template": known(_template),
    "re.escape": plain(re.escape),
    "re.compile": known(_compiled),
    **{f"re.{name}": int(re.RegexFlag[name]) for name in ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE")},
    **{f"re.{name}": int(re.RegexFlag[name]) for name in ("I", "M", "S", "X")},
    "hashlib.md5": _digest("md5"),
    "hashlib.sha1": _digest("sha1"),
    "hashlib.sha256": _digest("sha256"),
    "base64.b64encode": plain(base64.b64encode),
    "base64.b64decode": plain(base64.b64decode),
    "textwrap.dedent": plain(textwrap.dedent),
}
NAMES.update({f"re.{name}": _regex(name) for name in _FUNCTIONS})
