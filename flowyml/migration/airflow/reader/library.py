"""The builtins and the parts of the standard library that DAG files use when they are parsed, as natives.

What looks at the world (the clock, randomness, the network, processes) is not here: its results are not known.
"""

from __future__ import annotations

import ast
import base64
import builtins
import calendar
import collections
import configparser
import copy
import csv
import datetime
import hashlib
import io
import itertools
import json
import math
import os.path
import re
import string
import textwrap
import zoneinfo
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader.files import Refused, parse_json, parse_yaml
from flowyml.migration.airflow.reader.machine import settle
from flowyml.migration.airflow.reader.nodes import light
from flowyml.migration.airflow.reader.operations import LARGEST, TooLarge, checked, pieces
from flowyml.migration.airflow.reader.values import (
    Arguments,
    Class,
    Foreign,
    Function,
    Given,
    Instance,
    Module,
    Native,
    Unknown,
    hard,
    shape,
)

__all__ = ["BUILTINS", "LIBRARY", "Opened", "PartialCall", "format_text", "path_attribute", "sort_in_place"]


class Opened(Instance):
    """A file that was opened for reading."""

    def __init__(self, text: str) -> None:
        super().__init__(None, {"__items__": text.splitlines(keepends=True)})
        self.text = text


class PartialCall(Instance):
    """``functools.partial``."""

    def __init__(self, function: Any, arguments: Arguments) -> None:
        super().__init__(None)
        self.function = function
        self.arguments = arguments


