"""Values of a model as source: literals, and calls of FlowyML's own words. No text of a DAG file is inserted."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from flowyml.migration.airflow.model import AssetRef, FunctionModel, Reference, Symbolic, ValueEdge
from flowyml.plan.layout import Group, Pair, Part, Text, source, text_literal
from flowyml.plan.names import identifier
from flowyml.plan.parameters import is_json

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def variable_of(name: str) -> str:
    """Return an ASCII variable name that resembles a name."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return plain if plain.isidentifier() and not keyword.iskeyword(plain) else identifier(name)


class Unwritable(Exception):
    """A value that cannot be written, with the reason."""


class Words:
    """Writes values for one module. ``function`` returns the name of a function there, ``word`` that of a word."""

    def __init__(self, function: Callable[[FunctionModel], str], word: Callable[[str], str]) -> None:
        self._function = function
        self._word = word

    def part(self, value: Any) -> Part:
        """Return a value as an argument of an operator. Raises ``Unwritable``."""
        match value:
            case str():
                return Text(value)
            case None | bool() | int():
                return repr(value)
            case float() if value == value and abs(value) != float("inf"):
                return repr(value)
            case list():
                return Group("[", [self.part(each) for each in value], "]")
            case tuple():
                opening, closing = ("tuple([", "])") if len(value) == 1 else ("(", ")")
                return Group(opening, [self.part(each) for each in value], closing)
            case set() | frozenset():
                each = [self.part(item) for item in sorted(value, key=repr)]
                return Group("{", each, "}") if each else "set()"
            case Mapping():
                pairs = [Pair(f"{self.key(key)}: ", self.part(item)) for key, item in value.items()]
                return Group("{", pairs, "}")
        return self._special(value)

    def _special(self, value: Any) -> Part:
        match value:
            case timedelta():
                return f"{self._word('timedelta')}(seconds={as_number(value.total_seconds())})"
            case datetime():
                return self.moment(value)
            case date():
                raise Unwritable(f"the date {value} cannot be written as JSON")
            case FunctionModel(module="" | "__main__"):
                return self._function(value)
            case FunctionModel():
                return self._function_of_another_module(value)
            case ValueEdge():
                return self.xcom(value)
            case Reference():
                return self.reference(value)
            case Symbolic():
                return self.symbolic(value)
            case AssetRef():
                return self.asset(value)
        raise Unwritable(f"a {type(value).__name__}")

    def moment(self, value: datetime) -> Part:
        """Return a moment: in UTC, without a zone, or at another offset."""
        is_utc = value.utcoffset() == timedelta()
        if value.tzinfo and not is_utc:
            return f"{self._word('datetime')}.fromisoformat({text_literal(value.isoformat())})"
        parts = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond]
        while len(parts) > 3 and not parts[-1]:
            parts.pop()
        zone = [f"tzinfo={self._word('UTC')}"] if is_utc else []
        return Group(f"{self._word('datetime')}(", [*map(str, parts), *zone], ")")

    def _function_of_another_module(self, value: FunctionModel) -> Part:
        if value.nested:
            raise Unwritable(f"the function {value.name}, which another one of {value.module} makes,")
        return self.reference(Reference(value.import_path, value.name, value.place))

    def xcom(self, edge: ValueEdge) -> Part:
        """Return the XCom of another task."""
        if edge.path:
            raise Unwritable(f"the value of {edge.task_id} goes through {edge.path[0][0]}(…)")
        key = [] if edge.key == "return_value" else [text_literal(edge.key)]
        return Group(f"{self._word('xcom')}(", [text_literal(edge.task_id), *key], ")")

    def reference(self, value: Reference) -> Part:
        """Return an object of another library, which Airflow imports."""
        path = path_of(value.import_path)
        if path is None:
            raise Unwritable(f"{value.import_path or value.source!r:.80} is not an import path")
        made = f"{self._word('imported')}({text_literal(path)})"
        if not value.call:
            return made
        positional = [self.part(each.value) for each in value.arguments if each.name.isdigit()]
        named = [
            Pair(f"{self.keyword(each.name)}=", self.part(each.value))
            for each in value.arguments
            if not each.name.isdigit()
        ]
        return Group(f"{made}(", [*positional, *named], ")")

    def asset(self, value: AssetRef) -> Part:
        """Return an asset, or an alias of assets."""
        if value.kind not in ("asset", "alias"):
            raise Unwritable(f"asset {value}")
        arguments = [f"{name}={text_literal(each)}" for name in ("name", "uri") if (each := getattr(value, name))]
        if len(arguments) == 1:  # Airflow 3 takes one for both; Airflow 2 has the second alone
            arguments = [text_literal(value.name or value.uri)]
        name = "Asset" if value.kind == "asset" else "AssetAlias"
        return Group(f'{self._word("imported")}("airflow.sdk.{name}")(', arguments, ")")

    def symbolic(self, value: Symbolic) -> Part:
        """Return a value that only Airflow knows when it reads the file: Airflow evaluates it there again."""
        if value.parts:
            text = "".join(_braced(each) if isinstance(each, str) else "{}" for each in value.parts)
            arguments = [self.part(each) for each in value.parts if not isinstance(each, str)]
            return Group(f'{self._word("imported")}("builtins:str.format")(', [Text(text), *arguments], ")")
        if value.derived:
            raise Unwritable(f"only Airflow knows what comes of {' '.join(value.source.split())!r:.80}")
        kind, _, name = value.origin.partition(":")
        default = [self.part(value.default)] if value.has_default else []
        if kind in ("variable", "variable-json") and name:
            named = [Pair("default_var=", each) for each in default]
            named += [Pair("deserialize_json=", "True")] if kind == "variable-json" else []
            return Group(f'{self._word("imported")}("airflow.models:Variable.get")(', [text_literal(name), *named], ")")
        if kind == "env" and name:
            method = "get" if value.has_default else "__getitem__"
            return Group(f'{self._word("imported")}("os:environ.{method}")(', [text_literal(name), *default], ")")
        if kind == "param":
            raise Unwritable(f"it takes the argument {name!r:.80} of the DAG's function, which a step can take")
        raise Unwritable(f"only Airflow knows {' '.join(value.source.split())!r:.80}")

    def key(self, key: Any) -> str:
        """Return a key of a dict."""
        return text_literal(key) if isinstance(key, str) else source(self.part(key))

    def keyword(self, name: str) -> str:
        """Return the name of an argument, if it is valid."""
        if not _IDENTIFIER.fullmatch(name) or keyword.iskeyword(name) or name == "__debug__":
            raise Unwritable(f"{name!r:.60} cannot be the name of an argument")
        return name


