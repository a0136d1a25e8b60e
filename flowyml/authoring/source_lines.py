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

__all__ = ["SourceLine", "adds_source_line", "errors_at", "line_of", "put_line", "users_line"]

SourceLine = tuple[str, int]
"""A file and a line in it."""


@contextmanager
def errors_at(line: SourceLine | None) -> Iterator[None]:
    """Add this line to a ``DefinitionError`` that is raised in the block, unless the error has a line already.

    If the error passed through the user's code, the line in that code is added instead.
    """
    try:
        yield
    except DefinitionError as error:
        causes = [error, error.__cause__] if error.__cause__ else [error]
        raised_at = (_raised_at(cause.__traceback__) for cause in causes)
        put_line(error, next(filter(None, raised_at), line))
        raise


def adds_source_line(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that users call: its ``DefinitionError`` names the line of the call."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except DefinitionError as error:
            put_line(error, users_line())
            raise

    return wrapped


def users_line() -> SourceLine | None:
    """Return the line outside FlowyML that is being executed."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not _is_ours(frame):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def line_of(function: object) -> SourceLine | None:
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if isinstance(code, CodeType) else None


def _raised_at(trace: TracebackType | None) -> SourceLine | None:
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


def put_line(error: DefinitionError, line: SourceLine | None) -> None:
    """Add a line to an error, unless the error has one already."""
    if line is not None and not error.place:
        error.place = _format_line(line)
        error.args = (f"{error} ({error.place})",)


def _format_line(line: SourceLine) -> str:
    file, number = line
    if not Path(file).is_file():  # a cell, a prompt, python -c
        return f"line {number} of {'the cell' if 'ipykernel' in file or 'ipython' in file else file}"
    path = Path(file).resolve()
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}, line {number}"
