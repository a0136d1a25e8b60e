"""Unpack bundles. This module imports nothing of FlowyML: a bundle is started with it, before FlowyML can be imported.

A bundle is unpacked once, into a cache folder named by its digest, so that compiled modules are stored and data files
beside the code can be opened. If no cache folder is writable, it goes to a temporary one.

Imports that only unpacking needs are local: most starts find the bundle unpacked.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["caches", "claim", "unpack_bundle", "unpack_bundle_bytes"]

_UNUSED_DAYS = 30
_TRIES = 10
_held: dict[str, int] = {}


def unpack_bundle(bundle: str | Path) -> Path:
    """Return the folder of a bundle's files, unpacked on first use. The bundle is read once.

    A folder is that of an unpacked bundle already.
    """
    path = Path(bundle)
    return path if path.is_dir() else unpack_bundle_bytes(path.read_bytes())


def unpack_bundle_bytes(*parts: bytes) -> Path:
    """Return the same for a bundle already read: these bytes are hashed, compared and unpacked.

    Of several parts, all files are in one folder.
    """
    import hashlib

    digest = hashlib.sha256()
    for data in parts:
        digest.update(data)
    for cache in caches():
        try:
            return _unpack_into(cache, parts, digest.hexdigest())
        except OSError:  # no such home, read-only, full, or not only ours
            continue
    return _unpack_temporarily(parts)


def caches() -> Iterator[Path]:
    """Yield folders of this user for bundles, in order of preference."""
    homes = [Path(os.environ.get("XDG_CACHE_HOME") or "."), Path(os.path.expanduser("~/.cache"))]  # noqa: PTH111  # raises nothing
    for home in homes:
        if home.is_absolute():
            yield home / "flowyml"
            break
    import tempfile

    yield Path(tempfile.gettempdir(), f"flowyml-{os.getuid()}")


def _unpack_into(cache: Path, parts: Sequence[bytes], digest: str) -> Path:
    _make_private(cache)
    target = cache / digest
    for _ in range(_TRIES):
        if _hold(target) and _is_whole(target, parts):
            os.utime(target)
            return target
        _make(cache, target, parts)
    raise OSError(f"{target} keeps changing after it was unpacked")


def _make(cache: Path, target: Path, parts: Sequence[bytes]) -> None:
    import shutil
    import tempfile

    fresh = Path(tempfile.mkdtemp(dir=cache, prefix=".new-"))
    try:
        _extract(parts, fresh)
        if target.is_dir() and not _is_whole(target, parts):  # a tool that removes old cache files was here
            target.rename(f"{fresh}.old")
        fresh.rename(target)
    except OSError:
        if not _is_whole(target, parts):  # else another process was faster, with the same files
            raise
    finally:
        for path in (fresh, Path(f"{fresh}.old")):
            shutil.rmtree(path, ignore_errors=True)
    _forget_unused(cache)


def _hold(folder: Path) -> bool:
    """Lock a folder for as long as this process and its forks live; False if the folder does not exist.

    Locked code is not removed. Without locks, its age decides.
    """
    name = str(folder)
    if name in _held and not _is_at(_held[name], folder):
        os.close(_held.pop(name))
    if name not in _held and (descriptor := _locked(folder, shared=True)) is not None:
        _held[name] = descriptor
    return _is_at(_held[name], folder) if name in _held else folder.is_dir()


def _locked(folder: Path, *, shared: bool) -> int | None:
    """Return a descriptor with the lock of a folder; None without a folder, or without locks.

    Raises ``BlockingIOError`` if another process has the lock, unless ``shared``, which waits.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except OSError:
        return False


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Lock an unpacked bundle; yield True if no process uses it, nor can begin to during the block."""
    try:
        descriptor = _locked(folder, shared=False)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_whole(folder: Path, parts: Sequence[bytes]) -> bool:
    """Return whether the folder has all files of the bundle, byte by byte, and other users cannot have added a file."""
    if not _is_own(folder):
        return False
    from io import BytesIO
    from zipfile import ZipFile

    try:
        for data in parts:
            with ZipFile(BytesIO(data)) as archive:
                if any((folder / name).read_bytes() != archive.read(name) for name in archive.namelist()):
                    return False
    except OSError:
        return False
    return True


def _is_own(folder: Path) -> bool:
    """Return whether only this user can write to a folder; the cache may have been open to others before."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    is_closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and is_closed


def _make_private(cache: Path) -> None:
    """Allow only this user access: the folder has the user's code and data, and the code is run."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    if {cache.lstat().st_uid, cache.stat().st_uid} != {os.getuid()}:
        raise PermissionError(f"{cache} belongs to another user")
    if cache.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        cache.chmod(0o700)


def _extract(parts: Sequence[bytes], folder: Path) -> None:
    from io import BytesIO
    from zipfile import ZipFile

    for data in parts:
        with ZipFile(BytesIO(data)) as archive:
            archive.extractall(folder)


def _unpack_temporarily(parts: Sequence[bytes]) -> Path:
    import atexit
    import shutil
    import tempfile

    folder, owner = Path(tempfile.mkdtemp(prefix="flowyml-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    _extract(parts, folder)
    return folder


def _forget_unused(cache: Path) -> None:
    """Delete what was not used for a month."""
    import shutil

    oldest = time.time() - _UNUSED_DAYS * 86400
    for entry in cache.iterdir():
        try:
            if entry.lstat().st_mtime < oldest:
                with claim(entry) as is_free:
                    if is_free:
                        shutil.rmtree(entry, ignore_errors=True)
        except OSError:  # another process was faster
            continue