def _braced(text: str) -> str:
    """Return a text escaped for ``str.format``."""
    return text.replace("{", "{{").replace("}", "}}")


def in_f_string(text: str) -> str:
    """Return a text as a part of an f-string in double quotes."""
    escaped = repr(f'"{text}')[2:-1].replace("\\'", "'").replace('"', '\\"')
    return _braced(escaped)


def is_plain(value: Any) -> bool:
    """Return whether a value is plain JSON, like arguments of steps."""
    return is_json(value)


def path_of(path: str) -> str | None:
    """Return an import path with a colon at the end of the module, if that is not before its last name.

    >>> path_of("airflow.utils.trigger_rule.TriggerRule.ALL_DONE"), path_of("our.hooks.Hook"), path_of("x; y")
    ('airflow.utils.trigger_rule:TriggerRule.ALL_DONE', 'our.hooks.Hook', None)
    >>> path_of("our.tasks:load.function")
    'our.tasks:load.function'
    """
    parts = re.split("[.:]", path)
    if not _PATH.fullmatch(path) or any(map(keyword.iskeyword, parts)) or "__debug__" in parts:
        return None
    for number, part in enumerate(() if ":" in path else parts[1:-1], 1):
        if part[:1].isupper():
            return f"{'.'.join(parts[:number])}:{'.'.join(parts[number:])}"
    return path


def as_number(seconds: float) -> str:
    """Return a number in its usual form: ``60`` and not ``60.0``."""
    return str(int(seconds)) if seconds == int(seconds) else repr(float(seconds))
