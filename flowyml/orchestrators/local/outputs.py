"""Which outputs of a run are kept, and how they are read back."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Mapping
from typing import Any

from flowyml.artifacts import artifact_key, open_store, pack, unpack
from flowyml.artifacts.allowed import why_no_pickles
from flowyml.artifacts.pickling import Unpickler, pickle_by_reference, pickle_by_value, prefers_references
from flowyml.artifacts.plain import is_plain
from flowyml.core.errors import ArtifactError
from flowyml.core.runs import Outputs
from flowyml.plan.model import PipelineOutput, Plan
from flowyml.runtime.tracebacks import described

__all__ = ["kept", "read"]

logger = logging.getLogger("flowyml.local")

_SMALL = 65536


def kept(plan: Plan, run_id: str, values: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """What is recorded: small values themselves, large ones as artifacts if ``keep``, else that they were not kept."""
    return {output.name: _kept(run_id, output, values[output.name], keep) for output in plan.outputs}


def read(run_id: str, recorded: str) -> Outputs:
    """The outputs that ``kept`` recorded, as JSON."""
    values: dict[str, Any] = {}
    not_kept: dict[str, str] = {}
    for name, entry in json.loads(recorded).items():
        if reason := entry.get("not_kept"):
            not_kept[name] = reason
            continue
        try:
            values[name] = _value(entry)
        except (ImportError, AttributeError) as error:  # its class is not to be found
            not_kept[name] = (
                f"Output {name!r} of run {run_id!r} was kept, but its class cannot be imported here: "
                f"{described(error)}. Set PYTHONPATH to the folder of its module, or run this from there."
            )
        except Exception as error:  # whatever the class of the value raises when it is read
            not_kept[name] = f"Output {name!r} of run {run_id!r} was kept, but cannot be read here: {described(error)}"
    return Outputs(values, not_kept=not_kept)


def _value(entry: Mapping[str, Any]) -> Any:
    if "pickle" in entry:
        if forbidden := why_no_pickles():
            raise ArtifactError(f"it is a pickle, and pickles are not read here: {forbidden}")
        return Unpickler(io.BytesIO(base64.b64decode(entry["pickle"]))).load()
    return unpack(entry["artifact"], open_store(entry.get("store"))) if "artifact" in entry else entry["value"]


def _kept(run_id: str, output: PipelineOutput, value: Any, keep: bool) -> dict[str, Any]:
    if _is_small(value) and is_plain(value):
        return {"value": value}
    forbidden = why_no_pickles()
    if not forbidden and (data := _small_pickle(value)) is not None:
        return {"pickle": base64.b64encode(data).decode()}
    if forbidden and not keep:
        return {
            "not_kept": f"Output {output.name!r} of run {run_id!r} was not kept: the record holds {_kind(value)} as a "
            f"pickle, and pickles are not written here: {forbidden}. LocalOrchestrator(keep_outputs=True) keeps arrays "
            f"and tables without one."
        }
    if not keep:
        return {
            "not_kept": f"Output {output.name!r} of run {run_id!r} was not kept: only small values are, and this is "
            f"{_kind(value)}. Run it with LocalOrchestrator(keep_outputs=True) to keep it."
        }
    try:
        key = artifact_key(run_id, output.source.step, 1, f"output-{output.name}")
        store = open_store()
        return {"artifact": pack(value, store, key=key), "store": store.url}
    except Exception as error:  # whatever the class of the value raises when it is written
        logger.warning("Output %r of run %r could not be kept: %s", output.name, run_id, described(error))
        return {"not_kept": f"Output {output.name!r} of run {run_id!r} could not be kept: {described(error)}"}


class _Limited(io.BytesIO):
    """A file that refuses to become large, so that nothing large is pickled to its end in vain."""

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > _SMALL:
            raise _TooLargeError
        return super().write(data)


class _TooLargeError(Exception):
    pass


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
    """Whether it is worth writing as JSON, told without walking through millions of items."""
    left = _SMALL
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
