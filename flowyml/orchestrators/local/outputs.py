"""Choose the outputs of a run to store, and read them back."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from flowyml.artifacts import artifact_key, open_store, pack, run_place, unpack
from flowyml.artifacts.pickle_policy import why_no_pickles
from flowyml.artifacts.pickling import Unpickler, pickle_by_reference, pickle_by_value, prefers_references
from flowyml.artifacts.plain import is_plain
from flowyml.artifacts.previews import noted_preview
from flowyml.artifacts.store import Produce, Store, Written
from flowyml.core.errors import ArtifactError
from flowyml.core.modules import shipped_name
from flowyml.core.runs import Outputs
from flowyml.orchestrators.local.schema import KeptRow
from flowyml.orchestrators.run_outputs import are_packed
from flowyml.plan.model import PipelineOutput, Plan
from flowyml.plan.values import steps_of
from flowyml.runtime.tracebacks import described

if TYPE_CHECKING:
    from flowyml.orchestrators.local.store import RunStore

__all__ = [
    "MAX_KEPT_BYTES", "SMALL", "entry_of", "kept_artifacts", "pickle_entry", "plain_entry", "read",
    "record", "value_of",
]  # fmt: skip

logger = logging.getLogger("flowyml.local")

SMALL = 65536
"""The largest size in bytes of a value that is recorded without an artifact."""

MAX_KEPT_BYTES = 1_000_000_000
"""The largest size in bytes of an output of a submitted run that is stored by default."""


def record(
    store: RunStore, plan: Plan, run_id: str, values: Mapping[str, Any], noted: Iterable[KeptRow], *, max_bytes: float
) -> dict[str, Any]:  # fmt: skip
    """Record outputs: small values, artifacts of up to ``max_bytes``, or the reason why a value is not stored.

    ``noted`` has the previews of steps' outputs.
    """
    seen = _seen(plan, noted)
    return {
        output.name: _record(store, plan.name, run_id, output, values[output.name], seen.get(output.name), max_bytes)
        for output in plan.outputs
        if output.name in values  # not outputs of skipped steps
    }


def _seen(plan: Plan, noted: Iterable[KeptRow]) -> dict[str, Any]:
    """Return the previews of the pipeline's outputs."""
    entries = {(row.position, row.output): row.entry for row in noted if not row.item}
    positions = {step.name: position for position, step in enumerate(plan.steps)}
    found = ((name, entries.get((positions[source.step], source.output))) for name, source in plan.step_outputs)
    return {name: json.loads(entry) for name, entry in found if entry is not None}


def kept_artifacts(plan: Plan, recorded: Mapping[str, Any]) -> Iterator[KeptRow]:
    """Yield the recorded artifacts, by the outputs of steps."""
    positions = {step.name: position for position, step in enumerate(plan.steps)}
    for name, source in plan.step_outputs:
        packed = recorded.get(name, {}).get("artifact")
        if packed is not None and not plan.by_name[source.step].group:
            yield KeptRow(positions[source.step], "", source.output, json.dumps(packed))


def read(run_id: str, recorded: str) -> Outputs:
    """Return the outputs that ``record`` recorded, as JSON."""
    values: dict[str, Any] = {}
    not_kept: dict[str, str] = {}
    for name, entry in json.loads(recorded).items():
        if reason := entry.get("not_kept"):
            not_kept[name] = reason
            continue
        try:
            values[name] = entry.get("artifact") if are_packed() else value_of(entry)
        except (ImportError, AttributeError) as error:  # its class is not to be found
            not_kept[name] = (
                f"Output {name!r} of run {run_id!r} was kept, but its class cannot be imported here: "
                f"{described(error)}. Set PYTHONPATH to the folder of its module."
            )
        except Exception as error:  # whatever the class of the value raises when it is read
            not_kept[name] = f"Output {name!r} of run {run_id!r} was kept, but cannot be read here: {described(error)}"
    return Outputs(values, not_kept=not_kept)


def value_of(entry: Mapping[str, Any]) -> Any:
    """Return the value of an entry. Raises ``ArtifactError``, and whatever the class of the value raises."""
    if "pickle" in entry:
        if forbidden := why_no_pickles():
            raise ArtifactError(f"it is a pickle, and pickles are not read here: {forbidden}")
        return Unpickler(io.BytesIO(base64.b64decode(entry["pickle"])), main=entry.get("main")).load()
    return unpack(entry["artifact"], open_store(entry.get("store"))) if "artifact" in entry else entry["value"]


def _record(
    store: RunStore, pipeline: str, run_id: str, output: PipelineOutput, value: Any, noted: Any, max_bytes: float
) -> dict[str, Any]:  # fmt: skip
    def key() -> str:
        place = run_place(store.instance, pipeline, run_id)
        return artifact_key(place, next(steps_of(output.source)), 1, f"output-{output.name}")

    return entry_of(f"Output {output.name!r} of run {run_id!r}", value, open_store, key, max_bytes, noted, as_file=True)


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
    left = SMALL
    parts = [value]
    while parts and left >= 0:
        part = parts.pop()
        kind = type(part)  # a class of the user's own is not plain, and may do anything when it is walked through
        left -= len(part) + 1 if kind in (str, list, dict) else 1
        if left >= 0 and kind is list:
            parts.extend(part)
        elif left >= 0 and kind is dict:
            parts.extend(part)
            parts.extend(part.values())
    return left >= 0


def _kind(value: Any) -> str:
    kind = type(value)
    if kind in (str, bytes, list, dict, tuple):
        return f"a large {kind.__name__}"
    return f"a {kind.__module__}.{kind.__qualname__}".replace("a builtins.", "a ")
