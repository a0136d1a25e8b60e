"""Start a bundle: this file is the ``__main__.py`` of every bundle, and imports nothing of FlowyML by itself.

A bundle is unpacked once, into a cache folder that is named by its digest, so that compiled modules are kept and
data files beside the code can be opened. Where no cache folder can be had, it goes to a temporary one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time

MINIMUM = (3, 11)
_UNUSED_DAYS = 30


def unpacked(bundle: str) -> str:
    """The folder that holds the files of a bundle, unpacked on first use."""
    with open(bundle, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for cache in _caches():
        try:
            return _unpack_to(bundle, cache, digest)
        except OSError:
            continue
    return _unpack_for_now(bundle)


def _caches() -> list[str]:
    """Folders of this user, in the order in which they are tried."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return [
        os.path.join(home, "flowyml", "bundles"),
        os.path.join(tempfile.gettempdir(), f"flowyml-{user}", "bundles"),
    ]


def _unpack_to(bundle: str, cache: str, digest: str) -> str:
    target = os.path.join(cache, digest)
    _make_private(cache)
    if os.path.isdir(target):
        os.utime(target)
        return target
    fresh = tempfile.mkdtemp(dir=cache, prefix=".new-")
    try:
        _extract(bundle, fresh)
        os.rename(fresh, target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not os.path.isdir(target):  # else another process was faster, with the same files
            raise
    _forget_unused(cache)
    return target


def _make_private(cache: str) -> None:
    """Code is imported from here, so nobody else may have a hand in it."""
    os.makedirs(cache, mode=0o700, exist_ok=True)
    if not hasattr(os, "getuid"):
        return
    for folder in (os.path.dirname(cache), cache):
        status = os.lstat(folder)
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PermissionError(f"{folder} belongs to others too")


def _extract(bundle: str, folder: str) -> None:
    from zipfile import ZipFile

    with ZipFile(bundle) as archive:
        archive.extractall(folder)


def _unpack_for_now(bundle: str) -> str:
    import atexit

    folder, owner = tempfile.mkdtemp(prefix="flowyml-"), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    _extract(bundle, folder)
    return folder


def _forget_unused(cache: str) -> None:
    """Delete what nothing has been started from for a month."""
    oldest = time.time() - _UNUSED_DAYS * 86400
    for entry in os.scandir(cache):
        try:
            if entry.stat().st_mtime < oldest:
                shutil.rmtree(entry.path, ignore_errors=True)
        except OSError:
            continue


def main() -> int:
    if sys.version_info < MINIMUM:
        sys.exit(f"This bundle needs Python {MINIMUM[0]}.{MINIMUM[1]} or newer; this is {sys.version.split()[0]}.")
    folder = unpacked(sys.path[0])
    sys.path[0] = folder
    from flowyml.runtime.cli import main as command

    return command(folder, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
