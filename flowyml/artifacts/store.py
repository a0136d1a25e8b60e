"""Stores of artifacts. Every write is all or nothing."""

from __future__ import annotations

import errno
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from flowyml.artifacts.hashing import HashingWriter, sha256_of
from flowyml.core.errors import ArtifactError
from flowyml.core.files import folders_in, opened_below, whole_file
from flowyml.core.home import data_folder, is_data

__all__ = [
    "CONTENT",
    "LocalStore",
    "Produce",
    "Store",
    "Written",
    "by_content",
    "checked_key",
    "passing_file",
    "write_hashed",
]

Produce = Callable[[BinaryIO], object]

CONTENT = "{content}"
"""A placeholder in the last part of a key for the beginning of the content's SHA-256."""

_TRIES = 100
_SAFE_KEY = r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*"


class Written(NamedTuple):
    """A stored artifact: its URL, its SHA-256, and its size in bytes."""

    url: str
    sha256: str
    size: int


class Store(ABC):
    """A root under which artifacts are written once, by key, and read back by URL.

    ``url`` is the root without credentials, so it may be shown and recorded.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def write(self, key: str, produce: Produce) -> Written:
        """Store what ``produce`` writes. If it raises, so does this, and nothing is left behind.

        With ``CONTENT`` in the key, it gets a unique name, and no other content replaces it.
        """

    def holds(self, url: str) -> bool:
        """Return whether an artifact's URL is below the root of this store."""
        root, found, key = url.partition(f"{self.url}/")
        return not root and bool(found) and _leads_down(key)

    @abstractmethod
    def local_copy(self, url: str) -> AbstractContextManager[Path]:
        """Return an artifact of this store as a file, which may be removed at the end. Raises ``ArtifactError``."""

    def take(self, source: Store, written: Written, key: str) -> Written:
        """Store a copy of an artifact of this or another store. Its hash is checked when it is read.

        Raises ``ArtifactError``, also for a missing artifact.
        """
        from shutil import copyfileobj

        with source.local_copy(written.url) as path, path.open("rb") as file:
            return self.write(key.replace(CONTENT, written.sha256[:16]), partial(copyfileobj, file))

    def folders(self, root: str, depth: int) -> Iterator[str]:
        """Return the folders ``depth`` levels below a root, as prefixes of keys. Raises ``ArtifactError``."""
        raise ArtifactError(f"{self.url} cannot be listed.")

    def remove(self, folder: str) -> None:
        """Delete a folder and its content, if it exists. Raises ``ArtifactError``."""
        raise ArtifactError(f"Nothing can be deleted from {self.url}.")

    @contextmanager
    def fetch(self, written: Written, *, once: bool = False) -> Iterator[Path]:
        """Yield an artifact of this store as a file, unchanged since it was written; else raise ``ArtifactError``.

        With ``once``, for a file that is mapped and may then be read in part, this process hashes it when it first sees
        it, and again when its inode, its time of modification or that of its change, which cannot be set, differs.
        """
        with self.local_copy(written.url) as path:
            try:
                status = path.stat()
                identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
                is_whole = status.st_size == written.size
                hashed = "" if not is_whole else _known_hash(path, *identity) if once else sha256_of(path)
            except OSError as error:
                raise ArtifactError(f"Artifact {written.url} cannot be read: {error}") from error
            if status.st_size != written.size:
                raise ArtifactError(
                    f"Artifact {written.url} has {status.st_size} bytes instead of the {written.size} that were "
                    f"written. Run its step again."
                )
            if hashed != written.sha256:
                raise ArtifactError(
                    f"Artifact {written.url} has changed: its SHA-256 differs from what was written. Run its step "
                    f"again."
                )
            yield path


