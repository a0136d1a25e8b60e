"""Choose the outputs of a run to store, and read them back."""

from __future__ import annotations

import base64
import io
import json
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from flowyml.artifacts import artifact_key, open_store, pack, run_place, unpack
from flowyml.artifacts.pickling import (
    Unpickler,
    pickle_by_reference,
    pickle_by_value,
    prefers_references,
    why_no_pickles,
)
from flowyml.artifacts.plain import is_plain
from flowyml.artifacts.previews import noted_preview
from flowyml.artifacts.store import Produce, Store, Written
from flowyml.core.errors import ArtifactError
from flowyml.core.modules import shipped_name
from flowyml.core.runs import Outputs
from flowyml.orchestrators.local.schema import SavedRow, item_of
from flowyml.orchestrators.run_outputs import are_packed
from flowyml.runtime.decider import Gathered
from flowyml.runtime.nodes import Task
from flowyml.runtime.tracebacks import described

if TYPE_CHECKING:
    from flowyml.orchestrators.local.store import RunStore

__all__ = [
    "MAX_KEPT_BYTES", "SMALL", "Returned", "entries_in", "entry_of", "pickle_entry", "plain_entry", "read",
    "record", "value_of",
]  # fmt: skip

logger = logging.getLogger("flowyml.local")

SMALL = 65536
"""The largest size in bytes of a value that is recorded without an artifact."""

MAX_KEPT_BYTES = 1_000_000_000
"""The largest size in bytes of an output of a submitted run that is stored by default."""


class Returned(NamedTuple):
    """An output of the pipeline: its value, ``Gathered`` from the items of a loop, and the steps that returned it."""

    value: Any
    makers: Sequence[tuple[Task, str]]


def record(
    store: RunStore, pipeline: str, run_id: str, outputs: Mapping[str, Returned], noted: Iterable[SavedRow],
    *, max_bytes: float,
) -> tuple[dict[str, Any], list[SavedRow]]:  # fmt: skip
    """Record outputs: small values, artifacts of up to ``max_bytes``, or the reason why a value is not stored.

    Returns the records, and the artifacts by the outputs of steps. ``noted`` has the previews of those.
    """
    previews = {row[:3]: row.entry for row in noted}
    place = cache(lambda: run_place(store.instance, pipeline, run_id))  # opens the record
    stored: list[SavedRow] = []

    def entry(name: str, returned: Returned) -> dict[str, Any]:
        makers = iter(returned.makers)
        what = f"Output {name!r} of run {run_id!r}"
        is_loop = isinstance(returned.value, Gathered)

        def of_step(value: Any) -> dict[str, Any]:
            task, output = next(makers)
            where = (task.position, item_of(task.index), output)

            def key() -> str:
                return artifact_key(place(), task.label, 1, f"output-{name}")

            seen = json.loads(previews.get(where, "{}"))
            # Writing a file for each of 10,000 pairs takes longer than the steps that return them. Those from
            # processes have been files before, as ``seen`` shows.
            as_file = not is_loop or bool(seen) or not _is_nearly_plain(value)
            made = entry_of(what, value, open_store, key, max_bytes, seen, as_file=as_file)
            if "artifact" in made:
                stored.append(SavedRow(*where, json.dumps(made["artifact"])))
            return made

        if not isinstance(returned.value, Gathered):
            return of_step(returned.value)
        if not max_bytes or plain_entry(returned.value.listed()):
            return entry_of(what, returned.value.listed(), open_store, str, max_bytes)
        return _of_items(returned.value, of_step)

    return {name: entry(name, returned) for name, returned in outputs.items()}, stored


