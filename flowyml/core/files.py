"""Write files that appear under their name only when complete, and open folders, where others may write too."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from flowyml.core.home import is_data

__all__ = [
    "end_of", "folders_in", "is_there", "open_folder", "opened_below", "refuse_others_link", "unfinished_beside",
    "unfinished_name", "whole_file", "write_whole",
]  # fmt: skip

_ALL, _OWNER = 0o666, 0o600
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def whole_file(
    path: Path,
    mode: int | None = None,
    *,
    buffering: int = -1,
    named: Callable[[], str] | None = None,
    folder: int | None = None,
) -> Iterator[BinaryIO]:
    """Yield a file to write to; at the end of the block it atomically replaces what is at ``path``.

    Until then it is in the same folder under a name that no other user can guess, and is always created anew: FlowyML
    never writes through a link planted under that name or the file's own. If the block raises, nothing is left.
    ``mode`` is subject to the umask, as usual; by default everyone may read the file, or only the owner if it is among
    FlowyML's data. ``buffering`` is that of ``open``. ``named`` returns another name in that folder, and is called at
    the end of the block. ``folder`` is the descriptor of the file's folder, if that was opened before.

    Raises ``OSError``.
    """
    fresh = unfinished_beside(path) if folder is None else Path(unfinished_name())
    target = path if folder is None else Path(path.name)
    mode = mode if mode is not None else _OWNER if is_data(path) else _ALL
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
    try:
        with open(number, "wb", buffering=buffering) as file:  # noqa: PTH123  # a descriptor
            yield file
        final = target.with_name(named()) if named else target
        os.replace(fresh, final, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=folder)
        raise


def unfinished_beside(path: Path) -> Path:
    """Return a path in the same folder for an unfinished file."""
    return path.with_name(unfinished_name())


def unfinished_name() -> str:
    """Return a name for an unfinished file, which ``core.pruning`` recognizes and no other user can guess."""
    return f".new-{os.urandom(8).hex()}"


def is_there(path: Path) -> bool:
    """Return whether a path exists; False if a folder above it may not be searched, as after `sudo -u`."""
    try:
        return path.exists()
    except PermissionError:
        return False


def refuse_others_link(folder: Path) -> None:
    """Raise ``OSError`` for a folder that is another user's link, which leads where they want."""
    if folder.is_symlink() and folder.lstat().st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, "its folder is a link that belongs to another user", str(folder))


def write_whole(path: Path, data: bytes, mode: int | None = None) -> None:
    with whole_file(path, mode) as file:
        file.write(data)


def end_of(path: Path, limit: int) -> bytes:
    """Return at most the last ``limit`` bytes of a file, however long it is; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit)
    except OSError:
        return b""


@contextmanager
def opened_below(root: Path, parts: Sequence[str], *, make: bool = False, ours: bool = False) -> Iterator[int]:
    """Yield a folder below a root as a descriptor, for the ``dir_fd`` of functions of ``os``.

    The root may be a link of the user's own; below it, every name is that of a real folder. With ``make``, missing
    folders are created; with ``ours``, each must belong to this user. Raises ``OSError``.
    """
    refuse_others_link(root)
    current = os.open(root, _FOLDER)
    try:
        for part in parts:
            if part in ("", ".", "..") or "/" in part:
                raise OSError(errno.ENOENT, "it is not below the root", part)
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700 if is_data(root) else 0o777, dir_fd=current)
            following = open_folder(part, current)
            os.close(current)
            current = following
            if ours and os.fstat(current).st_uid != os.geteuid():
                raise OSError(errno.ENOENT, "it belongs to another user", part)
        yield current
    finally:
        os.close(current)


def open_folder(name: str, within: int) -> int:
    """Return a descriptor of the folder with this name in another one. Raises ``OSError`` for a link."""
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=within)


def folders_in(folder: int) -> list[str]:
    """Return the names of the folders in a folder, without links, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode))
