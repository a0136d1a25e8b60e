"""Add the line of the fault to errors in a pipeline: ``train.py, line 12``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import ParamSpec, TypeVar

from flowyml.core.errors import DefinitionError
from flowyml.core.modules import is_installed

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Place", "errors_at", "names_its_place", "place_of", "put_place", "users_line"]

Place = tuple[str, int]
"""A file and a line in it."""


@contextmanager
def errors_at(place: Place | None) -> Iterator[None]:
    """Add this line to a ``DefinitionError`` that is raised in the block, unless the error has a line already.

    If the error passed through the user's code, the line in that code is added instead.
    """
    try:
        yield
    except DefinitionError as error:
        causes = [error, error.__cause__] if error.__cause__ else [error]
        lines = (_raised_at(cause.__traceback__) for cause in causes)
        put_place(error, next((line for line in lines if line), place))
        raise


def names_its_place(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that users call: its ``DefinitionError`` names the line of the call."""

    @functools.wraps(function)
    def placing(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except DefinitionError as error:
            put_place(error, users_line())
            raise

    return placing


def users_line() -> Place | None:
    """Return the line outside FlowyML that is being executed."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not _is_ours(frame):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def place_of(function: object) -> Place | None:
    """Return the line where a function is defined."""
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if isinstance(code, CodeType) else None


def _raised_at(trace: TracebackType | None) -> Place | None:
    """Return the innermost line outside of FlowyML and installed packages."""
    found = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not _is_ours(trace.tb_frame) and not is_installed(Path(file)):
            found = (file, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return isinstance(name, str) and name.startswith("flowyml.")


def put_place(error: DefinitionError, place: Place | None) -> None:
    """Add a line to an error, unless the error has one already."""
    if place is not None and not error.place:
        error.place = _shown(place)
        error.args = (f"{error} ({error.place})",)


def _shown(place: Place) -> str:
    file, line = place
    if not Path(file).is_file():  # a cell, a prompt, python -c
        return f"line {line} of {'the cell' if 'ipykernel' in file or 'ipython' in file else file}"
    path = Path(file).resolve()
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}, line {line}"
