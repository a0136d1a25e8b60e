"""Download the artifacts of a run as files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.artifacts import artifact_key, pack
from flowyml.artifacts.files import place_folder, safe_name, write_folder
from flowyml.artifacts.formats import format_named
from flowyml.artifacts.hashing import sha256_of
from flowyml.artifacts.listing import artifact_of
from flowyml.artifacts.plain import without_floats
from flowyml.artifacts.previews import noted_preview, preview_of
from flowyml.artifacts.store import Store, Written, passing_file
from flowyml.core.errors import ArtifactError, OutputNotKeptError
from flowyml.core.files import unfinished_beside
from flowyml.core.runs import Artifact, find_item

__all__ = ["download", "stored_anew"]

_LARGE = 10_000_000  # bytes of an artifact that takes a while
_PICTURES = {"image/png": ".png", "text/html": ".html"}


def download(
    artifacts: Iterable[Artifact],
    stores: Sequence[Store],
    folder: Path,
    *,
    wanted: Callable[[Artifact], bool] = lambda _: True,
    note: Callable[[str], None] = lambda _: None,
    failed: Callable[[Artifact, ArtifactError], None] | None = None,
) -> list[Path]:
    """Write artifacts of a run below a folder, as ``STEP/OUTPUT.suffix``; files and folders under their own names.

    If a step has two with one name, the second goes to ``STEP/OUTPUT/``, even if only that is ``wanted``. Nothing is
    overwritten: a file or folder with the same content is left as it is. Returns all paths, including pictures.
    ``note`` gets a line for each large artifact. Nothing is unpickled, and artifacts that were not stored are left out.

    If something else has the name, an artifact cannot be read or is in none of the stores, or a folder on the way is a
    link, ``failed`` gets the artifact with the error, and the others are still written; without it, that
    ``ArtifactError`` is raised.
    """
    paths: list[Path] = []
    taken: set[Path] = set()
    for artifact in artifacts:
        targets = [_free(artifact, folder, name, taken) for name in _names(artifact)]
        if not wanted(artifact):
            continue
        try:
            paths += _placed(artifact, targets, stores, folder, note)
        except ArtifactError as error:
            if failed is None:
                raise
            failed(artifact, error)
    return paths


def stored_anew(
    artifacts: Iterable[Artifact], outputs: Mapping[str, Mapping[str, Any]], store: Store
) -> Iterator[Artifact]:
    """Yield the artifacts; those without a file, and those that are not listed, from ``outputs``, written to ``store``.

    ``outputs`` has the outputs of steps by their labels, and reading one may unpickle it. One that was not kept, or
    cannot be written, stays as it is.
    """
    listed_already = {each.label: each for each in artifacts}
    places = {f"{label}.{output}": (label, output) for label, values in outputs.items() for output in values}
    for place in dict.fromkeys([*listed_already, *places]):
        artifact = listed_already.get(place)
        if place in places and (artifact is None or (artifact.url is None and artifact.type != "metrics")):
            label, output = places[place]
            step, index = find_item((), label)
            key = partial(artifact_key, "values", label, 1, output)
            with suppress(ArtifactError, OutputNotKeptError):
                value = outputs[label][output]
                preview = (
                    noted_preview(artifact.packed, value, store, key) if artifact else preview_of(value, store, key)
                )
                packed = pack(value, store, key=key, inline_limit=0, preview=preview)  # plain values, too
                artifact = artifact_of(step, output, packed, index)
        if artifact is not None:
            yield artifact


def _placed(
    artifact: Artifact, targets: Sequence[Path], stores: Sequence[Store], folder: Path, note: Callable[[str], None]
) -> Iterator[Path]:
    """Write the files of an artifact, and yield their paths."""
    for target in targets:
        _check_within(folder, target)
    if _is_in_record(artifact):
        yield from (_keep(target, _json_of(artifact.metadata)) for target in targets)
        return
    for target, written in zip(targets, _written(artifact), strict=True):
        if written.size >= _LARGE:
            note(f"{artifact.label}: {written.size / 1e6:,.0f} MB …")
        is_folder = artifact.format == "folder" and target == targets[0]
        with _fetched(written, stores) as path:
            yield _unpack(target, path) if is_folder else _keep(target, path)


def _is_in_record(artifact: Artifact) -> bool:
    return artifact.type == "metrics" and artifact.url is None


def _free(artifact: Artifact, folder: Path, name: str, taken: set[Path]) -> Path:
    place = folder / safe_name(artifact.label.rpartition(".")[0] or artifact.step)
    target = place / name if place / name not in taken else place / safe_name(artifact.name) / name
    taken.add(target)
    return target


def _names(artifact: Artifact) -> Iterator[str]:
    """Yield the names of its files, the picture last; empty if the artifact was not stored."""
    name = safe_name(artifact.name)
    if _is_in_record(artifact):
        yield f"{name}.json"
    elif any(_written(artifact)):
        about = artifact.packed["$artifact"]
        is_named = artifact.format in ("file", "folder")
        yield safe_name(about.get("name") or artifact.name) if is_named else f"{name}{_suffix(artifact)}"
        if artifact.picture:
            yield f"{name}{_PICTURES.get(about['picture'].get('media'), '.bin')}"


def _written(artifact: Artifact) -> Iterator[Written]:
    """Yield its stored files, the picture last."""
    if artifact.url is None or artifact.digest is None or artifact.size is None:
        return
    yield Written(artifact.url, artifact.digest, artifact.size)
    if artifact.picture:
        picture = artifact.packed["$artifact"]["picture"]
        yield Written(picture["url"], picture["sha256"], picture["size"])


def _suffix(artifact: Artifact) -> str:
    try:
        return format_named(artifact.format).suffix
    except KeyError:  # of a plug-in that is not installed here
        return ".bin"


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


def _json_of(metrics: Any) -> bytes:
    """Write metrics as JSON. NaN and infinities are JSON already in stored metrics, but not in those of a record."""
    plain = {name: value if isinstance(value, dict) else without_floats(value) for name, value in metrics.items()}
    return json.dumps(plain, indent=2, ensure_ascii=False).encode() + b"\n"


def _check_within(folder: Path, target: Path) -> None:
    """Raise if a folder on the way to the target is a link, which may lead anywhere."""
    for around in target.relative_to(folder).parents:
        if (link := folder / around) != folder and link.is_symlink():
            raise ArtifactError(
                f"{link} is a link to {link.readlink()}: nothing is written there. Choose another folder."
            )


def _keep(target: Path, source: Path | bytes) -> Path:
    """Write a new file, or keep an existing one with the same content."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if _write_anew(target, source):
        return target
    if target.is_symlink() or not target.is_file() or _digest(target) != _digest(source):
        raise ArtifactError(f"{target} already exists with different content and is kept. Choose another folder.")
    return target


