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
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from types import FunctionType, GenericAlias, MethodType, ModuleType, UnionType
from typing import Any, NamedTuple

from flowyml.authoring.code_files import FileWalk
from flowyml.authoring.file_values import is_as_imported
from flowyml.authoring.function_versions import bytecode, names_in
from flowyml.authoring.module_files import is_elsewhere, live_module
from flowyml.authoring.source_units import (
    REACHING,
    Imported,
    SourceFile,
    Unit,
    file_names_in,
    state_of_file,
    units_of_cell,
)
from flowyml.authoring.steps import Step
from flowyml.core.modules import import_root, is_installed
from flowyml.core.syntax import parsed
from flowyml.runtime.code import LiveState

__all__ = ["Reached", "live_state", "reached"]


class Reached(NamedTuple):
    """The code that a function can reach, as a digest, and the data files that this code names, as label and content.

    ``uses_current_run`` is True if the code may read its run's dates. ``imports`` are the installed packages that it
    imports, by the first parts of their modules' names.
    """

    code: str
    data: tuple[tuple[str, str], ...]
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
    state = [*walk.held, *(map(str, code) if code != reached(function, by_value=False)[:2] else [])]
    return LiveState(_digest(state) if state else "", walk.changed)


def _live_walk(function: Callable[..., Any]) -> _Walk:
    walk = _Walk(live=True)
    walk.collect(function)
    walk.collect_live(function)
    return walk