class LocalStore(Store):
    """A folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"file://{root.as_posix()}")
        self.root = root

    def write(self, key: str, produce: Produce) -> Written:
        target = self.root / checked_key(key)
        digest, size = "", 0
        try:
            with self._new_file(key, named=lambda: by_content(target.name, digest)) as file:
                digest, size = write_hashed(file, produce)
        except OSError as error:
            if isinstance(error, ArtifactError):
                raise
            what = f"Artifact {target}".replace(CONTENT, "…")  # its digest, which the whole file has
            raise ArtifactError(f"{what} could not be written: {error}") from error
        return Written(f"{self.url}/{by_content(key, digest)}", digest, size)

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            raise ArtifactError(f"Artifact {url} does not exist here: it was deleted, or is on another machine.")
        yield path

    def take(self, source: Store, written: Written, key: str) -> Written:
        """Return a hard link to the same file if possible: files of a store are never written to again.

        Not to a private file where others may read the store: they could not use what they find there.
        """
        key = checked_key(by_content(key, written.sha256))
        if isinstance(source, LocalStore):
            with source.local_copy(written.url) as path:
                if path.is_symlink() or path.stat().st_size != written.size:
                    raise ArtifactError(f"Artifact {written.url} is a link, or not what was written. It is not copied.")
                folder, _, name = key.rpartition("/")
                if is_data(path) == is_data(self.root / key):
                    with suppress(OSError), self.opened(folder, make=True) as opened:
                        os.link(path, name, dst_dir_fd=opened)
                        return Written(f"{self.url}/{key}", written.sha256, written.size)
        return super().take(source, written, key)

    def opened(self, folder: str, *, make: bool = False) -> AbstractContextManager[int]:
        """Open a folder of this store as a descriptor, without following links.

        With ``make``, the folder is created if it does not exist. Raises ``OSError``.
        """
        if make:
            data_folder(self.root)
        return opened_below(self.root, checked_key(folder).split("/") if folder else (), make=make)

    def folders(self, root: str, depth: int) -> Iterator[str]:
        level = [checked_key(root)]
        try:
            for _ in range(depth):
                level = [f"{folder}/{name}" for folder in level for name in self._folders_in(folder)]
        except OSError as error:
            raise ArtifactError(f"{self.url} cannot be listed: {error}") from error
        yield from level

    def _folders_in(self, folder: str) -> list[str]:
        """Return the folders in a folder now; empty for a link."""
        try:
            with self.opened(folder) as opened:
                return folders_in(opened)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return []
            raise

    def remove(self, folder: str) -> None:
        from shutil import rmtree

        above, _, name = checked_key(folder).rpartition("/")
        try:
            with suppress(FileNotFoundError), self.opened(above) as opened:
                for tries_left in range(_TRIES - 1, -1, -1):
                    if name not in folders_in(opened):
                        break
                    try:
                        rmtree(name, dir_fd=opened)
                    except OSError as error:  # another process may be writing into it, or removing it
                        if not tries_left or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                            raise
        except OSError as error:
            raise ArtifactError(f"{self.root / folder} could not be deleted: {error}") from error

    @contextmanager
    def _new_file(self, key: str, named: Callable[[], str]) -> Iterator[BinaryIO]:
        """Yield a file to write to. If another process removes its folder while it is empty, create it again."""
        with ExitStack() as stack:
            for tries_left in range(_TRIES - 1, -1, -1):
                try:
                    folder = stack.enter_context(self.opened(key.rpartition("/")[0], make=True))
                    file = stack.enter_context(whole_file(self.root / key, buffering=0, named=named, folder=folder))
                    break
                except FileNotFoundError:
                    if not tries_left:
                        raise
            yield file


@contextmanager
def passing_file() -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new private file, by its path and open for writing, which is deleted at the end."""
    import tempfile

    handle, name = tempfile.mkstemp(prefix="flowyml-")
    try:
        with open(handle, "wb", buffering=0) as file:  # noqa: PTH123  # a descriptor
            yield Path(name), cast(BinaryIO, file)
    finally:
        Path(name).unlink(missing_ok=True)


def write_hashed(file: BinaryIO, produce: Produce) -> tuple[str, int]:
    """Let ``produce`` write to an unbuffered file; return the SHA-256 and the size of the content."""
    with HashingWriter(file) as writer:
        produce(cast(BinaryIO, writer))
    return writer.sha256, writer.size


def checked_key(key: str) -> str:
    """Return the key if it cannot leave the root, else raise ``ArtifactError``."""
    if not re.fullmatch(_SAFE_KEY, by_content(key, "0")):
        raise ArtifactError(f"An artifact cannot have the key {key!r}. Make it with artifact_key(…).")
    return key


def by_content(key: str, sha256: str) -> str:
    """Replace ``CONTENT`` in a key by the beginning of a hash."""
    return key.replace(CONTENT, sha256[:16])


def _leads_down(key: str) -> bool:
    """Return whether a key is below the root. Less strict than ``checked_key``, since engines store files too."""
    return "\\" not in key and all(part.strip() not in ("", ".", "..") for part in key.split("/"))


@lru_cache(4096)
def _known_hash(path: Path, *identity: int) -> str:
    return sha256_of(path)
