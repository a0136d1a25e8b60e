"""Data as text: JSON, YAML, CSV, INI, literals of Python."""

from __future__ import annotations

import ast
import configparser
import csv
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader.files import parse_json, parse_yaml
from flowyml.migration.airflow.reader.library.natives import known, plain
from flowyml.migration.airflow.reader.library.paths import Opened
from flowyml.migration.airflow.reader.library.paths import read as text_of
from flowyml.migration.airflow.reader.operations import TooLarge
from flowyml.migration.airflow.reader.parts import settle
from flowyml.migration.airflow.reader.values import Arguments, Instance, Native, hard

__all__ = ["NAMES"]


def _text_in(machine: Any, value: Any) -> Any:
    value = hard(value)
    return value.text if isinstance(value, Opened) else value


def _loader(parse: Callable[..., Any], *options: Any) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        given = arguments.positional[0].value if arguments.positional else arguments.value("stream")
        text = _text_in(machine, given)
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        if not isinstance(text, str):
            return machine.unknown(node)
        machine.step(len(text) // 20)
        return machine.soft(machine.attempt(node, parse, text, *options), given)

    return Native("load", call)


def _rows(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``csv.reader``."""
    return _table(machine, arguments, node, csv.reader, ())


def _dict_rows(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``csv.DictReader``."""
    return _table(machine, arguments, node, csv.DictReader, ("fieldnames",))


def _table(
    machine: Any, arguments: Arguments, node: ast.AST, reader: Callable[..., Any], positional: tuple[str, ...]
) -> Any:
    given = hard(arguments.value("f", 0))
    lines = given.text.splitlines(keepends=True) if isinstance(given, Opened) else given
    options = {name: each.value for name, each in arguments.named.items() if name != "f"}
    options |= {name: each.value for name, each in zip(positional, arguments.positional[1:], strict=False)}
    (lines,), options, soft, all_known = settle([lines], options)
    too_many = len(arguments.positional) > 1 + len(positional)
    if not isinstance(lines, list) or not all_known or too_many or arguments.open:
        return machine.unknown(node)
    rows = machine.attempt(node, lambda: list(reader(lines, **options)))
    return machine.soft(machine.once(lambda: rows, node), *soft) if isinstance(rows, list) else rows


def _literal(text: Any) -> Any:
    if not isinstance(text, str) or len(text) > 20_000:
        raise TooLarge
    return ast.literal_eval(text)


def _dumped(value: Any, **options: Any) -> str:
    if not set(options) <= {"sort_keys", "ensure_ascii", "indent"} or options.get("indent") not in (
        None,
        0,
        1,
        2,
        3,
        4,
        8,
    ):
        raise TooLarge
    return json.dumps(value, **options)


def _parser(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``configparser.ConfigParser``: sections of files of the root."""
    return _parser_of(machine, configparser.ConfigParser(), arguments, node)


def _raw_parser(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``configparser.RawConfigParser``: the same, where ``%`` means nothing."""
    return _parser_of(machine, configparser.RawConfigParser(), arguments, node)


def _parser_of(machine: Any, parser: configparser.RawConfigParser, arguments: Arguments, node: ast.AST) -> Any:
    if arguments.positional or arguments.named or arguments.open:
        return machine.unknown(node)

    def read(_: Any, given: Arguments, where: ast.AST) -> Any:
        name = hard(given.value("filenames", 0))
        for one in name if isinstance(name, (list, tuple)) else [name]:
            if isinstance(one, (str, PurePosixPath)):
                text = machine.attempt(where, text_of, machine, str(one))
                if isinstance(text, str):
                    machine.attempt(where, parser.read_string, text)
        sections = machine.attempt(where, lambda: {name: dict(section) for name, section in parser.items()})
        made.attributes["__sections__"] = sections if isinstance(sections, dict) else {}

    def get(convert: Callable[[str], Any]) -> Native:
        def call(_: Any, given: Arguments, where: ast.AST) -> Any:
            section, key = hard(given.value("section", 0)), hard(given.value("option", 1))
            if parser.has_option(str(section), str(key)):
                return machine.attempt(where, lambda: convert(parser.get(str(section), str(key))))
            return given.value("fallback", None, machine.unknown(where))

        return Native("get", call)

    made = Instance(None, {"read": Native("read", read), "get": get(str), "getint": get(int), "getfloat": get(float)})
    made.attributes["getboolean"] = get(lambda text: text.lower() in ("1", "yes", "true", "on"))
    made.attributes["sections"] = Native("sections", lambda *_: parser.sections())
    made.attributes["__sections__"] = {}
    return made


NAMES: dict[str, Any] = {
    "configparser.ConfigParser": known(_parser),
    "configparser.RawConfigParser": known(_raw_parser),
    "ast.literal_eval": plain(_literal),
    "json.load": _loader(parse_json),
    "json.loads": _loader(parse_json),
    "json.dumps": plain(_dumped),
    "yaml.load": _loader(parse_yaml),
    "yaml.safe_load": _loader(parse_yaml),
    "yaml.full_load": _loader(parse_yaml),
    "yaml.load_all": _loader(parse_yaml, True),
    "yaml.safe_load_all": _loader(parse_yaml, True),
    "csv.reader": known(_rows),
    "csv.DictReader": known(_dict_rows),
}
