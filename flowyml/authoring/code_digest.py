"""A digest of the code that a function can reach, which changes with the code's effect, not with its layout.

It has the text of the user's modules that the function's module imports, and of those that they import
(``code_files``). The state of this process is separate, since workers import the files again. It counts for functions
that are pickled by value, and if a step runs in this very process.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from types import CodeType, FunctionType, GenericAlias, MethodType, ModuleType, UnionType
from typing import Any, NamedTuple

from flowyml.authoring.code_files import FileWalk
from flowyml.authoring.file_values import is_as_imported, is_literal, says_defaults, unwrapped
from flowyml.authoring.function_versions import bytecode, names_in
from flowyml.authoring.module_files import is_elsewhere, live_module
from flowyml.authoring.source_units import (
    REACHING,
    Imported,
    SourceFile,
    Unit,
    bound_by,
    state_of_file,
    text_of,
    units_of_cell,
)
from flowyml.authoring.steps import Step
from flowyml.core.modules import import_root
from flowyml.core.syntax import parsed
from flowyml.runtime.code import LiveState

__all__ = ["Reached", "live_state", "reached"]


class Reached(NamedTuple):
    """The code that a function can reach, as a digest, and that of the data files that this code names.

    ``uses_current_run`` is True if the code may read its run's dates. ``imports`` are the installed packages that it
    imports, by the first parts of their modules' names.
    """

    code: str
    data: str
    uses_current_run: bool
    imports: frozenset[str]


def reached(function: Callable[..., Any], *, by_value: bool) -> Reached:
    """Return the code that a function can reach on a worker; with ``by_value``, its state in this process too.

    Raises ``OSError`` and ``SyntaxError`` for files that cannot be read.
    """
    if by_value:
        walk = _live_walk(function)
        return walk.reached(walk.held)
    known = _reached.get(id(function))
    if known and known[0] is function and all(state_of_file(path) == seen for path, seen in known[1].items()):
        return known[2]
    walk = _Walk(live=False)
    walk.collect(function)
    found = walk.reached()
    if len(_reached) >= _MOST_KNOWN:
        _reached.clear()
    _reached[id(function)] = function, walk.identities(), found
    return found


def live_state(function: Callable[..., Any]) -> LiveState:
    """Return the state of a function's reachable code in this process. Raises as ``reached`` does."""
    walk = _live_walk(function)
    code = walk.reached()[:2]  # with the code that was put in the place of what the files say
    state = [*walk.held, *(code if code != reached(function, by_value=False)[:2] else [])]
    return LiveState(_digest(state) if state else "", walk.changed)


def _live_walk(function: Callable[..., Any]) -> _Walk:
    walk = _Walk(live=True)
    walk.collect(function)
    walk.collect_live()
    return walk


