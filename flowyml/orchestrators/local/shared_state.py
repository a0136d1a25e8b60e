"""State that steps in threads share with one another and the caller: warn about a step that changes it for all."""

from __future__ import annotations

import dis
import functools
import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from flowyml.core.modules import is_installed
from flowyml.plan.model import Plan

__all__ = ["warn_of_sharing"]

logger = logging.getLogger("flowyml.local")

_CHANGES = {
    *("os.chdir", "os.fchdir", "os.umask", "os.putenv", "os.unsetenv", "contextlib.chdir"),
    *(f"os.environ.{name}" for name in ("update", "setdefault", "pop", "clear")),
    *("locale.setlocale", "time.tzset"),
    *("random.seed", "random.setstate", "numpy.random.seed", "numpy.random.set_state", "torch.manual_seed"),
}
_DRAWS = re.compile(r"(numpy\.)?random\.(?!default_rng)[a-z_]+")
_SEEDS = re.compile(rb"\bseed\(")
_PLOTS = "matplotlib.pyplot."
_ENVIRON = "os.environ"
_FAR = 3  # instructions
_MOST = 200  # steps that are looked at when a run begins, and functions that one of them calls

_WORDS = {path.split(".")[1] for path in _CHANGES} | {"seed", "set_state", "random", "pyplot"}
_ROOTS = ("random.", "numpy.random.", "os.", "contextlib.chdir", "locale.setlocale", "time.tzset", _PLOTS)

_warned: set[CodeType] = set()


def warn_of_sharing(plan: Plan, functions: Mapping[str, Callable[..., Any]], in_threads: Collection[str]) -> None:
    """Warn, once per function, about a step that changes what another one may use in a thread at the same time."""
    looked_at: set[CodeType] = set()
    for step in plan:
        function = _plain(functions.get(step.name))
        if step.name not in in_threads or function is None or function.__code__ in looked_at | _warned:
            continue
        looked_at.add(function.__code__)
        if len(looked_at) > _MOST:
            return
        what = _shared(function)
        if what and (other := _beside(plan, step.name, in_threads)):
            _warned.add(function.__code__)
            logger.warning(
                "Step %r uses %s, which all threads of a process share, and step %r may run at the same time. Run it "
                "with LocalOrchestrator(workers='processes'), or one after the other (after=…).",
                step.name, what, other,
            )  # fmt: skip


def _beside(plan: Plan, name: str, among: Collection[str]) -> str | None:
    """A step that neither waits for this one nor is waited for by it."""
    after: dict[str, list[str]] = {}
    for step in plan:
        for earlier in step.upstream:
            after.setdefault(earlier, []).append(step.name)
    before = {step.name: step.upstream for step in plan}
    bound = {name, *_reached(name, before), *_reached(name, after)}
    return next((step.name for step in plan if step.name in among and step.name not in bound), None)


def _reached(name: str, ways: Mapping[str, Collection[str]]) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        fresh = [other for other in ways.get(left.pop(), ()) if other not in found]
        found.update(fresh)
        left += fresh
    return found


def _plain(function: Any) -> FunctionType | None:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else None
    return function if isinstance(function, FunctionType) else None


def _shared(function: FunctionType) -> str | None:
    """The shared state that a function uses, or one of the user's that it calls."""
    left, seen = [function], {function.__code__}
    while left:
        function = left.pop()
        for path in _Paths(function) if _may_share(function) else ():
            if path in _CHANGES or path.startswith(_PLOTS):
                return path
            if _DRAWS.fullmatch(path) and _seeds(function.__code__.co_filename):
                return f"{path} with a seed"
        for helper in _helpers(function):
            if helper.__code__ not in seen and len(seen) < _MOST:
                seen.add(helper.__code__)
                left.append(helper)
    return None


