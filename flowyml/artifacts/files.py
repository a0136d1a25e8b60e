"""Files and folders as outputs: a file as it is, a folder as a tar archive that is the same for the same content.

Files are copied when read, since a step may change its copy. An archive may come from elsewhere, so it is not trusted:
only regular files and folders are unpacked, none outside its folder, and no more bytes than the archive has.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from flowyml.artifacts.folders import new_folder
from flowyml.core.errors import ArtifactError
from flowyml.core.files import unfinished_beside

__all__ = ["place_file", "place_folder", "safe_name", "state_of", "write_file", "write_folder"]

MOST_ENTRIES = 100_000
"""The most files and folders in a folder that is an output."""

_LONGEST_NAME = 200  # bytes, of the 255 that file systems take
_BLOCK = 1 << 20


def write_file(path: Path, file: BinaryIO) -> None:
    try:
        with path.open("rb") as source:
            shutil.copyfileobj(source, file, _BLOCK)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error


def state_of(path: Path) -> str:
    """Return the name, sizes and times of a file, or of all in a folder: they change when what is there does."""
    paths = [path, *islice(path.rglob("*"), MOST_ENTRIES)] if path.is_dir() else [path]
    states = [(str(entry), entry.stat().st_size, entry.stat().st_mtime_ns) for entry in sorted(paths) if entry.exists()]
    return f"{path} {states}"


def write_folder(path: Path, file: BinaryIO) -> None:
    """Write a folder as a tar archive: sorted, without times and owners. It keeps only the execute permission.

    Raises ``ArtifactError`` for links and all else that is neither a file nor a folder.
    """
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for number, entry in enumerate(_below(path)):
            if number == MOST_ENTRIES:
                raise ArtifactError(
                    f"{path} has more than {MOST_ENTRIES:,} files. Put them into an archive, or let the step write "
                    f"them to storage and return where they are, as text."
                )
            _add(archive, path, entry)


def _below(folder: Path) -> Iterator[Path]:
    try:
        for entry in sorted(folder.iterdir()):
            yield entry
            if entry.is_dir() and not entry.is_symlink():
                yield from _below(entry)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read: {error}") from error


def _add(archive: tarfile.TarFile, root: Path, path: Path) -> None:
    name = path.relative_to(root).as_posix()
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        raise ArtifactError(
            f"{root} contains {name!r}, a link or a device; an output folder may contain only files and folders. "
            f"Replace a link with a copy of its target."
        )
    entry = tarfile.TarInfo(name)
    try:
        if path.is_dir():
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
            return
        with path.open("rb") as source:
            about = os.fstat(source.fileno())
            entry.size, entry.mode = about.st_size, 0o755 if about.st_mode & 0o100 else 0o644
            archive.addfile(entry, source)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error


def place_file(stored: Path, name: str) -> Path:
    """Copy a stored file into a new folder, under its own name."""
    target = new_folder() / safe_name(name)
    shutil.copyfile(stored, target)
    return target


def place_folder(stored: Path, name: str, into: Path | None = None) -> Path:
    """Unpack a stored archive into a folder, which gets its name when complete.

    Raises ``ArtifactError`` for an archive that ``write_folder`` would not write.
    """
    place = (into or new_folder()) / safe_name(name)
    root = unfinished_beside(place)
    root.mkdir()
    remaining = stored.stat().st_size
    try:
        with tarfile.open(stored, "r:") as archive:
            for number, entry in enumerate(archive):
                remaining -= entry.size
                if number == MOST_ENTRIES or remaining < 0:
                    raise ArtifactError("The archive of a folder holds more than its own size, or too many files.")
                _unpack(archive, entry, root)
        root.rename(place)
    except BaseException as error:
        shutil.rmtree(root, ignore_errors=True)
        if isinstance(error, ArtifactError) or not isinstance(error, tarfile.TarError | OSError | ValueError):
            raise
        raise ArtifactError(f"The archive of a folder cannot be unpacked: {error}") from error
    return place


def _unpack(archive: tarfile.TarFile, entry: tarfile.TarInfo, root: Path) -> None:
    """Unpack one entry. ``root`` contains no links, so a name without ``..`` stays below it."""
    leads_down = all(
        part not in ("", ".", "..") and "\\" not in part and ":" not in part[:2] for part in entry.name.split("/")
    )
    if not leads_down or not (entry.isdir() or entry.type == tarfile.REGTYPE) or entry.issparse():
        raise ArtifactError(
            f"The archive of a folder holds {entry.name!r}, which is neither a file in it nor a folder."
        )
    target = root / entry.name
    if entry.isdir():
        target.mkdir()
        return
    source = archive.extractfile(entry)
    assert source is not None
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, _BLOCK)
    if entry.mode & 0o100:
        target.chmod(target.stat().st_mode | 0o111)


def safe_name(name: Any) -> str:
    """Return a file's name that leads nowhere else: separators and control characters become ``_``.

    >>> safe_name("../../etc/passwd"), safe_name("..")
    ('.._.._etc_passwd', 'file')
    """
    text = "".join(char if char.isprintable() and char not in '/\\:*?"<>|' else "_" for char in str(name)).strip()
    while len(text.encode()) > _LONGEST_NAME:
        stem, dot, suffix = text.rpartition(".")
        text = f"{stem[:-1]}{dot}{suffix}" if stem and len(suffix) < 20 else text[:-1]
    return text if text.strip(".") else "file"
