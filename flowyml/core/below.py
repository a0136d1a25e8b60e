"""Open folders below a root that others may write to, without following links."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flowyml.core.files import refuse_others_link
from flowyml.core.home import is_data

__all__ = ["folders_in", "open_folder", "opened_below"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


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
