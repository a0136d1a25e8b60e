"""Paths, folders and open files of the root."""

from __future__ import annotations

import ast
import io
import os.path
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader.files import Refused, fits
from flowyml.migration.airflow.reader.library.natives import natives, nothing, plain
from flowyml.migration.airflow.reader.operations import checked
from flowyml.migration.airflow.reader.values import Arguments, Given, Instance, Native, NotKnown, hard

_PATH = str | PurePosixPath
_PURE = ("join", "dirname", "basename", "splitext", "split", "normpath", "isabs", "relpath", "commonpath")


def open_file(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name, mode = arguments.expect(_PATH, "file", 0), arguments.expect(str, "mode", 1, "r")
    if set(mode) & set("wax+"):
        raise NotKnown
    return machine.attempt(node, lambda: _opened(machine, read(machine, str(name))))


def _text_file(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Open a text by ``io.StringIO(text)``."""
    return _opened(machine, arguments.expect(str, "initial_value", 0, ""), "\n")


def _opened(machine: Any, text: str, newline: str | None = None) -> io.StringIO:
    machine.step(len(text) // 20)
    return io.StringIO(text, newline)


def read(machine: Any, name: str) -> str:
    path = machine.files.resolve(name)
    if path is None:
        raise Refused(f"{name[:200]!r} is not a file of the root")
    return str(machine.files.text(path))


def _path(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    args = [given.value for given in arguments.positional]
    args, _, soft, all_known = machine.settle(args)
    if not all_known or not all(isinstance(one, _PATH) for one in args):
        raise NotKnown
    return machine.soft(machine.attempt(node, lambda: checked(PurePosixPath(*args))), *soft)


def _exists(test: Callable[[Path], bool]) -> Callable[..., Any]:
    return lambda machine, arguments, _: _there(machine, arguments.expect(_PATH, "path", 0), test)


def _there(machine: Any, name: str | PurePosixPath, test: Callable[[Path], bool]) -> bool:
    found = machine.files.resolve(str(name))
    if found is None and not machine.files.inside(str(name)):
        raise NotKnown
    return found is not None and test(found)


def _in_root(machine: Any, name: Any) -> Path:
    """Return the path of a file or folder of the root. Raises ``NotKnown``."""
    found: Path | None = machine.files.resolve(str(name)) if isinstance(name, _PATH) else None
    if found is None:
        raise NotKnown
    return found


def _entries(machine: Any, folder: Path, node: ast.AST) -> list[Path]:
    """Return the entries of a folder. Raises ``NotKnown``."""
    entries = machine.attempt(node, machine.files.entries, folder)
    if not isinstance(entries, list):
        raise NotKnown
    return entries


def _listed(shown: Callable[[Path], Any]) -> Callable[..., Any]:
    """Return ``os.listdir`` or ``os.scandir``, whose entries are paths, with the methods of entries."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        return [shown(one) for one in _entries(machine, _in_root(machine, hard(arguments.value("path", 0, "."))), node)]

    return call


def _pure(path: Path) -> PurePosixPath:
    return PurePosixPath(str(path))


def _modules(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return the modules that ``pkgutil.iter_modules`` finds in folders."""
    folders, prefix = arguments.expect(list, "path", 0), arguments.expect(str, "prefix", 1, "")
    found = [_in_root(machine, hard(folder)) for folder in folders]
    rows = [
        {"module_finder": None, "name": prefix + one.stem, "ispkg": one.is_dir()}
        for folder in found
        for one in _entries(machine, folder, node)
        if _can_be_imported(one)
    ]
    return [Instance(None, {**row, "__items__": list(row.values())}) for row in rows]


def _can_be_imported(path: Path) -> bool:
    module = path.suffix == ".py" and path.stem != "__init__"
    return path.stem.isidentifier() and (module or (path / "__init__.py").is_file())


def _walk_folders(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    rows: list[Any] = []
    todo = [_in_root(machine, hard(arguments.value("top", 0)))]
    while todo and len(rows) < 2000:
        here = todo.pop(0)
        entries = _entries(machine, here, node)
        folders = [one for one in entries if one.is_dir() and not one.is_symlink()]
        rows.append((str(here), [one.name for one in folders], [one.name for one in entries if one.is_file()]))
        todo = [*folders, *todo]
    return rows


def _glob(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    pattern = arguments.expect(str, "pathname", 0)
    base = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    found = _globbed(machine, base or ".", pattern[len(base) :].lstrip("/"), node)
    return [str(one) for one in found] if isinstance(found, list) else found


def _globbed(machine: Any, folder: str, pattern: Any, node: ast.AST) -> Any:
    base = _in_root(machine, folder)
    if not isinstance(pattern, str):
        raise NotKnown
    return machine.attempt(node, lambda: [*map(_pure, machine.files.glob(base, pattern))])


def _absolute(machine: Any, arguments: Arguments, node: ast.AST) -> str:
    return _resolved(machine, str(arguments.expect(_PATH, "path", 0)))


def _resolved(machine: Any, name: str) -> str:
    return os.path.normpath(name) if PurePosixPath(name).is_absolute() else str(_in_root(machine, name))


def path_attribute(machine: Any, path: PurePosixPath, name: str, node: ast.AST) -> Any:
    """Return the methods of `pathlib.Path` beyond a pure path: reading, inspecting, listing.

    None for any other name.
    """
    text = str(path)
    answers: dict[str, Callable[[Arguments], Any]] = {
        "read_text": lambda _: machine.attempt(node, read, machine, text),
        "open": lambda arguments: open_file(machine, Arguments([Given(text), *arguments.positional]), node),
        "exists": lambda _: _there(machine, text, Path.exists),
        "is_file": lambda _: _there(machine, text, Path.is_file),
        "is_dir": lambda _: _there(machine, text, Path.is_dir),
        "iterdir": lambda _: [*map(_pure, _entries(machine, _in_root(machine, path), node))],
        "match": lambda arguments: _matched(machine, path, arguments),
        "glob": lambda arguments: _globbed(machine, text, hard(arguments.value("pattern", 0)), node),
        "rglob": lambda arguments: _globbed(machine, text, f"**/{hard(arguments.value('pattern', 0))}", node),
        "resolve": lambda _: PurePosixPath(_resolved(machine, text)),
        "absolute": lambda _: PurePosixPath(_resolved(machine, text)),
        "expanduser": lambda _: path,
        "mkdir": lambda _: None,
    }
    if name == "path":
        return text  # of an entry of os.scandir
    answer = answers.get(name)
    return None if answer is None else Native(name, lambda _, arguments, __: answer(arguments))


def _matched(machine: Any, path: PurePosixPath, arguments: Arguments) -> Any:
    """Answer ``path.match(pattern)``: a relative pattern is compared from the right; ``**`` is ``*`` in it."""
    given = arguments.value("path_pattern", 0)
    pattern = hard(given)
    if not isinstance(pattern, _PATH) or not 0 < len(str(pattern)) <= 1000:
        raise NotKnown
    wanted = PurePosixPath(pattern)
    parts = path.parts if wanted.is_absolute() else path.parts[-len(wanted.parts) :]
    machine.step(len(str(path)) * len(str(pattern)) // 2000)
    return machine.soft(fits(parts, [re.sub(r"^\*\*$", "*", part) for part in wanted.parts]), given)


NAMES = natives({
    "os.sep": "/",
    "os.path.sep": "/",
    "os.linesep": "\n",
    "io.StringIO": _text_file,
    **{f"os.path.{name}": plain(getattr(os.path, name)) for name in _PURE},
    "os.fspath": plain(str),
    "os.path.abspath": _absolute,
    "os.path.realpath": _absolute,
    "os.path.exists": _exists(Path.exists),
    "os.path.isfile": _exists(Path.is_file),
    "os.path.isdir": _exists(Path.is_dir),
    "os.listdir": _listed(lambda path: path.name),
    "os.scandir": _listed(_pure),
    "os.walk": _walk_folders,
    "os.makedirs": nothing,
    "pkgutil.iter_modules": _modules,
    "glob.glob": _glob,
    "glob.iglob": _glob,
    **{f"pathlib.{name}": _path for name in ("Path", "PurePath", "PosixPath", "PurePosixPath")},
})  # fmt: skip
