"""Pack a value as JSON that any engine can carry: the value itself if it is small and plain, else a reference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.artifacts.folders import note_url
from flowyml.artifacts.formats import Format, format_named, formats_for
from flowyml.artifacts.optional import missing
from flowyml.artifacts.pickling import why_no_pickles
from flowyml.artifacts.plain import INLINE_LIMIT, is_plain
from flowyml.artifacts.store import CONTENT, Store, Written
from flowyml.core.errors import ArtifactError, NotPicklableError
from flowyml.core.urls import redact_url
from flowyml.plan.names import slug

__all__ = [
    "INLINE_LIMIT", "REFERENCE", "artifact_key", "is_of_run", "is_plain", "is_reference", "moved_reference", "pack",
    "read_reference", "run_place", "unpack",
]  # fmt: skip

REFERENCE = "$artifact"


def run_place(instance: str, pipeline: str, run_id: str) -> str:
    """Return the prefix of a run's outputs in a shared store.

    ``instance`` distinguishes engines that may each have such a run: another server, another user's folder.
    """
    return f"{slug(instance)}/{slug(pipeline)}/{slug(run_id, max_length=100)}"


def artifact_key(place: str, step: str, attempt: int, output: str) -> str:
    """Return the key of an attempt's output in a store, valid for any names; ``place`` is the run's prefix.

    It ends in a digest of the content: even if two engines look the same and have runs with the same name, neither
    overwrites the other's outputs.
    """
    return f"{place}/{slug(step)}/{attempt}/{slug(output)}-{CONTENT}"


def pack(
    value: Any, store: Store, *, key: str | Callable[[], str], inline_limit: int = INLINE_LIMIT,
    preview: Mapping[str, Any] = {},
) -> Any:  # fmt: skip
    """Return JSON for a value: the value itself if it is plain and at most ``inline_limit`` bytes, as JSON.

    Anything else is stored under ``key``, or its result if it is callable, and the JSON is a reference to it. A value
    with a ``preview`` from ``preview_of`` is stored, too, and the reference includes the preview. Raises
    ``ArtifactError`` if the value cannot be stored.
    """
    if not preview and is_plain(value) and not is_reference(value) and _fits(value, inline_limit):
        return value
    key = key if isinstance(key, str) else key()
    trouble: Exception | None = None
    for chosen in formats_for(value):
        try:
            written = store.write(f"{key}{chosen.suffix}", partial(chosen.write, value))
            return _reference(value, chosen, written, {**_files_of(value, chosen), **preview})
        except ArtifactError as error:
            if trouble is None:
                raise
            raise type(error)(f"{trouble}. {error}") from trouble
        except Exception as error:  # whatever a format, or a user's __reduce__, raises
            trouble = error
    if forbidden := why_no_pickles():
        raise NotPicklableError(
            f"{type(value).__qualname__} can only be pickled, and pickles are not written here: {forbidden}"
        ) from trouble
    raise NotPicklableError(f"{type(value).__qualname__} cannot be pickled: {str(trouble).rstrip('.')}") from trouble


def unpack(packed: Any, store: Store, *others: Store, place: str = "") -> Any:
    """Return the value that was packed. Use it only for values of steps: reading a pickle runs code.

    A reference may lead only into the given stores; with the ``place`` of a run, only to artifacts in ``store`` of a
    run of this pipeline and name, on any instance. Raises ``ArtifactError`` for any other reference, and if the value
    is gone or has changed.
    """
    if not is_reference(packed):
        return packed
    reference = packed[REFERENCE]
    written, form = read_reference(reference)
    if form.name == "pickle" and (forbidden := why_no_pickles()):
        raise ArtifactError(
            f"Artifact {redact_url(written.url)} is a pickle of a {packed[REFERENCE].get('type', '?')}, and pickles "
            f"are not read here: {forbidden}. Let its step return plain data, an array or a table, or allow pickles if "
            f"you trust everyone who can write to the store."
        )
    is_here = store.holds(written.url)
    may_read = is_here and (not place or is_of_run(written.url.removeprefix(f"{store.url}/"), place))
    holder = store if may_read else next((other for other in others if other.holds(written.url)), None)
    if holder is None and is_here:
        raise ArtifactError(f"Artifact {redact_url(written.url)} belongs to another run, and this run may not read it.")
    if holder is None:
        raise ArtifactError(
            f"Artifact {redact_url(written.url)} is not in {store.url}, the artifact store configured here, and "
            f"FlowyML reads from no other. If the steps use another store, set artifacts=… of the orchestrator, or "
            f"FLOWYML_ARTIFACTS, to it."
        )
    with holder.fetch(written, once=form.mapped) as path:
        try:
            if not form.named:
                return form.read(path)
            value = form.read(path, reference.get("name", ""))
            note_url(value, written.url)
            return value
        except ArtifactError:
            raise
        except (ImportError, AttributeError) as error:
            if (error.name or "").partition(".")[0] == "cloudpickle":
                raise missing("cloudpickle") from error
            raise ArtifactError(
                f"Its class cannot be imported here: {type(error).__name__}: {error}. Set PYTHONPATH to the folder of "
                f"its module, or install its package. The value is kept in {redact_url(written.url)}"
            ) from error
        except Exception as error:  # whatever a user's __setstate__ raises
            raise ArtifactError(
                f"Artifact {redact_url(written.url)} cannot be read as {form.name}: {type(error).__name__}: {error}"
            ) from error


def is_reference(packed: Any) -> bool:
    """Return True for JSON that refers to a stored value."""
    return isinstance(packed, Mapping) and REFERENCE in packed


def is_of_run(key: str, place: str) -> bool:
    """Return whether a key begins with a prefix, ignoring the instance: an engine may have several addresses."""
    return key.split("/")[1:3] == place.split("/")[1:3]


def _fits(value: Any, limit: int) -> bool:
    if value is None or isinstance(value, bool | int | float):
        return limit > 0
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) <= limit


def _files_of(value: Any, chosen: Format) -> dict[str, str]:
    """Return what a reference keeps of files: the name of one; the state of those that a pickled container names."""
    if isinstance(value, Path):
        return {"name": value.name}
    from flowyml.artifacts.files import state_of

    paths = sorted(_paths_in(value)) if chosen.name == "pickle" else ()
    return {"files": hashlib.sha256("\n".join(map(state_of, paths)).encode()).hexdigest()} if paths else {}


def _paths_in(value: Any) -> Iterator[Path]:
    pending, seen = [value], set[int]()  # a list may be within itself
    while pending:
        part = pending.pop()
        if isinstance(part, Path):
            yield part
        elif type(part) in (list, tuple, set, frozenset, dict) and id(part) not in seen:
            seen.add(id(part))
            pending += part.values() if type(part) is dict else part


def _reference(value: Any, chosen: Format, written: Written, preview: Mapping[str, Any]) -> dict[str, Any]:
    kind = type(value)
    return {
        REFERENCE: {
            "url": written.url,
            "format": chosen.name,
            "sha256": written.sha256,
            "size": written.size,
            "type": f"{kind.__module__}.{kind.__qualname__}",
            **preview,
        }
    }


def read_reference(reference: Any) -> tuple[Written, Format]:
    """Return the address and the format of a stored value. Raises ``ArtifactError`` for an invalid reference."""
    try:
        written = Written(str(reference["url"]), str(reference["sha256"]), int(reference["size"]))
        return written, format_named(reference["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"This is not a reference to an artifact that can be read here: {reference!r:.200}"
        ) from error


def moved_reference(packed: Mapping[str, Any], move: Callable[[Written], Written]) -> dict[str, Any]:
    """Return the same reference after ``move`` has moved what is stored: the value, then its picture, if any.

    Raises ``ArtifactError``.
    """
    reference = packed[REFERENCE]
    moved = {**reference, "url": move(read_reference(reference)[0]).url}
    if picture := reference.get("picture"):
        try:
            written = Written(str(picture["url"]), str(picture["sha256"]), int(picture["size"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"This is not a picture of an artifact: {picture!r:.200}") from error
        moved["picture"] = {**picture, "url": move(written).url}
    return {REFERENCE: moved}