class _Walk(FileWalk):
    """Follows functions to their files. ``collect_live`` adds the state of this process, where it is not the files'."""

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
        uses_current_run = self.uses_current_run or "current_run" in self.names_from_roots()
        imports = frozenset(self.imports - sys.stdlib_module_names - {"flowyml"})
        return Reached(code, tuple(self.data()), uses_current_run, imports)

    def enter(self, file: SourceFile) -> None:
        """Collect a file; with ``live``, note whether it changed since this process imported it."""
        if self._is_live and not is_as_imported(live_module(file), file):
            self._note(f"{file.path.name} may have changed since this process imported it; restart it, or the kernel")
        super().enter(file)

    def collect(self, code: Any) -> None:
        """Collect the statement that defines a function or a class; of what is installed, only the name counts."""
        while isinstance(code, partial | MethodType):
            code = code.func if isinstance(code, partial) else code.__func__
        module, name = getattr(code, "__module__", None), getattr(code, "__qualname__", type(code).__qualname__)
        if (file := self.file_of(module)) is not None:
            self.collect_name(file, name.partition(".")[0])
        elif is_elsewhere(module):
            self.named.add(f"installed {module}.{name}")

    # The state of this process: each value that is not what its file says.

    def collect_live(self, function: Any) -> None:
        """Hold the state of a function, and of all names to which it leads."""
        is_code = isinstance(function, FunctionType | type)
        if state := self._differs(function) if is_code else self._state(function):
            self.held.append(state)
        seen = set[tuple[Path, str]]()
        while names := self._live_names() - seen:  # values lead to more code
            seen |= names
            for path, name in sorted(names, key=lambda key: (self.files[key[0]].name, key[1])):
                self._compare(self.files[path], name)

    def _live_names(self) -> set[tuple[Path, str]]:
        """Return the names in modules to which the functions lead; all if their code reaches names unwritten."""
        names = self.names_from_roots()
        return {
            (path, name)
            for path, file in self.files.items()
            for name in vars(live_module(file) or object)
            if (self.reaches_any or name in names) and (name in file.by_name or not name.startswith("__"))
        }

    def _compare(self, file: SourceFile, name: str) -> None:
        """Hold the value of a module's name, unless it is what the file says."""
        live = live_module(file)
        if live is None or name not in vars(live):  # a file may name what it has not bound
            return
        value = vars(live)[name]
        units = file.by_name.get(name, ())
        targets = [target for unit in units for target in unit.imports.get(name, ())]
        found = list(map(_imported, targets))
        submodule = sys.modules.get(f"{live.__name__}.{name}", _MISSING)
        if any(each is value for each in (*found, submodule)):  # its own module is compared, too
            return
        if isinstance(value, Step):
            value = value.function
        if _is_at(value, live.__name__, name):
            if state := self._differs(value):
                self.held.append(f"{file.name}.{name} {state}")
        elif callable(value) and any(each is not _MISSING for each in found):
            self._note(f"{file.path.name} has another {name} than {targets[0][0]} has by now")
        elif not isinstance(value, FunctionType | type) and any(_defines(unit.node, name) for unit in units):
            self._note(f"{name} in {file.path.name} was replaced in this process")
        elif not _is_said(file, name, value) and _counts(value):
            self.held.append(f"{file.name}.{name} = {self._state(value)}")

    def _differs(self, code: FunctionType | type) -> str:
        """Return how a function or a class differs from its file, with what is bound to it; empty if not at all."""
        if id(code) in self._seen:
            return ""
        self._seen[id(code)] = code
        file = self.file_of(code.__module__)
        if file is None and is_elsewhere(code.__module__):
            return ""
        self.collect(code)
        return " ".join(self._of_class(code, file) if isinstance(code, type) else self._of_function(code))

    def _of_function(self, function: FunctionType) -> Iterator[str]:
        code, module = function.__code__, function.__globals__.get("__name__")  # a wrapper says that of another
        file = self.file_of(module)
        if code.co_qualname != function.__qualname__:
            yield f"is {module}.{code.co_qualname}"
        if file is None and is_elsewhere(module):
            pass  # it is installed
        elif file is None or code not in file.codes.get(code.co_qualname, ()):
            yield from self._without_file(function, file)
        elif "<" in code.co_qualname:  # several of one name may be in one statement
            yield from bytecode(code)
        for free, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # it is not filled yet
                yield f"{free} = {self._state(cell.cell_contents)}"
        defaults = function.__defaults__ or (), function.__kwdefaults__ or {}
        if any(defaults) and not (file and _is_said(file, f"{code.co_qualname}()", defaults)):
            yield f"defaults {self._state(defaults)}"
        if vars(function):
            yield f"attributes {self._state(dict(vars(function)))}"

    def _without_file(self, function: FunctionType, file: SourceFile | None) -> Iterator[str]:
        """Yield code that no file has by now, such as a notebook's: itself, and the globals that it names."""
        yield from bytecode(function.__code__)
        units, names = _own_units(function), names_in(function.__code__)
        for unit in units if file is None else ():
            yield unit.digest
            self._texts |= unit.texts
            self._collect_led_to(unit.names)
        self.uses_current_run = self.uses_current_run or "current_run" in names
        if any(unit.reaches_any for unit in units) if units else REACHING & names:
            self._note(f"{function.__qualname__} can use any name of this process (by eval or the like)")
        self._collect_cells(function.__globals__)
        for name in sorted(names & function.__globals__.keys()):
            if _counts(value := function.__globals__[name]):
                yield f"{name} = {self._state(value)}"

    def _collect_cells(self, live: dict[str, Any]) -> None:
        """Hold the statements of a notebook's cells that call, change or extend a library: their effect stays in it.

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
        for name in sorted({name for unit in used.values() for name in unit.names} & live.keys()):
            if _counts(live[name]):
                self.held.append(f"{name} = {self._state(live[name])}")

    def _of_class(self, kind: type, file: SourceFile | None) -> Iterator[str]:
        """Yield what a class has that its file does not say; without one, everything but what Python adds."""
        for name, value in sorted(vars(kind).items()):
            place, functions = f"{kind.__qualname__}.{name}", _functions_in(value)
            is_said = place in file.says if file else not name.startswith("__")
            if not is_said and name.startswith("_") and all(map(_is_generated, functions)):
                continue
            if functions and all(_is_at(each, kind.__module__, place) for each in functions):
                yield from (f"{name} {state}" for state in map(self._differs, functions) if state)
            elif not isinstance(value, kind) and not (file and _is_said(file, place, value)) and _counts(value):
                yield f"{name} = {self._state(value)}"
        yield from filter(None, map(self._differs, kind.__bases__))

    def _state(self, value: Any, depth: int = 0) -> str:
        """Return the state of a value, as far as possible the same in every process."""
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind in _ATOMS:
            return f"{name} {self._relative(value) if kind is str else value!r}"
        if isinstance(value, FunctionType | type):
            return f"{value.__module__}.{value.__qualname__} {self._differs(value)}"
        if isinstance(value, ModuleType):
            if self.file_of(value.__name__) is None:
                self.imports.add(value.__name__.partition(".")[0])
            return f"{name} {value.__name__}"
        is_collection = kind in _COLLECTIONS
        if id(value) in self._seen and not is_collection:
            return name
        if depth > _DEEPEST or (is_collection and len(value) > _LONGEST):
            return f"{name} {_pickled(value)}"
        if isinstance(value, PurePath):
            return f"{name} {self._relative(str(value))}"
        if kind in (set, frozenset):
            return f"{name} {sorted(self._state(part, depth + 1) for part in value)}"
        if kind is dict:
            value = [part for pair in value.items() for part in pair]
        elif not is_collection:
            self._seen[id(value)] = value
            value = _parts_of(value) or [kind, _pickled(value) or dict(getattr(value, "__dict__", {}))]
        return f"{name} [{', '.join(self._state(part, depth + 1) for part in value)}]"

    def _relative(self, text: str) -> str:
        """Return a text relative to the import folder of a reached file if it is a path there: the same everywhere.

        It may name a data file.
        """
        for path, file in self.files.items():
            root = str(import_root(file.name, path))
            if text == root or text.startswith(root + os.sep):
                below = text.removeprefix(root).replace(os.sep, "/")
                self._texts |= file_names_in(below.strip("/"))
                return repr(f"<root>{below}")
        self._texts |= file_names_in(text)
        return repr(text)

    def _note(self, changed: str) -> None:
        self.changed = self.changed or changed


_MISSING = object()


def _imported(target: Imported) -> Any:
    """Return what an import finds in this process."""
    module, name = target
    if name is None:
        return sys.modules.get(module, _MISSING)
    return vars(sys.modules.get(module, object)).get(name, sys.modules.get(f"{module}.{name}", _MISSING))


def _is_at(code: Any, module: str, name: str) -> bool:
    """Return whether a value is a function or a class that says to be defined there."""
    return isinstance(code, FunctionType | type) and (code.__module__, code.__qualname__) == (module, name)


def _defines(node: ast.stmt, name: str) -> bool:
    """Return whether a statement defines a name as a function or a class, which no decorator can replace."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(node, kinds) and node.name == name and not node.decorator_list


