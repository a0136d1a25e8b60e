"""Paths, folders and open files of the root."""

from __future__ import annotations

import ast
import os.path
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader.files import Refused, fits
from flowyml.migration.airflow.reader.library.natives import known, nothing, plain
from flowyml.migration.airflow.reader.operations import checked
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Native, hard

__all__ = ["NAMES", "Opened", "open_file", "opened_attribute", "path_attribute", "read"]


class Opened(Instance):
    """A file that was opened for reading."""

    def __init__(self, text: str) -> None:
        super().__init__(None, {"__items__": text.splitlines(keepends=True)})
        self.text = text


def open_file(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name, mode = hard(arguments.value("file", 0)), hard(arguments.value("mode", 1, "r"))
    if not isinstance(name, (str, PurePosixPath)) or not isinstance(mode, str) or set(mode) & set("wax+"):
        return machine.unknown(node)
    return machine.attempt(node, lambda: _opened(machine, read(machine, str(name))))


def _text_file(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``io.StringIO(text)``."""
    text = hard(arguments.value("initial_value", 0, ""))
    return _opened(machine, text) if isinstance(text, str) else machine.unknown(node)


def _opened(machine: Any, text: str) -> Opened:
    machine.step(len(text) // 20)
    return Opened(text)


def read(machine: Any, name: str) -> str:
    path = machine.files.resolve(name)
    if path is None:
        raise Refused(f"{name[:200]!r} is not a file of the root")
    return str(machine.files.text(path))


def _read_opened(machine: Any, value: Opened, name: str) -> Any:
    found = {"read": value.text, "readlines": value.attributes["__items__"], "close": None}
    return Native(name, lambda _, __, ___: found.get(name))


LOUD = frozenset({"read", "readlines", "close"})


def opened_attribute(machine: Any, value: Opened, name: str) -> Any:
    """Return a method of an open file."""
    return _read_opened(machine, value, name) if name in LOUD else None


def _path(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    args = [given.value for given in arguments.positional]
    args, _, soft, all_known = machine.settle(args)
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


def _scandir(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return the entries of a folder as paths, with the methods of entries."""
    return _entries(machine, hard(arguments.value("path", 0, ".")), node, names=False)


def _modules(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """``pkgutil.iter_modules``: the modules in folders."""
    folders, prefix = hard(arguments.value("path", 0)), hard(arguments.value("prefix", 1, ""))
    if not isinstance(folders, list) or not isinstance(prefix, str):
        return machine.unknown(node)
    rows: list[Any] = []
    for folder in folders:
        found = machine.files.resolve(str(hard(folder))) if isinstance(hard(folder), (str, PurePosixPath)) else None
        entries = machine.attempt(node, machine.files.entries, found) if found is not None else None
        if not isinstance(entries, list):
            return machine.unknown(node)
        rows += [_module_row(prefix + one.stem, one.is_dir()) for one in entries if _can_be_imported(one)]
    return rows


def _can_be_imported(path: Path) -> bool:
    module = path.suffix == ".py" and path.stem != "__init__"
    return path.stem.isidentifier() and (module or (path / "__init__.py").is_file())


def _module_row(name: str, package: bool) -> Instance:
    row = {"module_finder": None, "name": name, "ispkg": package}
    return Instance(None, {**row, "__items__": list(row.values())})


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
    """Return the methods of `pathlib.Path` beyond a pure path: reading, inspecting, listing.

    None for any other name.
    """
    text = str(path)
    answers: dict[str, Callable[[Arguments], Any]] = {
        "read_text": lambda _: machine.attempt(node, read, machine, text),
        "open": lambda arguments: open_file(machine, Arguments([Given(text), *arguments.positional]), node),
        "exists": lambda _: _there(machine, text, Path.exists, node),
        "is_file": lambda _: _there(machine, text, Path.is_file, node),
        "is_dir": lambda _: _there(machine, text, Path.is_dir, node),
        "iterdir": lambda _: _entries(machine, path, node, names=False),
        "match": lambda arguments: _matched(machine, path, arguments, node),
        "glob": lambda arguments: _globbed(machine, text, hard(arguments.value("pattern", 0)), node),
        "rglob": lambda arguments: _globbed(machine, text, f"**/{hard(arguments.value('pattern', 0))}", node),
        "resolve": lambda _: _as_path(_resolved(machine, text, node)),
        "absolute": lambda _: _as_path(_resolved(machine, text, node)),
        "expanduser": lambda _: path,
        "mkdir": lambda _: None,
    }
    if name == "path":
        return text  # of an entry of os.scandir
    answer = answers.get(name)
    return None if answer is None else Native(name, lambda _, arguments, __: answer(arguments))


def _matched(machine: Any, path: PurePosixPath, arguments: Arguments, node: ast.AST) -> Any:
    """``path.match(pattern)``: a relative pattern is compared from the right; ``**`` is ``*`` in it."""
    given = arguments.value("path_pattern", 0)
    pattern = hard(given)
    if not isinstance(pattern, (str, PurePosixPath)) or not 0 < len(str(pattern)) <= 1000:
        return machine.unknown(node)
    wanted = PurePosixPath(pattern)
    parts = path.parts if wanted.is_absolute() else path.parts[-len(wanted.parts) :]
    machine.step(len(str(path)) * len(str(pattern)) // 2000)
    return machine.soft(fits(parts, [re.sub(r"^\*\*$", "*", part) for part in wanted.parts]), given)


def _as_path(value: Any) -> Any:
    return PurePosixPath(value) if isinstance(value, str) else value


NAMES: dict[str, Any] = {
    "os.sep": "/",
    "os.path.sep": "/",
    "os.linesep": "\n",
    "io.StringIO": known(_text_file),
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
    "os.path.exists": _exists(Path.exists),
    "os.path.isfile": _exists(Path.is_file),
    "os.path.isdir": _exists(Path.is_dir),
    "os.listdir": known(_listdir),
    "os.scandir": known(_scandir),
    "os.walk": known(_walk_folders),
    "os.makedirs": known(nothing),
    "pkgutil.iter_modules": known(_modules),
    "glob.glob": known(_glob),
    "glob.iglob": known(_glob),
    "pathlib.Path": known(_path),
    "pathlib.PurePath": known(_path),
    "pathlib.PosixPath": known(_path),
    "pathlib.PurePosixPath": known(_path),
}
