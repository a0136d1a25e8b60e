"""Remove FlowyML's files and folders, below a folder in which others may have left links and files.

No link on the way is followed, no file of another user is removed, and items that were used meanwhile are restored:
each item is first renamed to something unguessable, then checked, then removed.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from flowyml.core.files import open_folder, opened_below

__all__ = ["Found", "files_below", "has_others", "names_in", "remove", "remove_empty", "remove_leftovers"]

_GONE = ".gone-"
_LEFT_AFTER = 3600  # seconds after which another process is assumed to have died while removing it
_DEEPEST = 100  # folders in folders, each of which takes a descriptor
_ELSEWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Found(NamedTuple):
    """A file: the parts of its path below the root, its bytes, and when it was last written, in seconds since 1970."""

    parts: tuple[str, ...]
    size: int
    modified: float


def names_in(root: Path, *parts: str) -> list[str]:
    """Return the names in a folder below a root; empty if the folder does not exist or is reached through a link."""
    with suppress(OSError), _opened(root, parts) as folder:
        return sorted(name for name in os.listdir(folder) if not name.startswith(_GONE))  # noqa: PTH208  # a descriptor
    return []


def files_below(root: Path, *parts: str) -> Iterator[Found]:
    """Yield the files at a path below a root, which may be a file itself: all that are this user's, without links."""
    with suppress(OSError), _opened(root, parts[:-1]) as folder:
        yield from _files(folder, parts[-1], parts, 0)


def has_others(root: Path, *parts: str) -> bool:
    """Return whether a folder below a root contains another user's files or folders."""
    try:
        with _opened(root, parts[:-1]) as folder:
            return _has_others(folder, parts[-1], 0)
    except OSError as error:
        return error.errno not in _ELSEWHERE


def remove(root: Path, *parts: str, unless_since: float | None = None) -> int:
    """Remove a file, or a folder with its content, and return its size in bytes.

    Files that were written or touched since ``unless_since`` stay, and so do folders with such a file, files of another
    user, and a link on the way. Links in a folder are removed, but not their targets. A folder with another user's
    files stays with them.

    Raises ``OSError`` if something cannot be removed.
    """
    try:
        with _opened(root, parts[:-1]) as folder:
            return _take_away(folder, parts[-1], unless_since)
    except OSError as error:
        if error.errno in _ELSEWHERE:
            return 0
        raise


def remove_empty(root: Path, *parts: str) -> bool:
    """Remove an empty folder, which may be created again at any time; False if it stays."""
    try:
        with _opened(root, parts[:-1]) as folder:
            if not _ours(folder, parts[-1]):
                return False
            os.rmdir(parts[-1], dir_fd=folder)
            return True
    except OSError:
        return False


def remove_leftovers(root: Path, *parts: str) -> int:
    """Finish the removals of a process that died, in a folder; return the bytes."""
    freed = 0
    with suppress(OSError), _opened(root, parts) as folder:
        for name in os.listdir(folder):  # noqa: PTH208  # a descriptor
            if name.startswith(_GONE) and _ours(folder, name) and _changed(folder, name) < time.time() - _LEFT_AFTER:
                freed += _delete(folder, name, 0)
    return freed


def _opened(root: Path, parts: tuple[str, ...]) -> AbstractContextManager[int]:
    return opened_below(root, parts, ours=True)


def _files(folder: int, name: str, parts: tuple[str, ...], depth: int) -> Iterator[Found]:
    with suppress(OSError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not _is_ours(status):
            return
        if stat.S_ISREG(status.st_mode):
            yield Found(parts, status.st_size, status.st_mtime)
        if not stat.S_ISDIR(status.st_mode) or depth > _DEEPEST:
            return
        inner = open_folder(name, folder)
        try:
            for entry in sorted(os.listdir(inner)):  # noqa: PTH208  # a descriptor
                yield from _files(inner, entry, (*parts, entry), depth + 1)
        finally:
            os.close(inner)


def _has_others(folder: int, name: str, depth: int) -> bool:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not _is_ours(status) or depth > _DEEPEST:
        return True
    if not stat.S_ISDIR(status.st_mode):
        return False
    inner = open_folder(name, folder)
    try:
        return any(_has_others(inner, entry, depth + 1) for entry in os.listdir(inner))  # noqa: PTH208  # a descriptor
    finally:
        os.close(inner)


def _take_away(folder: int, name: str, unless_since: float | None) -> int:
    if name in ("", ".", "..") or "/" in name or not _ours(folder, name):
        return 0
    gone = f"{_GONE}{os.urandom(8).hex()}"
    try:
        os.rename(name, gone, src_dir_fd=folder, dst_dir_fd=folder)
    except FileNotFoundError:  # another process was faster
        return 0
    status = os.stat(gone, dir_fd=folder, follow_symlinks=False)
    if not _is_ours(status) or (unless_since is not None and _newest(folder, gone, status) >= unless_since):
        try:
            os.rename(gone, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:  # it was created again in the meantime
            _delete(folder, gone, 0)
        return 0
    return _delete(folder, gone, 0)


def _newest(folder: int, name: str, status: os.stat_result) -> float:
    """Return the last time of writing of a file, or of a folder and the files in it."""
    return max([status.st_mtime, *(file.modified for file in _files(folder, name, (name,), 0))])


def _delete(folder: int, name: str, depth: int) -> int:
    """Delete an item, and return its bytes."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if not _is_ours(status):
        return 0
    if not stat.S_ISDIR(status.st_mode):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        return status.st_size if status.st_nlink == 1 else 0  # else another name of it stays
    if depth > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, f"its folders are nested more than {_DEEPEST} deep", name)
    freed = 0
    with suppress(FileNotFoundError):
        inner = open_folder(name, folder)
        try:
            for entry in os.listdir(inner):  # noqa: PTH208  # a descriptor
                freed += _delete(inner, entry, depth + 1)
        finally:
            os.close(inner)
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # files of another user's are in it
                raise
    return freed


def _ours(folder: int, name: str) -> bool:
    try:
        return _is_ours(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()


def _changed(folder: int, name: str) -> float:
    """Return the time of the last change of a file's name; the file's time of modification does not show it."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ctime