def _is_said(file: SourceFile, name: str, value: Any) -> bool:
    """Return whether the file says that a name has this value, by a literal."""
    return type(value) in (*_ATOMS, *_COLLECTIONS) and file.says.get(name) == repr(value)


def _functions_in(value: Any) -> list[Any]:
    """Return the functions of a method or a property; a class as it is."""
    parts = _parts_of(value) if isinstance(value, property | staticmethod | classmethod) else [value]
    return [part for part in parts if isinstance(part, FunctionType | type)]


def _parts_of(value: Any) -> list[Any]:
    """Return the parts of a callable that is made from functions; none of another value."""
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    return [value.function] if isinstance(value, Step) else []


def _is_generated(function: Any) -> bool:
    """Return whether a method was made by a dataclass or the like, from text without a file, or is a library's."""
    name = function.__code__.co_filename if isinstance(function, FunctionType) else "<"
    return name.startswith("<") or is_installed(Path(name))


_COLLECTIONS = (list, tuple, dict, set, frozenset)

_ATOMS = (bool, int, float, complex, str, bytes, type(None), type(...))
_DEEPEST = 6
_MOST_KNOWN = 4096
_LONGEST = 1000


_reached: dict[int, tuple[Callable[..., Any], dict[Path, tuple[int, ...]], Reached]] = {}


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()


def _own_units(function: FunctionType) -> list[Unit]:
    """Return the statement that defines a function; none if its text is not known."""
    try:
        return [Unit(node, ()) for node in parsed(textwrap.dedent(inspect.getsource(function))).body]
    except (OSError, SyntaxError, TypeError):
        return []


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
