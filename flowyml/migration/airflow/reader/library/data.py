"""Data as text: JSON, YAML, CSV, INI files, literals of Python."""

from __future__ import annotations

import ast
import collections
import configparser
import csv
import io
import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader.files import parse_json, parse_yaml
from flowyml.migration.airflow.reader.library.natives import natives, plain
from flowyml.migration.airflow.reader.library.paths import read as text_of
from flowyml.migration.airflow.reader.machine import MISSING
from flowyml.migration.airflow.reader.operations import LARGEST
from flowyml.migration.airflow.reader.values import Arguments, Given, Native, NotKnown, hard


class _Inserted(collections.ChainMap[str, str]):
    """Charges the options of a section that one of them inserts (``%(name)s``), and bounds their length together."""

    charge: Callable[[str], None]

    def __getitem__(self, option: str) -> str:
        text = super().__getitem__(option)
        self.charge(text)
        return text


class _Interpolation(configparser.BasicInterpolation):
    """Inserts options as Python does (``%(name)s``), within bounds; charges them also if a parser ``inserts`` none."""

    def __init__(self, machine: Any, inserts: bool) -> None:
        self._machine, self._inserts = machine, inserts

    def before_get(self, parser: Any, section: str, option: str, value: str, defaults: Any) -> str:
        letters = 0

        def charge(text: str) -> None:
            nonlocal letters
            letters += len(text)
            self._machine.step(1 + len(text) // 10 + len(text) * text.count("%") // 20_000)  # each "%" copies the rest
            if letters > LARGEST:
                raise NotKnown

        options = _Inserted(defaults)
        options.charge = charge
        charge(value)
        return super().before_get(parser, section, option, value, options) if self._inserts else value

    def before_set(self, parser: Any, section: str, option: str, value: str) -> str:
        self._machine.step(1 + len(value) * value.count("%(") // 2000)  # its pattern takes the rest for each
        return super().before_set(parser, section, option, value) if self._inserts else value


def _maker(kind: type[configparser.RawConfigParser]) -> Callable[..., Any]:
    def make(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        options = {name: hard(given.value) for name, given in arguments.named.items()}
        is_read = set(options) <= {"allow_no_value", "interpolation"} and options.get("interpolation") is None
        if arguments.positional or arguments.open or not is_read:
            raise NotKnown
        inserts = kind is configparser.ConfigParser and "interpolation" not in options
        return kind(**{**options, "interpolation": _Interpolation(machine, inserts)})

    return make


def _read(machine: Any, parser: Any, arguments: Arguments, node: ast.AST) -> list[str]:
    """Read files; one that is missing in the root is ignored, as in Python. Returns the names of the others."""
    names, found = hard(arguments.value("filenames", 0)), []
    for name in map(hard, names if isinstance(names, (list, tuple)) else [names]):
        is_named = isinstance(name, (str, PurePosixPath))
        path = machine.files.resolve(str(name)) if is_named else None
        if path is None or path.is_file():
            text = machine.attempt(node, text_of, machine, str(name)) if is_named else machine.unknown(node)
            machine.call_method(parser, "read_string", Arguments.of(text), node)
            found.append(str(name))
    return found


def _read_file(machine: Any, parser: Any, arguments: Arguments, node: ast.AST) -> None:
    machine.call_method(parser, "read_string", Arguments.of(text_in(machine, arguments.value("f", 0))), node)


def parser_attribute(machine: Any, parser: Any, name: str) -> Native | None:
    """Return the methods of a ``ConfigParser`` that read files, or take a ``fallback``; None for any other name."""

    def get(_: Any, arguments: Arguments, node: ast.AST) -> Any:
        named = arguments.named | ({"fallback": Given(MISSING)} if "fallback" in arguments.named else {})
        found = machine.call_method(parser, name, replace(arguments, named=named), node)
        return arguments.value("fallback") if found is MISSING else found

    if name.startswith("get"):
        return Native(name, get)
    method = {"read": _read, "read_file": _read_file}.get(name)
    return method and Native(name, lambda _, arguments, node: method(machine, parser, arguments, node))


def text_in(machine: Any, value: Any) -> Any:
    """Return the rest of the text of an open file; any other value unchanged."""
    value = hard(value)
    return value.read() if isinstance(value, io.StringIO) else value


def _loader(parse: Callable[..., Any], *options: Any, letters: int) -> Native:
    """Return a native that parses a text, at this many letters for a step."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        given = arguments.positional[0].value if arguments.positional else arguments.value("stream")
        if not set(arguments.named) <= _KEEPING and not _keeps_order(arguments):
            raise NotKnown
        text = text_in(machine, given)
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        if not isinstance(text, str):
            raise NotKnown
        machine.step(len(text) // letters)
        found = machine.attempt(node, parse, text, *options)
        if (hook := arguments.value("object_hook")) is not None:
            found = _hooked(machine, hook, found, node)
        return machine.soft(found, given)

    return Native("load", call)


_KEEPING = frozenset({"Loader", "encoding", "f", "fp", "object_hook", "s", "stream", "strict"})
"""Options of JSON and YAML readers that do not change the values, or are supported."""


def _keeps_order(arguments: Arguments) -> bool:
    """Return whether the only other option is ``object_pairs_hook=OrderedDict``, or ``dict``."""
    hook = arguments.value("object_pairs_hook")
    others = set(arguments.named) - _KEEPING - {"object_pairs_hook"}
    return not others and isinstance(hook, Native) and hook.name in ("dict", "OrderedDict")


def _hooked(machine: Any, hook: Any, value: Any, node: ast.AST) -> Any:
    """Apply ``object_hook`` to each object of a JSON text, inner ones first."""
    if isinstance(value, list):
        return [_hooked(machine, hook, one, node) for one in value]
    if not isinstance(value, dict):
        return value
    inner = {key: _hooked(machine, hook, one, node) for key, one in value.items()}
    return machine.call(hook, Arguments.of(inner), node)


_TOML = _loader(tomllib.loads, letters=2)


def _toml_file(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Read TOML by ``toml.load``, from an open file or from a path."""
    given = hard(arguments.value("f", 0))
    if isinstance(given, (str, PurePosixPath)):
        given = machine.attempt(node, lambda: text_of(machine, str(given)))
    return _TOML.call(machine, Arguments.of(given), node)


def _table(reader: Callable[..., Any], *positional: str) -> Callable[..., Any]:
    """Return a reader of CSV; ``positional`` are the names of its arguments after the first."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        given = hard(arguments.value("f", 0))
        lines = list(given) if isinstance(given, io.StringIO) else given
        options = {name: each.value for name, each in arguments.named.items() if name != "f"}
        options |= {name: each.value for name, each in zip(positional, arguments.positional[1:], strict=False)}
        (lines,), options, soft, all_known = machine.settle([lines], options)
        too_many = len(arguments.positional) > 1 + len(positional)
        if not isinstance(lines, list) or not all_known or too_many or arguments.open:
            raise NotKnown
        rows = machine.attempt(node, lambda lines: list(reader(lines, **options)), lines)
        return machine.soft(machine.once(lambda: rows, node), *soft) if isinstance(rows, list) else rows

    return call


def _literal(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    text = arguments.expect(str, "node_or_string", 0)
    if len(text) > 20_000:
        raise NotKnown
    machine.step(len(text) // 4)
    return plain(ast.literal_eval).call(machine, arguments, node)


def _dumped(value: Any, **options: Any) -> str:
    indents = (None, 0, 1, 2, 3, 4, 8)
    if not set(options) <= {"sort_keys", "ensure_ascii", "indent"} or options.get("indent") not in indents:
        raise NotKnown
    return json.dumps(value, **options)


NAMES = natives({
    **dict.fromkeys(("tomllib.load", "tomllib.loads", "tomli.load", "tomli.loads", "toml.loads"), _TOML),
    "toml.load": _toml_file,
    "ast.literal_eval": _literal,
    **dict.fromkeys(("json.load", "json.loads"), _loader(parse_json, letters=20)),
    "json.dumps": plain(_dumped),
    **dict.fromkeys(("yaml.load", "yaml.safe_load", "yaml.full_load"), _loader(parse_yaml, letters=3)),
    **dict.fromkeys(("yaml.load_all", "yaml.safe_load_all"), _loader(parse_yaml, True, letters=3)),
    "csv.reader": _table(csv.reader),
    "csv.DictReader": _table(csv.DictReader, "fieldnames"),
    "configparser.ConfigParser": _maker(configparser.ConfigParser),
    "configparser.RawConfigParser": _maker(configparser.RawConfigParser),
})  # fmt: skip
