"""FlowyML's data folder, readable only by its owner: local runs, bundles, artifacts.

It contains parameters, outputs and logs. So folders get mode 0700 and files 0600, whatever the umask, and existing ones
are changed to it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from flowyml.core.errors import ConfigurationError
from flowyml.core.settings import is_of_another_user

__all__ = ["data_folder", "home", "is_data", "open_private", "private_file", "private_folder"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# FlowyML's own names in its folder: the folder may be a project's, with its own `airflow`.
_OURS = frozenset(("artifacts", "bundles", "cache", "cutovers", "jobs", "kubeflow", "prefect"))
_RECORD = "runs.db"  # and the files that SQLite keeps beside it


def home() -> Path:
    """Return ``FLOWYML_HOME``, or the operating system's data folder for applications; created if possible.

    Raises ``ConfigurationError`` if neither exists, and for another user's folder, whose owner could replace what is in
    it, even code.

    It belongs on a local disk: the record of local runs is a SQLite database in WAL mode, which no network file
    system can share (source: SQLite, *Write-Ahead Logging*).
    """
    folder = _place()
    if is_of_another_user(folder):
        raise ConfigurationError(
            f"FlowyML's data folder {folder} belongs to another user, who could run code as you. "
            f"Set FLOWYML_HOME to a folder of your own."
        )
    _close_to_others(folder)
    return folder


def private_folder(path: Path) -> Path:
    """Create a folder, with missing parents, that only its owner can open; an existing one is closed to others.

    Raises ``OSError``.
    """
    for folder in [*(parent for parent in reversed(path.parents) if not parent.exists()), path]:
        folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    _tighten(path)
    return path


def private_file(path: Path) -> Path:
    """Create an empty file that only its owner can open, if it is missing; an existing one is closed to others.

    Raises ``OSError``, also for a dangling link in its place.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR))
    except FileExistsError:
        if not path.exists():
            raise OSError(errno.ENOENT, "it is a dangling link", str(path)) from None
    _tighten(path)
    return path


def open_private(path: Path, mode: str = "wb") -> IO[Any]:
    """Open a file as ``open`` does, but not by a link; a new one is private from its first byte on."""
    return open(path, mode, opener=_opener, encoding=None if "b" in mode else "utf-8")


def is_data(path: Path) -> bool:
    """Return whether a path is in FlowyML's data folder, and so private, and not in a folder that a user chose."""
    with suppress(ConfigurationError):
        return path.is_relative_to(_place())
    return False


def data_folder(path: Path) -> Path:
    """Create a folder, private if it is in FlowyML's data folder and not in a folder that a user chose."""
    if is_data(path):
        return private_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _place() -> Path:
    try:
        if chosen := os.environ.get("FLOWYML_HOME"):
            return Path(chosen).expanduser().absolute()
        return _data_folder()
    except RuntimeError as error:  # a user that the system does not know, as in some containers
        raise ConfigurationError(
            f"FlowyML has no folder for its data: {error}. Set FLOWYML_HOME to a folder that you can write to."
        ) from error


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, stat.S_IRUSR | stat.S_IWUSR)


@cache  # once in a process: new files of FlowyML are private
def _close_to_others(folder: Path) -> None:
    """Create the folder, or close it to others: it may come from `mkdir`, `cp -r` or a backup.

    A folder that has other content, such as a project, stays open, and so does that content; FlowyML's own is closed.
    If that fails, the folders and files below are private anyway.
    """
    with suppress(OSError):
        if not folder.exists():
            private_folder(folder)
            return
        if not folder.stat().st_mode & _OTHERS:
            return
        entries = list(folder.iterdir())
        ours = [entry for entry in entries if entry.name in _OURS or entry.name.startswith(_RECORD)]
        if len(ours) == len(entries):
            _tighten(folder)
        for entry in ours:
            for path in _tree(entry):
                _tighten(path)


def _tree(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, names, files in os.walk(path):
            yield from (Path(folder, name) for name in (*names, *files))


def _tighten(path: Path) -> None:
    """Take permissions away from others. A link is left alone, and so are files of another user."""
    with suppress(OSError):
        mode = path.lstat().st_mode
        if mode & _OTHERS and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)


def _data_folder() -> Path:
    try:
        from platformdirs import user_data_dir
    except ModuleNotFoundError:  # a worker that has nothing but Python; the same folder on Linux
        return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "flowyml"
    return Path(user_data_dir("flowyml", appauthor=False))