class _Walk(FileWalk):
    """Follows functions, and values that they use, to the files. With ``live``, it reads the state of this process."""

    def __init__(self, *, live: bool) -> None:
        super().__init__()
        self._is_live = live
        self.held: list[str] = []
        self.changed = ""
        self.uses_current_run = False
        self._seen: dict[int, Any] = {}  # which stay alive, so that no other gets their ids

    def reached(self, held: Iterable[str] = ()) -> Reached:
        """Return the code that was reached, with the state of this process that counts as code."""
        code = _digest([*self.text(), *sorted(self.named), *held])
        uses_current_run = self.uses_current_run or "current_run" in self.named_from_roots()[1]
        imports = frozenset(self.imports - sys.stdlib_module_names - {"flowyml"})
        return Reached(code, _digest(self.data()), uses_current_run, imports)

    def enter(self, file: SourceFile) -> None:
        """Collect a file; with ``live``, note whether it changed since this process imported it."""
        if self._is_live and not is_as_imported(live_module(file), file):
            self.changed = self.changed or f"{file.path.name} may have changed since this process imported it"
        super().enter(file)

    # Functions, and the values that they use.

    def collect(self, value: Any) -> None:
        """Collect a function, with its closure and its defaults."""
        while not isinstance(value, FunctionType):
            if id(value) in self._seen:
                return
            self._seen[id(value)] = value
            value = self._inner(value)
            if value is None:
                return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        file = self.file_of(value.__module__)
        if file is None and is_elsewhere(value.__module__):
            self.named.add(f"installed {value.__module__}.{value.__qualname__}")
        elif file is not None:
            self.collect_name(file, value.__qualname__.partition(".")[0])
            if not self._is_live:
                return
            if "<" in value.__qualname__:  # several of one name may be in one statement
                self.held.extend(bytecode(value.__code__))
        else:
            self._collect_without_file(value)
        self._collect_bound(value, file)

    def _inner(self, value: Any) -> Any:
        """Return the function behind a callable; None if that is unknown."""
        if isinstance(value, Step):
            return value.function
        if isinstance(value, partial):
            self._hold("partial", (value.args, value.keywords))
            return value.func
        if isinstance(value, MethodType):
            self._hold("self", value.__self__)
            return value.__func__
        if isinstance(value, type):
            self._collect_class(value)
            return None
        call = getattr(type(value), "__call__", None)  # noqa: B004  # the method itself is wanted
        if isinstance(call, FunctionType):
            self._hold("self", value)
            return call
        self.named.add(f"builtin {getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}")
        return None

    def _collect_bound(self, function: FunctionType, file: SourceFile | None) -> None:
        """Collect closure and defaults; literal ones are in the text."""
        name = f"{function.__module__}.{function.__qualname__}"
        names = function.__code__.co_freevars
        for free, cell in zip(names, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # it is not filled yet
                self._hold(f"{name} {free}", cell.cell_contents)
        defaults = (function.__defaults__ or (), function.__kwdefaults__ or {})
        if any(defaults) and not (file and says_defaults(file, function, defaults)):
            self._hold(f"{name} defaults", defaults)
        if isinstance(inner := getattr(function, "__wrapped__", None), FunctionType):
            self.collect(inner)
        if attributes := {key: value for key, value in vars(function).items() if key != "__wrapped__"}:
            self._hold(f"{name} attributes", attributes)

    def _collect_without_file(self, function: FunctionType) -> None:
        """Collect code without a file, such as a notebook's: its own text, and the globals that it names."""
        self.held.extend(bytecode(function.__code__) if "<lambda>" in function.__qualname__ else _own_text(function))
        names = names_in(function.__code__)
        self.uses_current_run = self.uses_current_run or "current_run" in names
        if _reaches_any(function):
            self.changed = (
                self.changed or f"{function.__qualname__} can use any name of this process (by eval or the like)"
            )
        self._collect_cells(function.__globals__)
        for name in sorted(names & function.__globals__.keys()):
            self._hold(name, function.__globals__[name])

    def _collect_cells(self, live: dict[str, Any]) -> None:
        """Record the statements of a notebook's cells that call, change or extend a library, which keeps the effect.

        Each counts where it ran last, so that the same cells, run in the same order, give the same digest.
        """
        cells = live.get("_ih")  # IPython's texts of the cells that ran
        if not isinstance(cells, list) or id(cells) in self._seen:
            return
        self._seen[id(cells)] = cells
        units = [unit for text in cells for unit in units_of_cell(text)]
        libraries = {
            name for unit in units for name, found in unit.imports.items() if not found[0][0].startswith("flowyml")
        }
        used: dict[str, Unit] = {}
        for unit in units:
            if unit.uses_by_itself(libraries):
                used.pop(unit.digest, None)
                used[unit.digest] = unit
        self.held.extend(used)
        for unit in used.values():
            for name in sorted(unit.names & live.keys()):
                self._hold(name, live[name])

    def _collect_class(self, kind: type) -> None:
        file = self.file_of(kind.__module__)
        if file is not None:
            self.collect_name(file, kind.__qualname__.partition(".")[0])
        elif is_elsewhere(kind.__module__):
            self.named.add(f"installed {kind.__module__}.{kind.__qualname__}")
        else:
            for name, value in sorted(vars(kind).items()):
                is_code = isinstance(value, FunctionType | property | staticmethod | classmethod)
                if is_code or not name.startswith("__"):  # else Python's own, such as pickle's records of a class
                    self._hold(f"{kind.__qualname__}.{name}", value)
            for base in kind.__bases__:
                self._collect_class_once(base)

    def _collect_class_once(self, kind: type) -> None:
        if id(kind) not in self._seen:
            self._seen[id(kind)] = kind
            self._collect_class(kind)

    def _hold(self, name: str, value: Any) -> None:
        """Record a value that code uses by this name; if the value is code, follow it."""
        if isinstance(value, ModuleType):
            if self.file_of(value.__name__) is None:
                self.imports.add(value.__name__.partition(".")[0])
        elif isinstance(value, type):
            self._collect_class_once(value)
        elif isinstance(value, FunctionType | Step | MethodType | partial):
            self.collect(value)
        elif isinstance(value, property | staticmethod | classmethod):
            for part in (getattr(value, each, None) for each in ("fget", "fset", "fdel", "__func__")):
                if part is not None:
                    self._hold(name, part)
        elif _counts(value):
            self.held.append(f"{name} = {self._state(value)}")

    def _state(self, value: Any, depth: int = 0) -> str:
        """Return the state of a value, as far as possible the same in every process."""
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind in _ATOMS:
            return f"{name} {self._relative(value) if kind is str else value!r}"
        is_collection = kind in (list, tuple, dict, set, frozenset)
        if id(value) in self._seen and not is_collection:
            return name
        if depth > _DEEPEST:
            return f"{name} {_pickled(value)}"
        if is_collection and len(value) > _LONGEST:
            return f"{name} {_pickled(value)}"
        if isinstance(value, PurePath):
            return f"{name} {self._relative(str(value))}"
        if kind in (list, tuple):
            return f"{name} [{', '.join(self._state(part, depth + 1) for part in value)}]"
        if kind in (set, frozenset):
            return f"{name} {sorted(self._state(part, depth + 1) for part in value)}"
        if kind is dict:
            pairs = (f"{self._state(key, depth + 1)}: {self._state(part, depth + 1)}" for key, part in value.items())
            return f"{name} {{{', '.join(pairs)}}}"
        if isinstance(value, FunctionType | Step | MethodType | partial | type | ModuleType):
            self._hold(name, value)
            return getattr(value, "__qualname__", name)
        self._seen[id(value)] = value
        self._collect_class_once(kind)
        state = _pickled(value) or self._state(dict(getattr(value, "__dict__", {})), depth + 1)
        return f"{name} {state}"

    def _relative(self, text: str) -> str:
        """Return a path as text, relative to the import folder of a reached file: the same on all machines."""
        for path, file in self.files.items():
            root = str(import_root(file.name, path))
            if text == root or text.startswith(root + os.sep):
                return repr("<root>" + text.removeprefix(root).replace(os.sep, "/"))
        return repr(text)

    # The values in this process of what files bind.

    def collect_live(self) -> None:
        """Collect the values of all names that the functions lead to."""
        if self.reaches_any:
            self._collect_added()
        seen: set[tuple[Path, Unit]] = set()
        while left := self.named_from_roots()[0] - seen:  # values lead to more code
            seen |= left
            for path, unit in sorted(left, key=lambda key: (self.files[key[0]].name, self.units[key])):
                for name in unit.binds:
                    for imported in unit.imports.get(name, ()):
                        self._collect_imported(self.files[path], name, imported)
                    if not isinstance(unit.node, ast.Import | ast.ImportFrom):
                        self._collect_live_value(self.files[path], name, unit)

    def _collect_added(self) -> None:
        """Record what was put into modules under names that their files do not bind."""
        for file in sorted(self.files.values(), key=lambda each: each.name):
            for name, value in sorted(vars(self._live(file)).items()) if self._live(file) else ():
                if name not in file.by_name and not name.startswith("__"):
                    self._hold(f"{file.name}.{name}", value)

    def _collect_imported(self, file: SourceFile, name: str, imported: Imported) -> None:
        """Compare an imported name with what its module has under it: a reload or a test may have replaced either."""
        module, there_name = imported
        live = self._live(file)
        here, there = (vars(each) if each else {} for each in (live, sys.modules.get(module)))
        if name not in here or there_name is None or there_name not in there:  # a module may make names when asked
            return
        if here[name] is there[there_name]:
            return
        if callable(here[name]):
            self.changed = self.changed or f"{file.path.name} has another {name} than {module} has by now"
        elif not isinstance(here[name], ModuleType):
            self._hold(f"{file.name}.{name}", here[name])

    def _live(self, file: SourceFile) -> ModuleType | None:
        return live_module(file) if self._is_live else None

    def _collect_live_value(self, file: SourceFile, name: str, unit: Unit) -> None:
        """Record the value of a file's name in this process, if it differs from the file."""
        live = self._live(file)
        if live is None or name not in vars(live):
            return
        value = vars(live)[name]
        if isinstance(unit.node, ast.ClassDef):
            self._collect_live_class(file, value, unit.node)
        elif isinstance(unit.node, ast.FunctionDef | ast.AsyncFunctionDef) and not unit.node.decorator_list:
            self._collect_live_function(file, name, value, unit.node)
            if isinstance(value, FunctionType):
                self.collect(value)
        elif isinstance(value, FunctionType | Step | MethodType | partial):
            self.collect(value)
        elif not isinstance(value, ModuleType | type) and not is_literal(file, unit.node, value):
            self._hold(f"{file.name}.{name}", value)

    def _collect_live_class(self, file: SourceFile, kind: Any, node: ast.ClassDef) -> None:
        said = {name: inner for inner in node.body for name in bound_by(inner)}
        for name, value in list(getattr(kind, "__dict__", {}).items()):
            inner = said.get(name)
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                self._collect_live_function(file, f"{node.name}.{name}", value, inner)
            elif inner is not None:
                if type(value) in (*_ATOMS, list, tuple, dict, set, frozenset) and not is_literal(file, inner, value):
                    self._hold(f"{node.name}.{name}", value)
            elif not name.startswith("_") and not _is_generated(value):
                self._hold(f"{node.name}.{name}", value)

    def _collect_live_function(self, file: SourceFile, name: str, value: Any, node: ast.stmt) -> None:
        """Compare a function or method with its definition. One that a decorator made is recorded as it is."""
        code = getattr(unwrapped(value), "__code__", None)
        if code is not None and _is_within(code, file, node):
            return
        if getattr(node, "decorator_list", ()):
            self._hold(f"{file.name}.{name}", value)
        else:
            self.changed = self.changed or f"{name} in {file.path.name} was replaced in this process"


def _is_generated(value: Any) -> bool:
    """Return whether a method was made by a dataclass or the like, from text without a file."""
    code = getattr(unwrapped(value), "__code__", None)
    return code is not None and code.co_filename.startswith("<")


def _is_within(code: CodeType, file: SourceFile, node: ast.stmt) -> bool:
    """Return whether code stands in a definition, and was not put in its place later."""
    is_here = PurePath(os.path.realpath(code.co_filename)).name == file.path.name  # a module may be a link
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
    return is_here and first <= code.co_firstlineno <= (node.end_lineno or 0)


_ATOMS = (bool, int, float, complex, str, bytes, type(None), type(...))
_DEEPEST = 6
_MOST_KNOWN = 4096
_LONGEST = 1000


_reached: dict[int, tuple[Callable[..., Any], dict[Path, tuple[int, ...]], Reached]] = {}


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()


def _own_text(function: FunctionType) -> Iterable[str]:
    try:
        return [text_of(_parsed(function))]
    except (OSError, SyntaxError, TypeError):
        return bytecode(function.__code__)


def _reaches_any(function: FunctionType) -> bool:
    try:
        return any(Unit(node, ()).reaches_any for node in _parsed(function).body)
    except (OSError, SyntaxError, TypeError):
        return not REACHING.isdisjoint(names_in(function.__code__))


def _parsed(function: FunctionType) -> ast.Module:
    return parsed(textwrap.dedent(inspect.getsource(function)))


def _counts(value: Any) -> bool:
    """Return whether a step may depend on a value: not on a pipeline, a logger or the name of a type."""
    is_type = isinstance(value, GenericAlias | UnionType)
    return not is_type and type(value).__module__.partition(".")[0] not in ("flowyml", "logging", "typing")


def _pickled(value: Any) -> str:
    """Return a digest of an object's state; empty if the object cannot be pickled, such as a lock."""
    from flowyml.authoring.pickles import pickled

    try:
        return hashlib.sha256(pickled(value, "a value", {})).hexdigest()
    except Exception:  # whatever a user's __reduce__ raises
        return ""
