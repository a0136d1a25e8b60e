"""A digest of the code that a function can reach, which changes with the code's effect, not with its layout.

Files are followed statement by statement, along the names that each statement uses: see ``source_units``. That leaves
out the code of other steps, and includes too much rather than too little. If code reaches a name that it does not
write, as with ``globals()`` or ``getattr`` on a module, the whole file counts, with all its imports.

The state of this process is separate, since workers import the files again. It counts for functions that are pickled by
value, and if a step runs in this very process.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from types import CodeType, FunctionType, GenericAlias, MethodType, ModuleType, UnionType
from typing import Any, NamedTuple

from flowyml.authoring.file_values import is_as_imported, is_literal, says_defaults, unwrapped
from flowyml.authoring.function_versions import bytecode
from flowyml.authoring.module_files import found_module, is_elsewhere, live_module
from flowyml.authoring.source_units import (
    Chain,
    Imported,
    SourceFile,
    Unit,
    hash_of,
    identity_of,
    source_file_at,
    text_of,
)
from flowyml.authoring.sources import import_root
from flowyml.authoring.steps import Step
from flowyml.core.syntax import parsed
from flowyml.runtime.code import LiveState

__all__ = ["Reached", "live_state", "reached"]


class Reached(NamedTuple):
    """The code that a function can reach, as a digest.

    ``asks_for_run`` is True if the code may read its run's dates. ``imports`` are the installed packages that it
    imports, by the first parts of their modules' names.
    """

    code: str
    asks_for_run: bool
    imports: frozenset[str]


def reached(function: Callable[..., Any], *, by_value: bool) -> Reached:
    """Return the code that a function can reach on a worker; with ``by_value``, its state in this process too.

    Raises ``OSError`` and ``SyntaxError`` for files that cannot be read.
    """
    if by_value:
        walk = _Walk(live=True)
        walk.collect(function)
        return walk.reached(walk.held)
    known = _reached.get(id(function))
    if known and known[0] is function and all(_identity(path) == seen for path, seen in known[1].items()):
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
    walk = _Walk(live=True)
    walk.collect(function)
    code = walk.reached().code  # with the code that was put in the place of what the files say
    state = [*walk.held, *([code] if code != reached(function, by_value=False).code else [])]
    return LiveState(_digest(state) if state else "", walk.changed)


class _Walk:
    """Follows names; visits everything once. With ``live``, it also reads the state of this process."""

    def __init__(self, *, live: bool) -> None:
        self._is_live = live
        self.named: set[str] = set()  # functions that workers have of their own
        self.held: list[str] = []
        self.changed = ""
        self._imports: set[str] = set()
        self.asks_for_run = False
        self._files: dict[Path, SourceFile] = {}
        self._data: dict[Path, tuple[int, ...]] = {}  # files that texts may name, or would if they were there
        self._known: dict[tuple[str, Path | None], tuple[str, Path] | None] = {}
        self._units: dict[tuple[str, str], list[Unit]] = {}
        self._whole: set[Path] = set()
        self._seen: dict[int, Any] = {}  # which stay alive, so that no other gets their ids

    def reached(self, held: Iterable[str] = ()) -> Reached:
        """Return the code that was reached, with the state of this process that counts as code."""
        code = _digest([*self._text(), *sorted(self.named), *held])
        return Reached(code, self.asks_for_run, frozenset(self._imports - sys.stdlib_module_names - {"flowyml"}))

    def _text(self) -> Iterator[str]:
        """Yield the statements that were reached, independent of their order in the files."""
        for (module, name), units in sorted(self._units.items(), key=lambda item: item[0]):
            yield f"{module}:{name} {' '.join(unit.digest for unit in units)}"

    def identities(self) -> dict[Path, tuple[int, ...]]:
        """Return the files that were read or missed, in their state at that time."""
        return {path: file.identity for path, file in self._files.items()} | self._data

    # The state of this process.

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
        file = self._file_of(value.__module__)
        if file is None and is_elsewhere(value.__module__):
            self.named.add(f"installed {value.__module__}.{value.__qualname__}")
        elif file is not None:
            self._collect_name(file, value.__qualname__.partition(".")[0])
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

    def _collect_without_file(self, function: FunctionType) -> None:
        """Collect code without a file, such as a notebook's: its own text, and the globals that it names."""
        self.held.extend(bytecode(function.__code__) if "<lambda>" in function.__qualname__ else _own_text(function))
        names = _names(function.__code__)
        self.asks_for_run = self.asks_for_run or "current_run" in names
        for name in sorted(names & function.__globals__.keys()):
            self._hold(name, function.__globals__[name])

    def _collect_class(self, kind: type) -> None:
        file = self._file_of(kind.__module__)
        if file is not None:
            self._collect_name(file, kind.__qualname__.partition(".")[0])
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
            if (file := self._file_of(value.__name__)) is not None:
                self._collect_all(file)
            else:
                self._imports.add(value.__name__.partition(".")[0])
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
        if depth > _DEEPEST or (id(value) in self._seen and not is_collection):
            return name
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
        return f"{name} {_pickled(value)}"

    def _relative(self, text: str) -> str:
        """Return a path as text, relative to the import folder of a reached file: the same on all machines."""
        for path, file in self._files.items():
            root = str(import_root(file.name, path))
            if text == root or text.startswith(root + os.sep):
                return repr("<root>" + text.removeprefix(root).replace(os.sep, "/"))
        return repr(text)

    # The code in files.

    def _file_of(self, module: str | None, beside: SourceFile | None = None) -> SourceFile | None:
        """Return the file of a user's module; ``beside`` is a file that imports it."""
        found = self._found(module, import_root(beside.name, beside.path) if beside else None) if module else None
        if found is None:
            return None
        name, path = found
        if path not in self._files:
            try:
                file = source_file_at(name, path)
            except FileNotFoundError:  # it is loaded, and its file was deleted
                return None
            self._files[path] = file
            self._enter(file)
        return self._files[path]

    def _found(self, module: str, root: Path | None) -> tuple[str, Path] | None:
        if (module, root) not in self._known:
            self._known[module, root] = found_module(module, root)
        return self._known[module, root]

    def _enter(self, file: SourceFile) -> None:
        """Collect a file's loose statements, and those of its imports and of its packages: using the file runs them."""
        live = self._live(file)
        if live is not None and not is_as_imported(live, file):
            self.changed = self.changed or f"{file.path.name} has changed since this process imported it"
        for number in range(1, file.name.count(".") + 1):
            self._file_of(file.name.rsplit(".", number)[0], file)
        for unit in file.units:
            for module in unit.modules if unit.is_import else ():
                self._file_of(module, file)
            self._imports.update(
                top for module in unit.modules if not self._file_of(top := module.partition(".")[0], file)
            )
        for unit in file.loose:
            self._collect_unit(file, "", unit, skipped=file.pipelines)

    def _collect_name(self, file: SourceFile, name: str) -> None:
        """Collect the statements that bind a name of a module."""
        units = file.by_name.get(name)
        if units is None:
            for other in self._stars(file):
                if other is not file and self._has(other, name, {file.path}):
                    return self._collect_name(other, name)
            return self._collect_all(file)
        if (file.name, name) in self._units:
            return None
        self._units[file.name, name] = []
        for unit in units:
            if name in unit.imports:  # in a ``try``, too
                self._collect_imported(file, name, unit.imports[name], {()})
            if not unit.is_import:
                self._collect_unit(file, name, unit)
                self._collect_live_value(file, name, unit)
        return None

    def _has(self, file: SourceFile, name: str, seen: set[Path]) -> bool:
        if name in file.by_name:
            return True
        others = (other for other in self._stars(file) if other.path not in seen)
        return any(self._has(other, name, seen | {other.path}) for other in others)

    def _collect_all(self, file: SourceFile) -> None:
        """Collect the whole file, with the whole of its imports."""
        if file.path in self._whole:
            return
        self._whole.add(file.path)
        for name in file.by_name:
            self._collect_name(file, name)
        for unit in file.units:
            if not unit.binds:
                self._collect_unit(file, "", unit)
            for module in unit.modules:
                if (other := self._file_of(module, file)) is not None:
                    self._collect_all(other)

    def _collect_unit(self, file: SourceFile, name: str, unit: Unit, skipped: Iterable[str] = ()) -> None:
        """Collect one statement, and the names that it uses."""
        units = self._units.setdefault((file.name, name), [])
        if unit in units:
            return
        units.append(unit)
        self.asks_for_run = self.asks_for_run or unit.asks_for_run
        for text in unit.files:
            self._collect_data(file.path.parent / text, text)
        if unit.is_dynamic:
            self._collect_all(file)
        for module in (*unit.stars, *(sorted(unit.texts) if unit.is_dynamic else ())):
            if (other := self._file_of(module, file)) is not None:
                self._collect_all(other)
        for used, chains in unit.uses.items():
            if used in unit.imports:
                self._collect_import(file, unit.imports[used], chains)
            if used not in skipped:
                self._collect_used(file, used, chains)
        for module in unit.modules:  # imported within, without a name
            self._file_of(module, file)

    def _collect_data(self, path: Path, name: str) -> None:
        """Collect a file beside the module, if there is one of the name that a text in the code has."""
        self._data[path] = _identity(path)
        if self._data[path] and path.is_file():
            self.named.add(f"file {name} {hash_of(path)}")

    def _collect_used(self, file: SourceFile, name: str, chains: Iterable[Chain]) -> None:
        """Collect a name that code in a file uses, and its referent."""
        units = file.by_name.get(name, ())
        for unit in units:
            if unit.is_import:
                self._collect_imported(file, name, unit.imports.get(name, (name, None)), chains)
            else:
                self._collect_name(file, name)
        if not units and any(self._has(other, name, {file.path}) for other in self._stars(file)):
            self._collect_name(file, name)

    def _stars(self, file: SourceFile) -> Iterator[SourceFile]:
        return (o for unit in file.units for star in unit.stars if (o := self._file_of(star, file)) is not None)

    def _collect_imported(self, file: SourceFile, name: str, imported: Imported, chains: Iterable[Chain]) -> None:
        """Collect the used part of an import, and its live object if a reload replaced that in its module."""
        self._collect_import(file, imported, chains)
        module, there_name = imported
        here, there = self._names_in(file), self._names_in(self._file_of(module, file))
        if name not in here or there_name is None or there_name not in there:  # a module may make names when asked
            return
        if here[name] is there[there_name]:
            return
        if isinstance(here[name], FunctionType | Step | type):
            self.changed = self.changed or f"{file.path.name} has another {name} than {module} has by now"
        elif not isinstance(here[name], ModuleType):
            self._hold(f"{file.name}.{name}", here[name])

    def _names_in(self, file: SourceFile | None) -> Mapping[str, Any]:
        return vars(live) if (live := self._live(file)) else {}

    def _live(self, file: SourceFile | None) -> ModuleType | None:
        return live_module(file) if self._is_live and file else None

    def _collect_import(self, file: SourceFile, imported: Imported, chains: Iterable[Chain]) -> None:
        """Collect the used part of an import: ``helpers.clean`` is one function of a module."""
        module, name = imported
        for chain in chains:
            self._collect_module(file, module, (name, *chain) if name else chain)

    def _collect_module(self, file: SourceFile, module: str, chain: Chain) -> None:
        while chain and self._file_of(f"{module}.{chain[0]}", file) is not None:
            module, chain = f"{module}.{chain[0]}", chain[1:]
        found = self._file_of(module, file)
        if found is None:
            if chain and not is_elsewhere(module):  # a folder without a file of its own
                with suppress(IndexError):
                    self._collect_module(file, f"{module}.{chain[0]}", chain[1:])
            return
        if not chain or chain[0].startswith("__"):
            self._collect_all(found)
        else:
            self._collect_name(found, chain[0])

    def _collect_live_value(self, file: SourceFile, name: str, unit: Unit) -> None:
        """Record the value of a file's name in this process, if it differs from the file."""
        live = self._live(file)
        if live is None or name not in vars(live):
            return
        value = vars(live)[name]
        if isinstance(unit.node, ast.ClassDef):
            self._collect_live_class(file, value, unit.node)
        elif isinstance(value, FunctionType | Step | MethodType | partial):
            self.collect(value)
        elif not isinstance(value, ModuleType | type) and not is_literal(file, unit.node, value):
            self._hold(f"{file.name}.{name}", value)

    def _collect_live_class(self, file: SourceFile, kind: Any, node: ast.ClassDef) -> None:
        said = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)}
        for name, value in list(getattr(kind, "__dict__", {}).items()):
            code = getattr(unwrapped(value), "__code__", None)
            if code is None or (name not in said and code.co_filename.startswith("<")):  # made by a dataclass
                continue
            if not _is_within(code, file, node):
                self._hold(f"{node.name}.{name}", value)
        for inner in node.body:
            if isinstance(inner, ast.Assign | ast.AnnAssign):
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                for target in targets:
                    name = target.id if isinstance(target, ast.Name) else ""
                    value = getattr(kind, "__dict__", {}).get(name)
                    if type(value) in (*_ATOMS, list, tuple, dict, set, frozenset) and not is_literal(
                        file, inner, value
                    ):
                        self._hold(f"{node.name}.{name}", value)


