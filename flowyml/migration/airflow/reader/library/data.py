"""Data as text: JSON, YAML, CSV, INI files, literals of Python."""

from __future__ import annotations

import ast
import configparser
import csv
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader.files import parse_json, parse_yaml
from flowyml.migration.airflow.reader.library.natives import natives, plain
from flowyml.migration.airflow.reader.library.paths import Opened
from flowyml.migration.airflow.reader.library.paths import read as text_of
from flowyml.migration.airflow.reader.operations import LARGEST, Section
from flowyml.migration.airflow.reader.values import Arguments, Instance, Native, NotKnown, hard


class Settings(Instance):
    """``configparser.ConfigParser`` or ``RawConfigParser``: sections of files of the root, and of texts."""

    def __init__(self, parser: configparser.RawConfigParser) -> None:
        super().__init__(None)
        self.parser = parser
        self.complete = True
        """True if everything that was read is known. If not, a missing option may be in the unknown part."""
        self.attributes = {
            "read": Native("read", self._read),
            "read_file": Native("read_file", self._read_text("f")),
            "read_string": Native("read_string", self._read_text("string")),
            "read_dict": Native("read_dict", self._read_dict),
            "sections": Native("sections", lambda *_: parser.sections()),
            "has_section": self._plain(parser.has_section),
            "has_option": self._plain(parser.has_option),
            "options": self._plain(parser.options),
            "defaults": self._plain(lambda: dict(parser.defaults())),
            "items": self._plain(self._items),
            "get": self._getter(str),
            "getint": self._getter(int),
            "getfloat": self._getter(float),
            "getboolean": self._getter(lambda text: text.lower() in ("1", "yes", "true", "on")),
            "__sections__": {},
        }

    def _read(self, machine: Any, arguments: Arguments, node: ast.AST) -> None:
        """Read files; a missing one is ignored, as in Python."""
        names = hard(arguments.value("filenames", 0))
        for name in map(hard, names if isinstance(names, (list, tuple)) else [names]):
            if not isinstance(name, (str, PurePosixPath)):
                self.complete = False
            elif isinstance(text := machine.attempt(node, text_of, machine, str(name)), str):
                self._take(machine, self.parser.read_string, text, node)

    def _read_text(self, name: str) -> Callable[[Any, Arguments, ast.AST], None]:
        """Read an open file or a text, the argument of this name."""

        def read(machine: Any, arguments: Arguments, node: ast.AST) -> None:
            self._take(machine, self.parser.read_string, text_in(machine, arguments.value(name, 0)), node)

        return read

    def _read_dict(self, machine: Any, arguments: Arguments, node: ast.AST) -> None:
        self._take(machine, self.parser.read_dict, arguments.value("dictionary", 0), node)

    def _take(self, machine: Any, parse: Callable[[Any], None], value: Any, node: ast.AST) -> None:
        (plain,), _, _, is_known = machine.settle([value])
        if not is_known:
            self.complete = False
            return
        if isinstance(plain, str):  # its pattern for a line takes quadratic time for blanks
            machine.step(sum(len(line) ** 2 for line in plain.splitlines()) // 2000 + len(plain) // 5)
        machine.attempt(node, parse, plain)
        found = machine.attempt(node, self._sections)
        if not isinstance(found, dict):
            found, self.complete = {}, False
            self.parser.clear()
        self.attributes |= {"__sections__": found, "__items__": [*found]}

    def _sections(self) -> dict[str, Section]:
        """Return all values, with interpolation. Raises ``NotKnown``."""
        if isinstance(self.parser, configparser.ConfigParser):
            for section in self.parser.values():
                _check_lengths({option: section.get(option, "", raw=True) for option in section})
        return {name: Section(section) for name, section in self.parser.items()}

    def _items(self, section: str | None = None) -> list[Any]:
        return list(self.parser.items(section) if section is not None else self.attributes["__sections__"].items())

    def _plain(self, function: Callable[..., Any]) -> Native:
        """Return a method of the parser whose arguments are texts."""

        def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
            given = [hard(one) for one in arguments.values()]
            if arguments.open or not self.complete or not all(isinstance(one, str) for one in given):
                raise NotKnown
            return machine.attempt(node, function, *given)

        return Native("settings", call)

    def _getter(self, convert: Callable[[str], Any]) -> Native:
        def get(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
            section, option = arguments.expect(str, "section", 0), arguments.expect(str, "option", 1)
            if arguments.open:
                raise NotKnown
            if self.parser.has_option(section, option):
                machine.step(len(self.parser.get(section, option, raw=True)))
                return machine.attempt(node, lambda: convert(self.parser.get(section, option)))
            missing = machine.unknown(node)
            return arguments.value("fallback", None, missing) if self.complete else missing

        return Native("get", get)


def _check_lengths(options: Mapping[str, str]) -> None:
    """Raise ``NotKnown`` if options that interpolate others (``%(name)s``) become too long."""
    lengths = {name: len(text) for name, text in options.items()}
    for _ in range(configparser.MAX_INTERPOLATION_DEPTH):
        lengths = {
            name: len(text) + sum(lengths.get(taken, 0) for taken in _taken(text)) for name, text in options.items()
        }
        if sum(lengths.values()) > LARGEST:
            raise NotKnown


def _taken(text: str) -> list[str]:
    """Return the options that ``BasicInterpolation`` would insert into a text, from left to right."""
    found = []
    at = text.find("%")
    while at >= 0:
        end = text.find(")", at)
        if text[at + 1 : at + 2] == "%":
            end = at
        elif text[at + 1 : at + 2] == "(" and text[end + 1 : end + 2] == "s" and end >= 0:
            found.append(text[at + 2 : end].lower())
        else:
            break
        at = text.find("%", end + 2)
    return found


def _maker(kind: type[configparser.RawConfigParser]) -> Callable[..., Any]:
    def make(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        options = {name: hard(given.value) for name, given in arguments.named.items()}
        is_read = set(options) <= {"allow_no_value", "interpolation"} and options.get("interpolation") is None
        if arguments.positional or arguments.open or not is_read:
            raise NotKnown
        return Settings(kind(**options))

    return make


def text_in(machine: Any, value: Any) -> Any:
    """Return the text of an open file; any other value unchanged."""
    value = hard(value)
    return value.text if isinstance(value, Opened) else value


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
    """``toml.load``, of an open file or of the path of one."""
    given = hard(arguments.value("f", 0))
    if isinstance(given, (str, PurePosixPath)):
        given = machine.attempt(node, lambda: text_of(machine, str(given)))
    return _TOML.call(machine, Arguments.of(given), node)


def _table(reader: Callable[..., Any], *positional: str) -> Callable[..., Any]:
    """Return a reader of CSV; ``positional`` are the names of its arguments after the first."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        given = hard(arguments.value("f", 0))
        lines = given.attributes["__items__"] if isinstance(given, Opened) else given
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
