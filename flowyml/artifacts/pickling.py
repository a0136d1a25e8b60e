"""Pickles that mean the same in a script and on the workers that import it.

A script's class belongs to ``__main__`` where the script runs, and to a module named after its file on a worker. A
pickle finds it by either name. A notebook has no file, so its classes travel by value, with cloudpickle.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, reduce
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

from flowyml.artifacts.optional import require
from flowyml.core.errors import ConfigurationError
from flowyml.core.modules import shipped_name
from flowyml.core.settings import read_settings, settings_file

__all__ = [
    "Unpickler", "as_step", "decide_on_pickles", "named", "pickle_by_reference", "pickle_by_value", "pickles_decided",
    "prefers_references", "read_pickle", "set_worker_main", "why_no_pickles",
]  # fmt: skip

_VARIABLE = "FLOWYML_ALLOW_PICKLE"
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


_decided: ContextVar[tuple[str | None] | None] = ContextVar("flowyml_pickles", default=None)


def why_no_pickles() -> str | None:
    """Say what forbids pickles here; None if nothing does.

    That is the decision for the run, else the environment, else ``allow_pickle = false`` in the settings. Raises
    ``ConfigurationError`` for a word that is neither yes nor no, and for settings that cannot be read.
    """
    if decided := _decided.get():
        return decided[0]
    if word := os.environ.get(_VARIABLE):
        return None if _meant(word, _VARIABLE) else f"{_VARIABLE}={word}"
    file = settings_file()
    setting = read_settings(file).get("allow_pickle", True) if file else True
    return None if _meant(setting, f"{file}: allow_pickle") else f"allow_pickle = false in {file}"


def decide_on_pickles() -> str | None:
    """Decide for a whole run, whose code may change the working folder. An error forbids pickles."""
    try:
        return why_no_pickles()
    except ConfigurationError as error:
        return str(error)


@contextmanager
def pickles_decided(reason: str | None) -> Iterator[None]:
    """Apply a result of ``decide_on_pickles`` within this context, and in threads that copy it."""
    token = _decided.set((reason,))
    try:
        yield
    finally:
        _decided.reset(token)


def _meant(word: object, place: str) -> bool:
    meant = word if isinstance(word, bool) else _WORDS.get(str(word).strip().lower())
    if meant is None:
        raise ConfigurationError(f"{place} is {word!r}. Write true or false.")
    return meant


_PROTOCOL = 5
_is_worker = False
_worker_main: str | None = None


def set_worker_main(module: str | None) -> None:
    """Record that this process runs a bundle, and which of its modules was ``__main__`` where the bundle was made."""
    global _is_worker, _worker_main
    _is_worker, _worker_main = True, module or _worker_main


def prefers_references() -> bool:
    """Return whether other processes can import the modules of this one: not those of a notebook.

    A worker's own ``__main__`` may be any program that runs a bundle, such as Airflow's command; a program that was
    started for a bundle has a spec.
    """
    if _is_worker or shipped_name("__main__") is not None:
        return True
    return getattr(sys.modules["__main__"], "__spec__", None) is not None


def pickle_by_reference(value: Any, file: BinaryIO) -> None:
    """Pickle classes and functions by name; fails for those without one, such as a lambda."""
    pickle.Pickler(file, _PROTOCOL).dump(value)


def pickle_by_value(value: Any, file: BinaryIO) -> None:
    """Pickle with cloudpickle, which includes what cannot be imported."""
    _value_pickler()(file, _PROTOCOL).dump(value)


@cache
def _value_pickler() -> Any:
    base: Any = require("cloudpickle").Pickler

    class ValuePickler(base):  # type: ignore[misc]  # cloudpickle is untyped, and imported late
        """Refers by name if possible: a script's class, pickled by value, would be a new class for each reader."""

        def reducer_override(self, item: Any) -> Any:
            return item.__qualname__ if _is_named_in_script(item) else super().reducer_override(item)

    return ValuePickler


def _is_named_in_script(item: Any) -> bool:
    """Return whether an object is a class or function that the running script has under its name."""
    if not isinstance(item, type | FunctionType) or item.__module__ != "__main__" or not prefers_references():
        return False
    try:
        return reduce(getattr, item.__qualname__.split("."), sys.modules["__main__"]) is item
    except AttributeError:
        return False


def named(module: str, qualname: str) -> Any:
    """Return the class or function of that name: a bundle's pickles refer to the user's classes by it."""
    return reduce(getattr, qualname.split("."), import_module(_here(module)))


def as_step(function: Any, name: str) -> Any:
    """Return the function as a step again: a bundle's pickles refer to steps by it, without options."""
    return named("flowyml", "step")(name=name)(function)


def read_pickle(path: Path) -> Any:
    """Read a pickle of either kind, here or in another process."""
    with path.open("rb") as file:
        return Unpickler(file).load()


class Unpickler(pickle.Unpickler):
    """Finds the classes of a script both where it is ``__main__`` and where it is imported.

    ``main`` is the name of the module that was ``__main__`` where the pickle was written.
    """

    def __init__(self, file: BinaryIO, *, main: str | None = None) -> None:
        super().__init__(file)
        self._main = main
        self._sets: dict[int, set[Any] | frozenset[Any]] = {}

    def persistent_load(self, pid: tuple[Any, ...]) -> set[Any] | frozenset[Any]:
        """Return a set of a bundle's pickle, by its number; its first occurrence has its type and its items."""
        number, *contents = pid
        if contents:
            mutable, items = contents
            self._sets[number] = set(items) if mutable else frozenset(items)
        return self._sets[number]

    def find_class(self, module: str, name: str) -> Any:
        """Find the class or function that a pickle names."""
        written_in = self._main if module == "__main__" and self._main else module
        return super().find_class(_here(written_in), name)


def _here(module: str) -> str:
    script = shipped_name("__main__")
    if module == "__main__" and _worker_main and _worker_main != script:
        return _worker_main
    return "__main__" if module == script else module