def _is_within(code: CodeType, file: SourceFile, node: ast.ClassDef) -> bool:
    """Return whether the code of a method stands in the class, and was not put there later."""
    is_here = PurePath(code.co_filename).name == file.path.name
    return is_here and node.lineno <= code.co_firstlineno <= (node.end_lineno or 0)


_ATOMS = (bool, int, float, complex, str, bytes, type(None), type(...))
_DEEPEST = 6
_MOST_KNOWN = 4096
_LONGEST = 1000


_reached: dict[int, tuple[Callable[..., Any], dict[Path, tuple[int, ...]], Reached]] = {}


def _identity(path: Path) -> tuple[int, ...]:
    """Return a value that changes when a file does; empty if there is none."""
    try:
        return identity_of(path)
    except (OSError, ValueError):
        return ()


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()


def _own_text(function: FunctionType) -> Iterable[str]:
    try:
        source = textwrap.dedent(inspect.getsource(function))
        return [text_of(parsed(source))]
    except (OSError, SyntaxError, TypeError):
        return bytecode(function.__code__)


def _counts(value: Any) -> bool:
    """Return whether a step may depend on a value: not on a pipeline, a logger or the name of a type."""
    is_type = isinstance(value, GenericAlias | UnionType)
    return not is_type and type(value).__module__.partition(".")[0] not in ("flowyml", "logging", "typing")


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _pickled(value: Any) -> str:
    """Return a digest of an object's state; empty if the object cannot be pickled, such as a lock."""
    from flowyml.authoring.pickles import pickled

    try:
        return hashlib.sha256(pickled(value, "a value", {})).hexdigest()
    except Exception:  # whatever a user's __reduce__ raises
        return ""