def plain(function: Callable[..., Any], *, lists: bool = False) -> Native:
    """A native of plain data: an unknown argument makes an unknown result. ``lists``: its result becomes a list."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        args = [given.value for given in arguments.positional]
        kwargs = {name: given.value for name, given in arguments.named.items()}
        args, kwargs, soft, known = settle(args, kwargs)
        if not known or arguments.open:
            return machine.unknown(node)
        found = machine.attempt(node, lambda: checked(_listed(function(*args, **kwargs), lists)))
        return machine.soft(found, *soft)

    return Native(getattr(function, "__name__", "native"), call)


def _listed(value: Any, lists: bool) -> Any:
    return list(itertools.islice(value, LARGEST + 1)) if lists else value


def known(function: Callable[[Any, Arguments, ast.AST], Any]) -> Native:
    """A native that looks at its arguments itself."""
    return Native(function.__name__.strip("_"), function)


# Builtins


def _len(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = arguments.value("obj", 0)
    if isinstance(hard(value), (list, tuple, dict, set, str, bytes, range)):
        return machine.soft(len(hard(value)), value)
    method = hard(value).cls.find("__len__") if isinstance(hard(value), Instance) and hard(value).cls else None
    if isinstance(method, Function):
        return machine.call(machine.bound(method, hard(value), node), Arguments(), node)
    items = machine.iterate(value, node)
    return machine.unknown(node) if items is None else len(items)


def _container(kind: Callable[..., Any]) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        if not arguments.positional and not arguments.named:
            return kind()
        items = machine.iterate(arguments.value("iterable", 0), node)
        if items is None or (kind in (set, frozenset) and not light(items)):
            return machine.unknown(node)
        return machine.attempt(node, kind, items)

    return Native(getattr(kind, "__name__", "container"), call)


def _dict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    found: dict[Any, Any] = {}
    if arguments.positional:
        first = hard(arguments.positional[0].value)
        items = first if isinstance(first, dict) else machine.iterate(first, node)
        if items is None:
            return machine.unknown(node)
        if not light([list(one)[:1] for one in items if isinstance(one, (list, tuple))]):
            return machine.unknown(node)
        made = machine.attempt(node, dict, items)
        if not isinstance(made, dict):
            return made
        found = made
    found.update({name: given.value for name, given in arguments.named.items()})
    return found


def _zip(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    lists = [machine.iterate(given.value, node) for given in arguments.positional]
    if any(one is None for one in lists):
        return machine.unknown(node)
    return list(zip(*lists, strict=False))


def _enumerate(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    start = hard(arguments.value("start", 1, 0))
    return machine.unknown(node) if items is None or not isinstance(start, int) else list(enumerate(items, start))


def _map(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function, *rest = [given.value for given in arguments.positional]
    lists = [machine.iterate(one, node) for one in rest]
    if any(one is None for one in lists):
        return machine.unknown(node)
    rows = zip(*lists, strict=False)
    return [machine.call(function, Arguments([Given(one) for one in row]), node) for row in rows]


def _filter(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function, items = arguments.value("function", 0), machine.iterate(arguments.value("iterable", 1), node)
    if items is None:
        return machine.unknown(node)
    kept: list[Any] = []
    for one in items:
        answer = one if function is None else machine.call(function, Arguments([Given(one)]), node)
        if machine.truth(answer) is not False:
            kept.append(one)
    return kept


def _ordered(machine: Any, items: list[Any], arguments: Arguments, node: ast.AST) -> Any:
    key = arguments.value("key")
    keys = items if key is None else [machine.call(key, Arguments([Given(one)]), node) for one in items]
    plain_keys, _, _, all_known = settle(keys)
    if not all_known:
        return machine.unknown(node)
    rows = sorted(zip(plain_keys, range(len(items)), strict=True), reverse=bool(hard(arguments.value("reverse"))))
    return [items[index] for _, index in rows]


def _sorted(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    if items is None:
        return machine.unknown(node)
    return machine.attempt(node, _ordered, machine, items, arguments, node)


def sort_in_place(machine: Any, value: list[Any], arguments: Arguments, node: ast.AST) -> None:
    """``value.sort(key=…, reverse=…)``."""
    found = machine.attempt(node, _ordered, machine, list(value), arguments, node)
    if isinstance(found, list):
        value[:] = found


def _extreme(largest: bool) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        many = len(arguments.positional) > 1
        first = [given.value for given in arguments.positional] if many else arguments.value("iterable", 0)
        items = machine.iterate(first, node)
        if not items:
            return machine.unknown(node) if items is None else arguments.value("default", None, machine.unknown(node))
        key = Arguments([], {"key": given} if (given := arguments.get("key")) else {})
        found = machine.attempt(node, _ordered, machine, items, key, node)
        return found[-1 if largest else 0] if isinstance(found, list) else found

    return Native("max" if largest else "min", call)


def _sum(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    if items is None:
        return machine.unknown(node)
    total = arguments.value("start", 1, 0)
    for one in items:
        total = machine.operate(ast.Add, total, one, node)
    return total


def _quantifier(stop: bool) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        items = machine.iterate(arguments.value("iterable", 0), node)
        if items is None:
            return machine.unknown(node)
        answers = [machine.truth(one) for one in items]
        if stop in answers:
            return stop
        return machine.unknown(node) if None in answers else not stop

    return Native("any" if stop else "all", call)


def _text(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return machine.text_of(node, arguments.value("object", 0, ""))


def _isinstance(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value, kinds = hard(arguments.value("obj", 0)), hard(arguments.value("cls", 1))
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    answers = [_is_kind(value, kind) for kind in kinds]
    return True if True in answers else machine.unknown(node) if None in answers else False


_KINDS: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
    "tuple": tuple,
    "set": set,
    "bytes": bytes,
    "datetime": datetime.datetime,
    "date": datetime.date,
    "timedelta": datetime.timedelta,
    "Mapping": dict,
    "Sequence": (list, tuple, str),
    "Iterable": (list, tuple, str, dict, set),
    "List": list,
    "Dict": dict,
}


def _is_kind(value: Any, kind: Any) -> bool | None:
    if isinstance(value, (Unknown, Foreign)):
        return None
    if isinstance(kind, Class):
        return isinstance(value, Instance) and value.cls is not None and kind in value.cls.mro()
    name = kind.name if isinstance(kind, (Native, Foreign)) else ""
    if name in _KINDS:
        return isinstance(value, _KINDS[name])
    if isinstance(value, Instance):
        return type(value).__name__ == {"DAG": "Dag", "TaskGroup": "Group", "BaseOperator": "Task"}.get(name, name)
    return False if isinstance(value, (str, int, float, list, dict, tuple, set, type(None))) else None


def _getattr(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    owner, name = arguments.value("o", 0), hard(arguments.value("name", 1))
    if not isinstance(name, str):
        return machine.unknown(node)
    if len(arguments.positional) < 3:
        return machine.attribute(owner, name, node)
    if _has(owner, name) is False:
        return arguments.positional[2].value
    return machine.attribute(owner, name, node)


def _has(owner: Any, name: str) -> bool | None:
    owner = hard(owner)
    if isinstance(owner, Module):
        return name in owner.scope.names
    if isinstance(owner, Class):
        return owner.find(name) is not None or (None if owner.foreign() else False)
    if type(owner) is Instance and owner.cls is not None:
        return name in owner.attributes or _has(owner.cls, name)
    return None


def _hasattr(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    found = _has(arguments.value("o", 0), str(hard(arguments.value("name", 1))))
    return machine.unknown(node) if found is None else found


def _setattr(machine: Any, arguments: Arguments, node: ast.AST) -> None:
    name = hard(arguments.value("name", 1))
    if isinstance(name, str):
        machine.assign_attribute(arguments.value("o", 0), name, arguments.value("value", 2), node)


def _globals(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return machine.module.scope.names


def _locals(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return machine.scope.names


def _super(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return machine.make_super(node)


def _type(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("object", 0))
    if isinstance(value, Instance) and value.cls is not None:
        return value.cls
    if len(arguments.positional) == 3:
        return _made_class(machine, arguments, node)
    if len(arguments.positional) == 1 and type(value).__name__ in BUILTINS:
        return BUILTINS[type(value).__name__]
    return machine.unknown(node)


def _made_class(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``type(name, bases, names)``."""
    name, bases, names = (hard(given.value) for given in arguments.positional)
    if not isinstance(name, str) or not isinstance(bases, tuple) or not isinstance(names, dict):
        return machine.unknown(node)
    empty = ast.ClassDef(name=name, bases=[], keywords=[], body=[], decorator_list=[])
    return Class(
        name, empty, machine.module, tuple(one for one in bases if isinstance(one, (Class, Foreign))), dict(names)
    )