def _write_anew(target: Path, source: Path | bytes) -> bool:
    """Write a file, which gets its name when complete. If something has the name, write nothing and return False."""
    if os.path.lexists(target):
        return False
    fresh = unfinished_beside(target)
    try:
        with fresh.open("xb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                with source.open("rb") as data:
                    shutil.copyfileobj(data, file, 1 << 20)
        try:
            os.link(fresh, target)
        except FileExistsError:  # it appeared meanwhile
            return False
        except OSError:  # a file system without links
            if os.path.lexists(target):
                return False
            fresh.rename(target)
        return True
    finally:
        fresh.unlink(missing_ok=True)


def _unpack(target: Path, archive: Path) -> Path:
    """Unpack a new folder, or keep an existing one with the same content."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.exists() or target.is_symlink()):
        return place_folder(archive, target.name, target.parent)
    if target.is_symlink() or not target.is_dir() or not _holds(target, archive):
        raise ArtifactError(f"{target} already exists with different content and is kept. Choose another folder.")
    return target


def _holds(folder: Path, archive: Path) -> bool:
    """Return whether a folder has exactly the content of this archive."""
    with passing_file() as (path, file):
        try:
            write_folder(folder, file)
        except ArtifactError:  # it contains links, or cannot be read
            return False
        return _digest(path) == _digest(archive)


def _digest(source: Path | bytes) -> str:
    import hashlib

    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    return sha256_of(source)
