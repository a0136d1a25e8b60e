"""Folders for files that are read: they live as long as the step that takes the files, or else this process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

__all__ = ["files_here", "new_folder", "note_url", "url_of"]

_urls: dict[Path, str] = {}
_made: ContextVar[list[Path] | None] = ContextVar("flowyml_files", default=None)


@contextmanager
def files_here() -> Iterator[None]:
    """Remove the folders made within this block at its end."""
    folders: list[Path] = []
    token = _made.set(folders)
    try:
        yield
    finally:
        _made.reset(token)
        for folder in folders:
            _remove(folder)


def new_folder() -> Path:
    import tempfile

    folders = _made.get()
    if folders is None:
        return Path(tempfile.mkdtemp(dir=_of_this_process()))
    folders.append(Path(tempfile.mkdtemp(prefix="flowyml-files-")))
    return folders[-1]


def note_url(path: object, url: str) -> None:
    """Remember which artifact a file or folder is a copy of, if the copy lives as long as this process."""
    if isinstance(path, Path) and _made.get() is None:
        _urls[path] = url


def url_of(path: object) -> str | None:
    """Return the URL of the artifact that a file or folder is a copy of, which will be gone when this process ends."""
    return _urls.get(path) if isinstance(path, Path) else None


@cache
def _of_this_process() -> Path:
    """Return a folder that is removed when this process ends, but not when a fork of it ends."""
    import tempfile

    folder, process = Path(tempfile.mkdtemp(prefix="flowyml-files-")), os.getpid()
    atexit.register(lambda: _remove(folder) if os.getpid() == process else None)
    return folder


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