def _helpers(function: FunctionType) -> Iterator[FunctionType]:
    """The user's functions that it names, in its own module and others, also as `module.function`."""
    names = function.__code__.co_names
    for value in [function.__globals__[name] for name in names if name in function.__globals__]:
        for one in vars(value).values() if isinstance(value, ModuleType) else (value,):
            if isinstance(one, FunctionType) and (one is value or one.__name__ in names) and _is_users(one, function):
                yield one


def _is_users(one: FunctionType, by: FunctionType) -> bool:
    return one.__module__ == by.__module__ or not _is_installed(one.__code__.co_filename)


@cache
def _is_installed(file: str) -> bool:
    return file.startswith("<frozen") or is_installed(Path(file))


def _may_share(function: FunctionType) -> bool:
    """A check of its names only, which takes a thousandth of the time: most functions have none of these."""
    return any(
        not _WORDS.isdisjoint(name.split(".")) or _path_of(function.__globals__.get(name)).startswith(_ROOTS)
        for name in function.__code__.co_names
    )


class _Paths:
    """The dotted names that a function loads, by the names of their modules: ``numpy.random.seed``."""

    def __init__(self, function: FunctionType) -> None:
        self._function = function
        self._imported: dict[str, str] = {}  # inside the function
        self._path = self._package = ""
        self._constant: Any = None
        self._since_environ = _FAR

    def __iter__(self) -> Iterator[str]:
        for instruction in dis.get_instructions(self._function):
            self._since_environ += 1
            self._path = self._after(instruction.opname, instruction.argval)
            if instruction.opname == "LOAD_CONST":
                self._constant = instruction.argval
            if self._path == _ENVIRON:
                self._since_environ = 0
            if self._path:
                yield self._path

    def _after(self, operation: str, value: Any) -> str:
        """The top of the stack after a Python instruction, if it has a dotted name."""
        if operation == "IMPORT_NAME":  # the constant before it: what `from … import` names; None for `import a.b as c`
            self._package = value if self._constant else value.partition(".")[0]
            return str(value)
        if operation == "IMPORT_FROM":
            return f"{self._package}.{value}"
        if operation.startswith("STORE_FAST"):
            return self._stored(*value) if isinstance(value, tuple) else self._stored(value)
        if operation.startswith("LOAD_FAST"):
            return self._imported.get(value[-1] if isinstance(value, tuple) else value, "")
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            return _path_of(self._function.__globals__.get(value))
        if operation in ("LOAD_ATTR", "LOAD_METHOD"):
            return f"{self._path}.{value}" if self._path else ""
        if operation in ("STORE_SUBSCR", "DELETE_SUBSCR"):  # of what was loaded just before the key
            return f"{_ENVIRON}.update" if self._since_environ < _FAR else ""
        return self._path if operation in ("PUSH_NULL", "NOP", "CACHE", "EXTENDED_ARG") else ""

    def _stored(self, name: str, *loaded: str) -> str:
        """A local variable gets what was imported; one instruction may load another one as well."""
        if self._path:
            self._imported[name] = self._path if name != self._path.partition(".")[0] else name
        return self._imported.get(loaded[0], "") if loaded else ""


def _path_of(value: Any) -> str:
    """The dotted name of a global's value; empty if it has none."""
    if isinstance(value, ModuleType):
        return value.__name__
    owner = getattr(value, "__self__", None)
    if type(owner).__module__ in ("random", "numpy.random.mtrand"):  # `from random import shuffle`
        return f"{type(owner).__module__.removesuffix('.mtrand')}.{value.__name__}"
    if type(value).__qualname__ == "_Environ":
        return _ENVIRON
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    return f"{'os' if module in ('posix', 'nt') else module}.{name}" if isinstance(module, str) and name else ""


@cache
def _seeds(file: str) -> bool:
    """Whether a file seeds anything: without a seed, no code relies on the same numbers."""
    try:
        return _SEEDS.search(Path(file).read_bytes()) is not None
    except OSError:  # a notebook's cell
        return False
