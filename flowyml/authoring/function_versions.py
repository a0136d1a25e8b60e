"""Detect whether a function that is pickled by value still has the same code, by a digest of its source.

The pickle does not show it: it also contains the state of closures and globals, which changes while a program runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from flowyml.authoring.steps import Step
from flowyml.core.modules import shipped_name

__all__ = ["bytecode", "code_version", "names_in"]

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), type(...))


def code_version(function: Any) -> str:
    """Return the SHA-256 of a function's code, of functions that are pickled with it, and of constants.

    In hexadecimal; the same in every process of one Python version. Empty for a callable without code of its own.
    """
    parts = list(_parts(function, set()))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest() if parts else ""


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    while not isinstance(value, FunctionType):
        inner = value.function if isinstance(value, Step) else getattr(value, "func", getattr(value, "__func__", None))
        if inner is None:
            return
        value = inner
    if id(value) in seen:
        return
    seen.add(id(value))
    yield from bytecode(value.__code__)
    held = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
    for name in sorted(names_in(value.__code__) | held.keys()):
        try:
            found = held[name].cell_contents if name in held else value.__globals__[name]
        except (KeyError, ValueError):  # a builtin, an attribute, or a cell that is not filled yet
            continue
        if _is_constant(found):
            yield f"{name} = {found!r}"
        elif isinstance(found, FunctionType | Step) and (name in held or not _stands_in_file(found)):
            yield name
            yield from _parts(found, seen)


def bytecode(code: CodeType) -> Iterator[str]:
    yield f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from bytecode(constant)
        elif isinstance(constant, frozenset):  # of ``in {…}``, in an order that differs from process to process
            yield f"{sorted(map(repr, constant))}"
        else:
            yield repr(constant)


def names_in(code: CodeType) -> set[str]:
    """Return the globals and attributes that code names, also in functions within it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(names_in, inner))


def _is_constant(value: object) -> bool:
    return type(value) in _CONSTANTS or (type(value) is tuple and all(map(_is_constant, value)))


def _stands_in_file(value: Any) -> bool:
    """Return whether the code is in a file that workers have, or one that travels and is compared as a file."""
    module = value.function.__module__ if isinstance(value, Step) else value.__module__
    return shipped_name(module) is not None
