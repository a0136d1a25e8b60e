"""Tracebacks as the author of a step wants to read them: their own frames, without FlowyML's."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path

__all__ = ["described", "left_behind", "traceback_text"]

_STDLIB = Path(os.__file__).parent
_IMPORTING = ("<frozen importlib", f"{_STDLIB}/importlib/", str(Path(__file__).with_name("loading.py")))
_MACHINERY = (*_IMPORTING, f"{Path(__file__).parents[1]}/", f"{_STDLIB}/asyncio/", f"{_STDLIB}/concurrent/")


def described(error: BaseException) -> str:
    """Return ``ValueError: message``."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # a __str__ of the user's that fails in turn
        return name
    return f"{name}: {text}" if text else name


def left_behind(error: BaseException, bundle: Path) -> str:
    """Return a hint about a file or module that is missing because the bundle, unpacked here, does not contain it."""
    code, subject = bundle / "code", "It"
    missing = error.filename if isinstance(error, FileNotFoundError) else None
    if isinstance(error, ModuleNotFoundError) and (module := _imported_by_name(error)):
        missing, subject = f"{code}/{module.replace('.', '/')}.py", f"If {module!r} is your own, it"
    if not isinstance(missing, str) or not Path(missing).is_relative_to(code):
        return ""
    about = json.loads((bundle / "bundle.json").read_bytes())
    home = code / about.get("folder", "")  # globs count from the folder of the pipeline's file
    if not Path(missing).is_relative_to(home):
        name = Path(missing).relative_to(code).as_posix()
        return f". {name} is not in the bundle: include=[…] takes only files beside the pipeline's own"
    name = Path(missing).relative_to(home).as_posix()
    return f". {subject} is not in the bundle: give the pipeline include=[{name!r}]"


def _imported_by_name(error: ModuleNotFoundError) -> str:
    """Return the missing module that ``importlib.import_module`` was called with, else an empty text.

    A bundle has the modules that ``import`` statements name.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is import_module.__code__:
            module = resolve_name(frame.f_locals["name"], frame.f_locals["package"])
            if error.name and f"{module}.".startswith(f"{error.name}."):
                return module
    return ""


def traceback_text(error: BaseException, code: Path | None = None) -> str:
    """Return the traceback from the first frame of the user's code on; files under ``code`` by their relative paths."""
    whole = traceback.TracebackException.from_exception(error)
    for part in _parts(whole):
        _cut(part.stack)
        for frame in part.stack:
            _ = frame.line  # read from the file while its path is still the real one
            frame.filename = frame.filename.removeprefix(f"{code}/" if code else "")
    return "".join(whole.format())


def _parts(whole: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield an exception with its causes, contexts and group members."""
    todo, seen = [whole], set[int]()
    while todo:
        part = todo.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            todo += [other for other in (part.__cause__, part.__context__, *(part.exceptions or ())) if other]


def _cut(stack: traceback.StackSummary) -> None:
    """Drop the frames above the user's, and those of importing between them.

    Without a user's frame, all stay, because then the fault is ours.
    """
    own = [number for number, frame in enumerate(stack) if not frame.filename.startswith(_MACHINERY)]
    if own:
        stack[:] = [frame for frame in stack[own[0] :] if not frame.filename.startswith(_IMPORTING)]