def _of_items(values: Gathered, of_step: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return the record of a loop's output: one for each item, without pickles beside the files."""
    items: list[dict[str, Any]] = []
    for value in values.values:
        entry = _of_items(value, of_step) if isinstance(value, Gathered) else of_step(value)
        items.append({part: entry[part] for part in entry if part != "pickle" or "artifact" not in entry})
    lost = next(({"not_kept": item["not_kept"]} for item in items if "not_kept" in item), {})
    return {"items": items, "indexes": values.indexes, **lost}


def entries_in(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the record of an output, or those of its items."""
    for item in entry.get("items", ()):
        yield from entries_in(item)
    if "items" not in entry:
        yield entry


def read(run_id: str, recorded: str) -> Outputs:
    values: dict[str, Any] = {}
    not_kept: dict[str, str] = {}
    for name, entry in json.loads(recorded).items():
        if reason := entry.get("not_kept"):
            not_kept[name] = reason
            continue
        try:
            packed = [packed_value.get("artifact") for packed_value in entries_in(entry)]
            values[name] = packed if are_packed() else value_of(entry)
        except ArtifactError as error:  # which says why
            not_kept[name] = f"Output {name!r} of run {run_id!r}: {error}"
        except Exception as error:  # whatever the class of the value raises when it is read
            not_kept[name] = f"Output {name!r} of run {run_id!r} was kept, but cannot be read here: {described(error)}"
    return Outputs(values, not_kept=not_kept)


def value_of(entry: Mapping[str, Any]) -> Any:
    """Return the value of an entry. Raises ``ArtifactError``, and whatever the class of the value raises."""
    if "items" in entry:
        return Gathered([value_of(item) for item in entry["items"]], entry["indexes"]).listed()
    if "pickle" in entry:
        if forbidden := why_no_pickles():
            raise ArtifactError(f"It is a pickle, and pickles are not read here: {forbidden}")
        try:
            return Unpickler(io.BytesIO(base64.b64decode(entry["pickle"])), main=entry.get("main")).load()
        except (ImportError, AttributeError) as error:
            raise ArtifactError(
                f"Its class cannot be imported here: {described(error)}. Set PYTHONPATH to the folder of its module."
            ) from error
    return unpack(entry["artifact"], open_store(entry.get("store"))) if "artifact" in entry else entry["value"]


def entry_of(
    what: str, value: Any, store: Callable[[], Store], key: Callable[[], str], max_bytes: float,
    noted: Any = None, *, as_file: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the record of a value: the value if it is small, a reference to an artifact, or why it is not stored.

    An artifact has up to ``max_bytes``, and is written to a store under a key. ``noted`` is the value's preview. With
    ``as_file``, a small value that is not plain, such as a model or a figure, is recorded and an artifact.
    """
    is_file = bool(max_bytes) and isinstance(value, Path) and value.exists()  # its content is kept, not where it is
    entry = plain_entry(value) or (None if is_file else pickle_entry(value))
    if entry and not (as_file and max_bytes and "pickle" in entry):
        return entry
    forbidden = why_no_pickles()
    if forbidden and not max_bytes:
        return {
            "not_kept": f"{what} was not kept: the record would hold {_kind(value)} as a pickle, and pickles are not "
            f"written here: {forbidden}. LocalOrchestrator(keep_outputs=True) keeps arrays and tables without pickles."
        }
    if not max_bytes:
        return {
            "not_kept": f"{what} was not kept: `pipeline.run()` keeps only small values, and this is {_kind(value)}. "
            f"To keep it, use `flowyml run`, submit the run, or use LocalOrchestrator(keep_outputs=True)."
        }
    try:
        opened = store()
        limited = _LimitedStore(opened, max_bytes)
        preview = noted_preview(noted, value, limited, key)
        return {**(entry or {}), "artifact": pack(value, limited, key=key, preview=preview), "store": opened.url}
    except _TooLargeError:
        return {
            "not_kept": f"{what} was not kept: {_kind(value)} of more than {max_bytes / 1e9:g} GB. Run it with "
            f"LocalOrchestrator(keep_outputs=True) to keep it, or let the step write it to storage and return where "
            f"it is."
        }
    except Exception as error:  # whatever the class of the value raises when it is written
        if entry:
            return entry
        logger.warning("%s could not be kept: %s", what, described(error))
        return {"not_kept": f"{what} could not be kept: {described(error)}"}


def plain_entry(value: Any) -> dict[str, Any] | None:
    """Return the record of a small plain value; None for any other."""
    return {"value": value} if _is_small(value) and is_plain(value, in_file=True) else None


def pickle_entry(value: Any) -> dict[str, Any] | None:
    """Return the record of a value with a small pickle; None for any other, and if pickles are forbidden."""
    if why_no_pickles() or (data := _small_pickle(value)) is None:
        return None
    main = {"main": name} if b"__main__" in data and (name := shipped_name("__main__")) else {}
    return {"pickle": base64.b64encode(data).decode(), **main}


def _is_nearly_plain(value: Any) -> bool:
    """Return whether a small value has only types of Python's syntax, such as a tuple of numbers; not for bytes."""
    data = None if type(value) is bytes else _small_pickle(value)
    if data is None:
        return False
    try:
        _NoClasses(io.BytesIO(data)).load()
    except UnpicklingError:
        return False
    return True


class _NoClasses(pickle.Unpickler):
    """Reads a pickle that imports nothing, and so runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        raise UnpicklingError(f"{module}.{name}")


class _Limited(io.BytesIO):
    """A file that refuses to become large, so that pickling a large value stops early."""

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > SMALL:
            raise _TooLargeError
        return super().write(data)


class _LimitedStore(Store):
    """A store that refuses artifacts of more than ``limit`` bytes. What was already written is removed."""

    def __init__(self, store: Store, limit: float) -> None:
        super().__init__(store.url)
        self._store, self._limit = store, limit

    def write(self, key: str, produce: Produce) -> Written:
        return self._store.write(key, lambda file: produce(cast(BinaryIO, _LimitedFile(file, self._limit))))

    def holds(self, url: str) -> bool:
        return self._store.holds(url)

    def local_copy(self, url: str) -> AbstractContextManager[Path]:
        return self._store.local_copy(url)


class _LimitedFile:
    def __init__(self, file: BinaryIO, limit: float) -> None:
        self._file, self._left = file, limit

    def write(self, data: Any) -> int:
        self._left -= memoryview(data).nbytes
        if self._left < 0:
            raise _TooLargeError
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _TooLargeError(ArtifactError):
    """Artifacts of this size are not stored."""


def _small_pickle(value: Any) -> bytes | None:
    ways = (pickle_by_reference, pickle_by_value)
    for write in ways if prefers_references() else reversed(ways):
        file = _Limited()
        try:
            write(value, file)
        except _TooLargeError:
            return None
        except Exception:  # whatever the class of the value raises; the other way may do
            continue
        return file.getvalue()
    return None


def _is_small(value: Any) -> bool:
    """Return whether to write a value as JSON, without walking through millions of items."""
    remaining = SMALL
    parts = [value]
    while parts and remaining >= 0:
        part = parts.pop()
        kind = type(part)  # a class of the user's own is not plain, and may do anything when it is walked through
        remaining -= len(part) + 1 if kind in (str, list, dict) else 1
        if remaining >= 0 and kind is list:
            parts.extend(part)
        elif remaining >= 0 and kind is dict:
            parts.extend(part)
            parts.extend(part.values())
    return remaining >= 0


def _kind(value: Any) -> str:
    kind = type(value)
    if kind in (str, bytes, list, dict, tuple):
        return f"a large {kind.__name__}"
    return f"a {kind.__module__}.{kind.__qualname__}".replace("a builtins.", "a ")
