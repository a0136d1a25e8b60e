"""Files, in folders and in stores that fsspec reaches: ``s3://…``, ``gs://…``, ``sftp://…``."""

from __future__ import annotations

import posixpath
import shutil
from pathlib import Path
from typing import Any

from flowyml import step
from flowyml.core.urls import redact_url
from flowyml.steps.needed import needed
from flowyml.steps.waiting import wait_for

__all__ = ["copy_files", "move_files", "wait_for_file"]

_CHUNK = 4 * 1024 * 1024  # bytes


@step
def copy_files(source: str, target: str, options: dict[str, Any] | None = None) -> list[str]:
    """Copy a file, all matches of a glob, or the content of a folder, and return the copies' URLs.

    Both sides are paths or URLs of fsspec. ``target`` is the new file's name if one file is copied and it does not end
    in ``/``; else a folder, in which each file keeps its place below the part of ``source`` without ``*``. Credentials
    come from the environment: ``copy_files.options(secrets={"AWS_SECRET_ACCESS_KEY": "lake/secret"})``. ``options`` are
    fsspec's for both sides, such as ``endpoint_url``. Raises ``FileNotFoundError`` if nothing matches, and
    ``ValueError``, before the first copy, if a copy would overwrite a file of ``source``. Needs the package of the
    store, such as ``s3fs`` or ``gcsfs``.
    """
    return [there for _, there in _copy(source, target, options or {})]


@step
def move_files(source: str, target: str, options: dict[str, Any] | None = None) -> list[str]:
    """Copy as ``copy_files`` does, then remove what was copied. Nothing is removed before all copies exist."""
    pairs = _copy(source, target, options or {})
    system, _ = _opened(source, options or {})
    for path, _ in pairs:
        system.rm_file(path)
    return [there for _, there in pairs]


@step
def wait_for_file(
    path: str, poll_interval: float = 10, patience: float = 3600, options: dict[str, Any] | None = None
) -> list[str]:
    """Wait until a file exists, or any match of a glob, and return what was found.

    ``poll_interval`` and ``patience`` are in seconds; waiting occupies a worker. Raises ``TimeoutError``.
    """
    system, place = _opened(path, options or {})

    def poll(remaining: float) -> list[str] | None:
        system.invalidate_cache()
        if "*" not in place:
            return [system.unstrip_protocol(place)] if system.exists(place) else None
        return [system.unstrip_protocol(path) for path in sorted(system.glob(place))] or None

    return wait_for(redact_url(path), poll, poll_interval, patience)


def _copy(source: str, target: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    """Copy files; return pairs of a path in the source's file system and the URL of its copy."""
    here, pattern = _opened(source, options)
    there, place = _opened(target, options)
    files, root = _files(here, pattern, source)
    is_folder = target.endswith("/") or len(files) > 1 or files != [pattern]
    goals = [(path, posixpath.join(place, _below(path, root)) if is_folder else place) for path in files]
    originals = {_identity(here, path) for path in files} if here == there else set()
    for path, goal in goals:
        if _identity(there, goal) in originals:
            raise ValueError(
                f"{redact_url(source)} is not copied to {redact_url(target)}: {path} would overwrite {goal}, which is "
                "also a file to copy. Choose a target outside the source."
            )
    pairs = []
    for path, goal in goals:
        there.makedirs(posixpath.dirname(goal), exist_ok=True)
        with here.open(path, "rb") as read, there.open(goal, "wb") as write:
            shutil.copyfileobj(read, write, _CHUNK)
        if here.size(path) != there.size(goal):
            raise OSError(f"{redact_url(source)}: the copy of {path} has another size than the file.")
        print(f"{path} -> {goal}")
        pairs.append((path, there.unstrip_protocol(goal)))
    return pairs


def _identity(system: Any, path: str) -> object:
    """Return the identity of the file at a path.

    On the machine's own file system, links to a file have its identity.
    """
    if "local" in system.protocol and Path(path).exists():
        status = Path(path).stat()
        return status.st_dev, status.st_ino
    return system.unstrip_protocol(path)


def _files(system: Any, pattern: str, shown_as: str) -> tuple[list[str], str]:
    """Return the matching files, and the folder below which they keep their relative paths."""
    if "*" in pattern:
        paths = sorted(path for path in system.glob(pattern) if system.isfile(path))
        root = posixpath.dirname(pattern.partition("*")[0])
    elif system.isdir(pattern):
        paths, root = sorted(system.find(pattern)), pattern.rstrip("/")
    else:
        paths, root = [pattern] if system.exists(pattern) else [], posixpath.dirname(pattern)
    if not paths:
        raise FileNotFoundError(f"The file {redact_url(shown_as)} does not exist.")
    return paths, root


def _below(path: str, root: str) -> str:
    """Return a path below a folder. A store accepts any name, but a name must not lead out of the target folder."""
    name = path.removeprefix(root).lstrip("/")
    if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name:
        raise ValueError(f"{path!r} is not copied: its name would lead out of the folder.")
    return name


def _opened(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    core = needed("fsspec.core", "fsspec", "a step with files")
    try:
        system, path = core.url_to_fs(url, **_of(url, options))
    except ImportError as error:
        raise ImportError(
            f"{redact_url(url)} needs a package where the step runs, which is not installed there: {error}"
        ) from error
    return system, path


def _of(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a store.

    The machine's own file system has none. fsspec's cache of instances is not used.
    """
    return {**options, "skip_instance_cache": True} if "://" in url and not url.startswith("file://") else {}
