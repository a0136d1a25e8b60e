"""Artifacts of a run as files on this machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowyml.artifacts.files import place_folder, safe_name, write_folder
from flowyml.artifacts.formats import format_named
from flowyml.artifacts.plain import without_floats
from flowyml.artifacts.store import Store, Written, passing_file
from flowyml.core.errors import ArtifactError
from flowyml.core.runs import Artifact

__all__ = ["download"]

_LARGE = 10_000_000  # bytes of what takes a while


def download(
    artifacts: Iterable[Artifact],
    stores: Sequence[Store],
    folder: Path,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write artifacts below a folder, as ``STEP/OUTPUT.suffix``, files and folders under their own names.

    A second one of a name stands in ``STEP/OUTPUT/``. Nothing that is there is overwritten: what has just the same
    content is taken as it is, a folder too, anything else ends in ``ArtifactError``, as does what cannot be read, and a
    link below the folder that is on the way.
    Nothing is unpickled. ``note`` is given a line for each large one.
    """
    made: list[Path] = []

    def free(artifact: Artifact, place: Path, name: str) -> Path:
        target = place / name if place / name not in made else place / safe_name(artifact.name) / name
        _check_within(folder, target)
        return target

    for artifact in artifacts:
        place = folder / safe_name(artifact.label.rpartition(".")[0] or artifact.step)
        if artifact.type == "metrics" and artifact.url is None:
            made.append(_kept(free(artifact, place, f"{safe_name(artifact.name)}.json"), _text(artifact.metadata)))
            continue
        if artifact.url is None or artifact.digest is None or artifact.size is None:
            note(f"{artifact.label} was not stored")
            continue
        about = artifact.packed["$artifact"]
        written = Written(artifact.url, artifact.digest, artifact.size)
        if artifact.size >= _LARGE:
            note(f"{artifact.label}: {artifact.size / 1e6:,.0f} MB …")
        with _fetched(written, stores) as path:
            if artifact.format == "folder":
                name = safe_name(about.get("name") or artifact.name)
                made.append(_folder(free(artifact, place, name), path))
            else:
                made.append(_kept(free(artifact, place, _name(artifact, about)), path))
        if artifact.picture:
            picture = about["picture"]
            suffix = {"image/png": ".png", "text/html": ".html"}.get(picture.get("media"), ".bin")
            with _fetched(Written(picture["url"], picture["sha256"], picture["size"]), stores) as path:
                made.append(_kept(free(artifact, place, f"{safe_name(artifact.name)}{suffix}"), path))
    return made


def _name(artifact: Artifact, about: Any) -> str:
    if artifact.format == "file":
        return safe_name(about.get("name") or artifact.name)
    try:
        suffix = format_named(artifact.format).suffix
    except KeyError:  # of a plug-in that is not installed here
        suffix = ".bin"
    return f"{safe_name(artifact.name)}{suffix}"


@contextmanager
def _fetched(written: Written, stores: Sequence[Store]) -> Iterator[Path]:
    for store in stores:
        if store.holds(written.url):
            with store.fetch(written) as path:
                yield path
            return
    places = ", ".join(store.url for store in stores)
    raise ArtifactError(
        f"{written.url} is not in {places}: name the store of the steps, by artifacts=… of the orchestrator or "
        f"FLOWYML_ARTIFACTS."
    )


def _text(metrics: Any) -> bytes:
    return (
        json.dumps({name: _number(value) for name, value in metrics.items()}, indent=2, ensure_ascii=False).encode()
        + b"\n"
    )


def _number(metric: Any) -> Any:
    """What JSON lacks is in words where the metrics were stored; not where the plain values were recorded."""
    return metric if isinstance(metric, dict) else without_floats(metric)


def _check_within(folder: Path, target: Path) -> None:
    """No folder on the way to the target is a link, which may lead anywhere."""
    for around in target.relative_to(folder).parents:
        if (link := folder / around) != folder and link.is_symlink():
            raise ArtifactError(
                f"{link} is a link to {link.readlink()}: nothing is written there. Choose another folder."
            )


def _kept(target: Path, source: Path | bytes) -> Path:
    """A new file; or the one that is there, if it holds the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if _is_written(target, source):
        return target
    if target.is_symlink() or not target.is_file() or _digest(target) != _digest(source):
        raise ArtifactError(f"{target} exists and holds something else: it stays. Choose another folder.")
    return target


def _is_written(target: Path, source: Path | bytes) -> bool:
    """Write a file, which has its name when it is whole, where there is none; False where something is."""
    if os.path.lexists(target):
        return False
    fresh = target.with_name(f".new-{os.urandom(8).hex()}")
    try:
        with fresh.open("xb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                with source.open("rb") as data:
                    shutil.copyfileobj(data, file, 1 << 20)
        try:
            os.link(fresh, target)
        except FileExistsError:  # it came meanwhile
            return False
        except OSError:  # a file system without links
            if os.path.lexists(target):
                return False
            fresh.rename(target)
        return True
    finally:
        fresh.unlink(missing_ok=True)


def _folder(target: Path, archive: Path) -> Path:
    """A new folder; or the one that is there, if it holds the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.exists() or target.is_symlink()):
        return place_folder(archive, target.name, target.parent)
    if target.is_symlink() or not target.is_dir() or not _holds(target, archive):
        raise ArtifactError(f"{target} exists and holds something else: it stays. Choose another folder.")
    return target


def _holds(folder: Path, archive: Path) -> bool:
    """Whether a folder would give just this archive."""
    with passing_file() as (path, file):
        try:
            write_folder(folder, file)
        except ArtifactError:  # it holds links, or cannot be read
            return False
        return _digest(path) == _digest(archive)


def _digest(source: Path | bytes) -> str:
    import hashlib

    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