def _next(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("iterator", 0))
    if isinstance(value, list) and value:
        return value.pop(0) if machine.truth(value) else None
    if isinstance(value, list) and len(arguments.positional) > 1:
        return arguments.positional[1].value
    return machine.unknown(node)


def _iterator(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    return machine.unknown(node) if items is None else items


def _reversed(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("sequence", 0), node)
    return machine.unknown(node) if items is None else items[::-1]


def _evaluated(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``eval(text)``: the text is read as the rest of the file is."""
    text = hard(arguments.value("expression", 0))
    if not isinstance(text, str) or len(text) > 10_000:
        return machine.unknown(node)
    tree = machine.attempt(node, ast.parse, text.strip(), "<eval>", "eval")
    return machine.elsewhere(text, lambda: machine.eval(tree.body)) if isinstance(tree, ast.Expression) else tree


def _executed(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``exec(text)``, in the same way."""
    text = hard(arguments.value("source", 0))
    if (
        not isinstance(text, str)
        or len(text) > 50_000
        or (len(arguments.positional) > 1 and not _is_here(machine, arguments))
    ):
        return machine.unknown(node)
    tree = machine.attempt(node, ast.parse, text, "<exec>")
    if isinstance(tree, ast.Module):
        machine.elsewhere(text, lambda: machine.block(tree.body))
    return None


def _is_here(machine: Any, arguments: Arguments) -> bool:
    return hard(arguments.positional[1].value) is machine.module.scope.names


def _callable(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("object", 0))
    if isinstance(value, (Function, Class, Native)):
        return True
    return False if isinstance(value, (str, int, float, list, dict, tuple, type(None))) else machine.unknown(node)


def _nothing(machine: Any, arguments: Arguments, node: ast.AST) -> None:
    return None


def _open(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name, mode = hard(arguments.value("file", 0)), hard(arguments.value("mode", 1, "r"))
    if not isinstance(name, (str, PurePosixPath)) or not isinstance(mode, str) or set(mode) & set("wax+"):
        return machine.unknown(node)
    return machine.attempt(node, lambda: Opened(_read(machine, str(name))))


def _read(machine: Any, name: str) -> str:
    path = machine.files.resolve(name)
    if path is None:
        raise Refused(f"{name[:200]!r} is not a file of the root")
    return str(machine.files.text(path))


def _kind(kind: type) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        return machine.call(plain(kind), arguments, node)

    return Native(kind.__name__, call)


def _bytes(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("source", 0, b""))
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else machine.unknown(node)


def _int(value: Any = 0, base: int | None = None) -> int:
    if isinstance(value, str) and len(value) > 1000:
        raise TooLarge
    return int(value) if base is None else int(value, base)


def _literal(text: Any) -> Any:
    if not isinstance(text, str) or len(text) > 20_000:
        raise TooLarge
    return ast.literal_eval(text)


def _rounded(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 50:
        raise TooLarge
    return round(value, digits)


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


def _range(*args: int) -> range:
    return range(*args)


BUILTINS: dict[str, Any] = {
    "len": known(_len),
    "list": _container(list),
    "tuple": _container(tuple),
    "set": _container(set),
    "frozenset": _container(frozenset),
    "dict": known(_dict),
    "zip": known(_zip),
    "enumerate": known(_enumerate),
    "map": known(_map),
    "filter": known(_filter),
    "sorted": known(_sorted),
    "reversed": known(_reversed),
    "max": _extreme(True),
    "min": _extreme(False),
    "sum": known(_sum),
    "any": _quantifier(True),
    "all": _quantifier(False),
    "str": Native("str", _text),
    "repr": plain(repr),
    "int": Native("int", lambda machine, arguments, node: plain(_int).call(machine, arguments, node)),
    "float": _kind(float),
    "bool": Native(
        "bool",
        lambda machine, arguments, node: (
            machine.unknown(node)
            if (found := machine.truth(arguments.value("object", 0, False))) is None
            else machine.soft(found, arguments.value("object", 0, False))
        ),
    ),
    "bytes": Native("bytes", _bytes),
    "range": plain(_range),
    "abs": plain(abs),
    "round": plain(_rounded),
    "divmod": plain(divmod),
    "ord": plain(ord),
    "chr": plain(chr),
    "hex": plain(hex),
    "isinstance": known(_isinstance),
    "getattr": known(_getattr),
    "hasattr": known(_hasattr),
    "setattr": known(_setattr),
    "globals": known(_globals),
    "locals": known(_locals),
    "vars": known(_locals),
    "super": known(_super),
    "type": known(_type),
    "next": known(_next),
    "iter": known(_iterator),
    "callable": known(_callable),
    "eval": known(_evaluated),
    "exec": known(_executed),
    "print": known(_nothing),
    "open": known(_open),
    "object": Foreign("builtins.object"),
    "staticmethod": Native("staticmethod", lambda machine, arguments, node: _marked(arguments, "static")),
    "classmethod": Native("classmethod", lambda machine, arguments, node: _marked(arguments, "class")),
    "property": Native("property", lambda machine, arguments, node: _marked(arguments, "property")),
    "NotImplemented": Foreign("builtins.NotImplemented"),
    "Ellipsis": ...,
    "__debug__": True,
}
for _name in dir(builtins):
    BUILTINS.setdefault(_name, Foreign(f"builtins.{_name}"))


def _marked(arguments: Arguments, kind: str) -> Any:
    function = arguments.value("function", 0)
    if isinstance(function, Function):
        function.kind = kind
    return function


# Text with fields


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
        return machine.soft(checked("".join(hard(one) for one in out)), *out)
    return machine.unknown(node, text="".join(shape(one) for one in out)[:500])


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


# Paths


def _path(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    args = [given.value for given in arguments.positional]
    args, _, soft, all_known = settle(args)
    if not all_known or not all(isinstance(one, (str, PurePosixPath)) for one in args):
        return machine.unknown(node)
    return machine.soft(machine.attempt(node, lambda: checked(PurePosixPath(*args))), *soft)


def _exists(test: Callable[[Path], bool]) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        name = hard(arguments.value("path", 0))
        return _there(machine, name, test, node)

    return Native("exists", call)


def _there(machine: Any, name: Any, test: Callable[[Path], bool], node: ast.AST) -> Any:
    if not isinstance(name, (str, PurePosixPath)):
        return machine.unknown(node)
    found = machine.files.resolve(str(name))
    if found is not None:
        return test(found)
    return False if machine.files.inside(str(name)) else machine.unknown(node)


def _listdir(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return _entries(machine, hard(arguments.value("path", 0, ".")), node, names=True)


def _entries(machine: Any, name: Any, node: ast.AST, *, names: bool) -> Any:
    if not isinstance(name, (str, PurePosixPath)):
        return machine.unknown(node)
    found = machine.files.resolve(str(name))
    if found is None:
        return machine.unknown(node)
    entries = machine.attempt(node, machine.files.entries, found)
    if not isinstance(entries, list):
        return entries
    return [one.name if names else PurePosixPath(str(one)) for one in entries]


def _walk_folders(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name = hard(arguments.value("top", 0))
    found = machine.files.resolve(str(name)) if isinstance(name, (str, PurePosixPath)) else None
    if found is None:
        return machine.unknown(node)
    rows: list[Any] = []
    todo = [found]
    while todo and len(rows) < 2000:
        here = todo.pop(0)
        entries = machine.attempt(node, machine.files.entries, here)
        if not isinstance(entries, list):
            return machine.unknown(node)
        folders = [one for one in entries if one.is_dir() and not one.is_symlink()]
        rows.append((str(here), [one.name for one in folders], [one.name for one in entries if one.is_file()]))
        todo = [*folders, *todo]
    return rows


def _glob(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    pattern = hard(arguments.value("pathname", 0))
    if not isinstance(pattern, str):
        return machine.unknown(node)
    base = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    found = _globbed(machine, base or ".", pattern[len(base) :].lstrip("/"), node)
    return [str(one) for one in found] if isinstance(found, list) else found


def _globbed(machine: Any, folder: str, pattern: Any, node: ast.AST) -> Any:
    base = machine.files.resolve(folder)
    if base is None or not isinstance(pattern, str):
        return machine.unknown(node)
    return machine.attempt(node, lambda: [PurePosixPath(str(one)) for one in machine.files.glob(base, pattern)])


def _absolute(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name = hard(arguments.value("path", 0))
    if not isinstance(name, (str, PurePosixPath)):
        return machine.unknown(node)
    return _resolved(machine, str(name), node)


def _resolved(machine: Any, name: str, node: ast.AST) -> Any:
    if PurePosixPath(name).is_absolute():
        return os.path.normpath(name)
    found = machine.files.resolve(name)
    return machine.unknown(node) if found is None else str(found)


def path_attribute(machine: Any, path: PurePosixPath, name: str, node: ast.AST) -> Any:
    """What `pathlib.Path` has beyond a pure path: reading, looking, listing. None for anything else."""
    text = str(path)
    answers: dict[str, Callable[[Arguments], Any]] = {
        "read_text": lambda _: machine.attempt(node, _read, machine, text),
        "open": lambda arguments: _open(machine, Arguments([Given(text), *arguments.positional]), node),
        "exists": lambda _: _there(machine, text, lambda _: True, node),
        "is_file": lambda _: _there(machine, text, Path.is_file, node),
        "is_dir": lambda _: _there(machine, text, Path.is_dir, node),
        "iterdir": lambda _: _entries(machine, path, node, names=False),
        "glob": lambda arguments: _globbed(machine, text, hard(arguments.value("pattern", 0)), node),
        "rglob": lambda arguments: _globbed(machine, text, f"**/{hard(arguments.value('pattern', 0))}", node),
        "resolve": lambda _: _as_path(_resolved(machine, text, node)),
        "absolute": lambda _: _as_path(_resolved(machine, text, node)),
        "expanduser": lambda _: path,
        "mkdir": lambda _: None,
    }
    answer = answers.get(name)
    return None if answer is None else Native(name, lambda _, arguments, __: answer(arguments))


def _as_path(value: Any) -> Any:
    return PurePosixPath(value) if isinstance(value, str) else value


# Data in files


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
    text = _text_in(machine, arguments.value("f", 0))
    if isinstance(text, list):
        text = "".join(hard(one) for one in text if isinstance(hard(one), str))
    return machine.attempt(node, lambda: list(csv.reader(io.StringIO(text)))) if isinstance(text, str) else None


def _dict_rows(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    text = _text_in(machine, arguments.value("f", 0))
    if not isinstance(text, str):
        return machine.unknown(node)
    return machine.attempt(node, lambda: [dict(row) for row in csv.DictReader(io.StringIO(text))])


def _read_opened(machine: Any, value: Opened, name: str) -> Any:
    found = {"read": value.text, "readlines": value.attributes["__items__"], "close": None}
    return Native(name, lambda _, __, ___: found.get(name))


# Dates


def _zone(name: Any = "UTC") -> datetime.tzinfo:
    if str(name).upper() == "UTC":
        return datetime.UTC
    return zoneinfo.ZoneInfo(name)


def _pendulum(*args: Any, tz: Any = datetime.UTC, **kwargs: Any) -> datetime.datetime:
    zone = _zone(tz) if isinstance(tz, str) else tz
    return datetime.datetime(*args, **kwargs).replace(tzinfo=zone)  # noqa: DTZ001  # its zone comes next


def _parsed(text: str, tz: Any = datetime.UTC, **_: Any) -> datetime.datetime:
    found = datetime.datetime.fromisoformat(text)
    zone = _zone(tz) if isinstance(tz, str) else tz
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)


def _duration(
    days: float = 0,
    seconds: float = 0,
    microseconds: float = 0,
    milliseconds: float = 0,
    minutes: float = 0,
    hours: float = 0,
    weeks: float = 0,
) -> datetime.timedelta:
    return datetime.timedelta(days, seconds, microseconds, milliseconds, minutes, hours, weeks)


def _strptime(text: str, pattern: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, pattern)  # noqa: DTZ007  # what the file writes has no zone either


def _clock(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return machine.unknown(node, origin="clock")


# Regular expressions, within bounds: no group is repeated, and texts are short, so that none can take long.


def _safe(pattern: Any, *texts: Any) -> None:
    if not isinstance(pattern, str) or len(pattern) > 200 or re.search(r"\)[*+{?]", pattern):
        raise TooLarge
    if len(re.findall(r"[*+{]", pattern)) > 4 or any(isinstance(text, str) and len(text) > 300 for text in texts):
        raise TooLarge


def _regex(name: str) -> Native:
    def call(pattern: Any, *args: Any, **kwargs: Any) -> Any:
        _safe(pattern, *args, *kwargs.values())
        if not all(isinstance(one, (str, int)) for one in args):
            raise TooLarge
        return getattr(re, name)(pattern, *args, **kwargs)

    return plain(call)


# The rest of the standard library


def _partial(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    first, *rest = arguments.positional
    return PartialCall(first.value, Arguments(rest, arguments.named))


def _reduce(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function, items = arguments.value("function", 0), machine.iterate(arguments.value("iterable", 1), node)
    if items is None:
        return machine.unknown(node)
    items = [*([arguments.positional[2].value] if len(arguments.positional) > 2 else []), *items]
    if not items:
        return machine.unknown(node)
    value = items[0]
    for one in items[1:]:
        value = machine.call(function, Arguments([Given(value), Given(one)]), node)
    return value


def _wraps(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    wrapped = arguments.value("wrapped", 0)

    def rename(_: Any, given: Arguments, __: ast.AST) -> Any:
        function = given.value("function", 0)
        if isinstance(function, Function) and isinstance(wrapped, Function):
            function.name = wrapped.name
        return function

    return Native("wraps", rename)


def _identity(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """A decorator, with or without arguments of its own, that leaves a function as it is."""
    if len(arguments.positional) == 1 and isinstance(arguments.positional[0].value, (Function, Class)):
        return arguments.positional[0].value
    return Native("decorator", lambda _, given, __: given.value("function", 0))


def _context_manager(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function = arguments.value("func", 0)
    if isinstance(function, Function):
        function.context_manager = True
    return function


def _dataclass(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if arguments.positional and isinstance(arguments.positional[0].value, Class):
        return machine.fields(arguments.positional[0].value)
    return Native(
        "dataclass",
        lambda _, given, __: (
            machine.fields(given.positional[0].value)
            if isinstance(given.positional[0].value, Class)
            else given.positional[0].value
        ),
    )


def _named_tuple(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name, spec = hard(arguments.value("typename", 0)), hard(arguments.value("field_names", 1))
    names = spec.replace(",", " ").split() if isinstance(spec, str) else spec
    if not isinstance(names, (list, tuple)) or not all(isinstance(hard(one), str) for one in names):
        return machine.unknown(node)
    empty = ast.ClassDef(name=str(name), bases=[], keywords=[], body=[], decorator_list=[])
    unknown = machine.unknown(node)
    return Class(str(name), empty, machine.module, (), {}, {hard(one): unknown for one in names})


def _defaultdict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    factory = arguments.positional[0].value if arguments.positional else None
    return _Defaults(lambda: machine.call(factory, Arguments(), node))


class _Defaults(dict[Any, Any]):
    """``defaultdict`` whose factory the evaluator calls."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Any) -> Any:
        self[key] = self._make()
        return self[key]

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)


def _copied(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return _deep(machine, arguments.value("x", 0), 0)


def _deep(machine: Any, value: Any, depth: int) -> Any:
    machine.step()
    if depth > 30:
        return value
    if type(value) in (list, tuple, set):
        return type(value)(_deep(machine, one, depth + 1) for one in value)
    if isinstance(value, dict):
        return {key: _deep(machine, one, depth + 1) for key, one in value.items()}
    if type(value) is Instance:
        return Instance(value.cls, {key: _deep(machine, one, depth + 1) for key, one in value.attributes.items()})
    return value


def _shallow(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    value = hard(arguments.value("x", 0))
    return copy.copy(value) if isinstance(value, (list, dict, set)) else _deep(machine, value, 29)


def _chained(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    lists = [machine.iterate(given.value, node) for given in arguments.positional]
    return machine.unknown(node) if None in lists else [one for each in lists for one in each]


def _chained_from(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    outer = machine.iterate(arguments.value("iterable", 0), node)
    if outer is None:
        return machine.unknown(node)
    return _chained(machine, Arguments([Given(one) for one in outer]), node)


def _combined(function: Callable[..., Any]) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        count = len(arguments.positional)
        args = [
            machine.iterate(given.value, node)
            if isinstance(hard(given.value), (list, tuple, str))
            else hard(given.value)
            for given in arguments.positional
        ]
        kwargs = {name: hard(given.value) for name, given in arguments.named.items()}
        repeat = kwargs.get("repeat", 1)
        if not isinstance(repeat, int) or repeat > 10:
            return machine.unknown(node)
        if any(isinstance(one, Unknown) or one is None for one in args) or not count:
            return machine.unknown(node)
        found = machine.attempt(node, lambda: list(itertools.islice(function(*args, **kwargs), 10_000)))
        machine.step(len(found) if isinstance(found, list) else 1)
        return found

    return Native("combined", call)


def _digest(name: str) -> Native:
    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        data = hard(arguments.value("string", 0, b""))
        if not isinstance(data, bytes):
            return machine.unknown(node)
        found = hashlib.new(name, data, usedforsecurity=False)
        methods = {"hexdigest": found.hexdigest(), "digest": found.digest()}
        return Instance(None, {key: Native(key, lambda *_, value=value: value) for key, value in methods.items()})

    return Native(name, call)


def _grouped(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``itertools.groupby``: pairs of a key and the list of its run."""
    items, key = machine.iterate(arguments.value("iterable", 0), node), arguments.value("key", 1)
    if items is None:
        return machine.unknown(node)
    keys = items if key is None else [machine.call(key, Arguments([Given(one)]), node) for one in items]
    rows: list[Any] = []
    for one, name in zip(items, keys, strict=True):
        if rows and machine.truth(machine.compare(ast.Eq, rows[-1][0], name, node)):
            rows[-1][1].append(one)
        else:
            rows.append((name, [one]))
    return rows


def _replaced(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``dataclasses.replace`` and ``_replace``: a copy with other values of some fields."""
    old = hard(arguments.value("obj", 0))
    if not isinstance(old, Instance) or old.cls is None or old.cls.fields is None:
        return machine.unknown(node)
    named = {name: Given(old.attributes.get(name)) for name in old.cls.fields} | arguments.named
    return machine.instantiate(old.cls, Arguments([], named), node)


def _as_dict(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return _unfolded(machine, arguments.value("obj", 0), node, 0)


def _unfolded(machine: Any, value: Any, node: ast.AST, depth: int) -> Any:
    value = hard(value)
    machine.step()
    if depth > 20:
        return value
    if isinstance(value, Instance) and value.cls is not None and value.cls.fields is not None:
        return {name: _unfolded(machine, value.attributes.get(name), node, depth + 1) for name in value.cls.fields}
    if isinstance(value, (list, tuple)):
        return [_unfolded(machine, one, node, depth + 1) for one in value]
    if isinstance(value, dict):
        return {key: _unfolded(machine, one, node, depth + 1) for key, one in value.items()}
    return value


def instance_method(machine: Any, value: Instance, name: str) -> Any:
    """What instances of named tuples, dataclasses and pydantic models have beside their fields."""
    if value.cls is None or value.cls.fields is None:
        return None
    if name in ("_asdict", "dict", "model_dump"):
        return Native(name, lambda _, __, node: _unfolded(machine, value, node, 0))
    if name in ("_replace", "copy", "model_copy"):
        return Native(name, lambda _, given, node: _replaced(machine, Arguments([Given(value)], given.named), node))
    return None


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


def _parser(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``configparser.ConfigParser``: sections of files of the root, without interpolation of others."""
    parser = configparser.ConfigParser(interpolation=None)

    def read(_: Any, given: Arguments, where: ast.AST) -> Any:
        name = hard(given.value("filenames", 0))
        for one in name if isinstance(name, (list, tuple)) else [name]:
            if isinstance(one, (str, PurePosixPath)):
                text = machine.attempt(where, _read, machine, str(one))
                if isinstance(text, str):
                    machine.attempt(where, parser.read_string, text)
        made.attributes["__sections__"] = {name: dict(parser[name]) for name in parser.sections()}

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


def native_attribute(machine: Any, value: Native, name: str) -> Any:
    """``str.lower``, ``dict.fromkeys``: a method of a builtin class, taken from the class."""
    path = _PATHS.get(id(value))
    if path is not None and f"{path}.{name}" in LIBRARY:
        return LIBRARY[f"{path}.{name}"]
    if value.name == "dict" and name == "fromkeys":
        return Native(name, _from_keys)
    if value.name in ("str", "list", "dict", "set", "tuple"):

        def call(_: Any, given: Arguments, node: ast.AST) -> Any:
            if not given.positional:
                return machine.unknown(node)
            first, *rest = given.positional
            return machine.call(machine.attribute(first.value, name, node), Arguments(rest, given.named), node)

        return Native(name, call)
    return None


def _from_keys(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.iterate(arguments.value("iterable", 0), node)
    if items is None or not light(items):
        return machine.unknown(node)
    return machine.attempt(node, dict.fromkeys, [hard(one) for one in items], arguments.value("value", 1))


def _import_module(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name = hard(arguments.value("name", 0))
    return machine.imported(name, node) if isinstance(name, str) else machine.unknown(node)


def _namespace(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    return Instance(None, {name: given.value for name, given in arguments.named.items()})


LIBRARY: dict[str, Any] = {
    "typing.TYPE_CHECKING": False,
    "typing_extensions.TYPE_CHECKING": False,
    "sys.version_info": (3, 11, 0),
    "sys.platform": "linux",
    "sys.maxsize": 2**63 - 1,
    "os.sep": "/",
    "os.path.sep": "/",
    "os.linesep": "\n",
    "math.inf": math.inf,
    "math.pi": math.pi,
    "string.ascii_lowercase": "abcdefghijklmnopqrstuvwxyz",
    "string.ascii_uppercase": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "string.digits": "0123456789",
    "string.punctuation": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "calendar.day_abbr": list(calendar.day_abbr),
    "calendar.month_abbr": list(calendar.month_abbr),
    "string.Template": known(_template),
    "configparser.ConfigParser": known(_parser),
    "configparser.RawConfigParser": known(_parser),
    "dataclasses.replace": known(_replaced),
    "dataclasses.asdict": known(_as_dict),
    "itertools.groupby": known(_grouped),
    "calendar.day_name": list(calendar.day_name),
    "calendar.month_name": list(calendar.month_name),
    "datetime.datetime": Foreign("datetime.datetime"),
    "datetime.datetime.min": datetime.datetime.min,  # noqa: DTZ901 as in the file
    "datetime.datetime.max": datetime.datetime.max,  # noqa: DTZ901 as in the file
    "datetime.datetime.strptime": plain(_strptime),
    "datetime.datetime.fromisoformat": plain(datetime.datetime.fromisoformat),
    "datetime.datetime.combine": plain(datetime.datetime.combine),
    "datetime.time.min": datetime.time.min,
    "datetime.time.max": datetime.time.max,
    "datetime.date.fromisoformat": plain(datetime.date.fromisoformat),
    "datetime.timezone.utc": datetime.UTC,
    "datetime.UTC": datetime.UTC,
    "datetime.timezone": plain(datetime.timezone),
    "pendulum.datetime": plain(_pendulum),
    "pendulum.DateTime": plain(_pendulum),
    "pendulum.timezone": plain(_zone),
    "pendulum.Timezone": plain(_zone),
    "pendulum.tz.timezone": plain(_zone),
    "pendulum.parse": plain(_parsed),
    "pendulum.duration": plain(_duration),
    "pendulum.UTC": datetime.UTC,
    "pytz.timezone": plain(_zone),
    "pytz.utc": datetime.UTC,
    "pytz.UTC": datetime.UTC,
    "zoneinfo.ZoneInfo": plain(_zone),
    "dateutil.tz.gettz": plain(_zone),
    "dateutil.parser.parse": plain(_parsed),
    "os.path.join": plain(os.path.join),
    "os.path.dirname": plain(os.path.dirname),
    "os.path.basename": plain(os.path.basename),
    "os.path.splitext": plain(os.path.splitext),
    "os.path.split": plain(os.path.split),
    "os.path.normpath": plain(os.path.normpath),
    "os.path.isabs": plain(os.path.isabs),
    "os.path.relpath": plain(os.path.relpath),
    "os.path.commonpath": plain(os.path.commonpath),
    "os.fspath": plain(str),
    "os.path.abspath": known(_absolute),
    "os.path.realpath": known(_absolute),
    "os.path.exists": _exists(lambda _: True),
    "os.path.isfile": _exists(Path.is_file),
    "os.path.isdir": _exists(Path.is_dir),
    "os.listdir": known(_listdir),
    "os.walk": known(_walk_folders),
    "os.makedirs": known(_nothing),
    "glob.glob": known(_glob),
    "glob.iglob": known(_glob),
    "pathlib.Path": known(_path),
    "pathlib.PurePath": known(_path),
    "pathlib.PosixPath": known(_path),
    "pathlib.PurePosixPath": known(_path),
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
    "re.escape": plain(re.escape),
    "re.IGNORECASE": 2,
    "re.I": 2,
    "contextlib.contextmanager": known(_context_manager),
    "functools.partial": known(_partial),
    "functools.reduce": known(_reduce),
    "functools.wraps": known(_wraps),
    "functools.lru_cache": known(_identity),
    "functools.cache": known(_identity),
    "functools.cached_property": BUILTINS["property"],
    "abc.abstractmethod": known(_identity),
    "typing.overload": known(_identity),
    "typing.cast": Native("cast", lambda machine, arguments, node: arguments.value("val", 1)),
    "dataclasses.dataclass": known(_dataclass),
    "pydantic.dataclasses.dataclass": known(_dataclass),
    "attr.s": known(_dataclass),
    "attrs.define": known(_dataclass),
    "collections.namedtuple": known(_named_tuple),
    "collections.OrderedDict": BUILTINS["dict"],
    "collections.defaultdict": known(_defaultdict),
    "collections.deque": BUILTINS["list"],
    "collections.Counter": plain(lambda items=(): dict(collections.Counter(items))),
    "collections.ChainMap": plain(lambda *maps: dict(collections.ChainMap(*maps))),
    "copy.copy": known(_shallow),
    "copy.deepcopy": known(_copied),
    "itertools.chain": known(_chained),
    "itertools.chain.from_iterable": known(_chained_from),
    "itertools.product": _combined(itertools.product),
    "itertools.combinations": _combined(itertools.combinations),
    "itertools.permutations": _combined(itertools.permutations),
    "itertools.pairwise": _combined(itertools.pairwise),
    "itertools.islice": _combined(itertools.islice),
    "itertools.repeat": _combined(itertools.repeat),
    "itertools.zip_longest": _combined(itertools.zip_longest),
    "itertools.accumulate": _combined(itertools.accumulate),
    "hashlib.md5": _digest("md5"),
    "hashlib.sha1": _digest("sha1"),
    "hashlib.sha256": _digest("sha256"),
    "base64.b64encode": plain(base64.b64encode),
    "base64.b64decode": plain(base64.b64decode),
    "textwrap.dedent": plain(textwrap.dedent),
    "importlib.import_module": known(_import_module),
    "types.SimpleNamespace": known(_namespace),
    "enum.auto": known(_clock),
    "operator.itemgetter": Native(
        "itemgetter",
        lambda machine, arguments, node: Native(
            "item", lambda _, given, __: machine.item(given.value("obj", 0), arguments.value("item", 0), node)
        ),
    ),
    "operator.attrgetter": Native(
        "attrgetter",
        lambda machine, arguments, node: Native(
            "attr",
            lambda _, given, __: machine.attribute(given.value("obj", 0), str(hard(arguments.value("a", 0))), node),
        ),
    ),
    "math.ceil": plain(math.ceil),
    "math.floor": plain(math.floor),
}
LIBRARY.update({f"re.{name}": _regex(name) for name in ("sub", "match", "search", "fullmatch", "findall", "split")})
_PATHS = {id(value): path for path, value in LIBRARY.items() if isinstance(value, Native)}
CALLED: dict[str, Native] = {
    "datetime.datetime": plain(datetime.datetime),
    "datetime.date": plain(datetime.date),
    "datetime.time": plain(datetime.time),
    "datetime.timedelta": plain(datetime.timedelta),
}
LOUD = frozenset({"read", "readlines", "close"})


def opened_attribute(machine: Any, value: Opened, name: str) -> Any:
    """A method of an open file."""
    return _read_opened(machine, value, name) if name in LOUD else None
