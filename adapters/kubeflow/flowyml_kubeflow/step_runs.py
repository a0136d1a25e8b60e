"""The steps of a pipeline with control flow, for each item, from the notes in the logs of their pods."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import MOST_ITEMS
from flowyml.core.runs import WAS_CANCELLED, StepRun
from flowyml.core.web import parsed
from flowyml_kubeflow.attempts import ENGINE, RESULT

__all__ = ["UNKNOWN", "lines_by_item", "moment", "result_of", "step_runs"]

UNKNOWN = "how it ended was in the log of its pod, which KFP has deleted or cut off"

_ENGINE = re.compile(ENGINE)
_RESULT: dict[str, Any] = {"outputs": dict, "failure": dict, "artifacts": dict, "files": list, "note": dict}
_NOTE: dict[str, Any] = {
    "time": int | float, "task": str, "index": list, "opened": int, "attempt": int, "ended": str, "error": str,
    "cached": str, "artifacts": dict,
}  # fmt: skip
_LATEST = 2**33  # seconds: the year 2242

# A pod's word for the end of a step, and KFP's word for a task with that end, if it has one.
_ENDS = {
    "completed": (ExecutionStatus.COMPLETED, "SUCCEEDED"),
    "failed": (ExecutionStatus.FAILED, "FAILED"),
    "timeout": (ExecutionStatus.TIMEOUT, "TIMEOUT"),
    "skipped": (ExecutionStatus.COMPLETED, "skipped"),
    "no_items": (ExecutionStatus.COMPLETED, "no_items"),
    "upstream_failed": (ExecutionStatus.CANCELLED, "upstream_failed"),
}


def lines_by_item(printed: Iterable[str]) -> Iterator[tuple[str, tuple[int, ...], str, bool]]:
    """Yield the lines of a pod's log: the task of its step, where the pod has several, the item, the text, and whether
    the line is the engine's: of KFP's launcher, which is in Go, or of Argo's executor.

    Notes mark the beginning of the next step or item.
    """
    task, index = "", tuple[int, ...]()
    in_output = False  # the launcher prints the outputs of the step in JSON, over several lines
    for line in printed:
        is_engine = in_output or bool(_ENGINE.match(line))
        if in_output:
            in_output = line != "}"
        elif is_engine:
            in_output = line.endswith("ExecutorOutput: {")
        elif line.startswith(RESULT):
            if "index" in (note := result_of(line).get("note", {})):
                task, index = note.get("task", ""), tuple(note["index"])
            continue
        yield task, index, line, is_engine


def result_of(line: str) -> dict[str, Any]:
    """Return FlowyML's result in a line of a pod's log.

    Empty for half a line, which is being written or was cut off, and for what another program printed.
    """
    try:
        result = parsed(line.removeprefix(RESULT).encode())
    except (ValueError, EngineError):
        return {}
    return result if isinstance(result, dict) and _is_result(result) else {}


def _is_result(result: Mapping[str, Any]) -> bool:
    """Return whether a pod of FlowyML wrote this. Any program may print what begins like it."""
    note = result.get("note", {})
    if not (_has_kinds(result, _RESULT) and _has_kinds(note, _NOTE)):
        return False
    needed = {*(("time", "attempt") if "index" in note else ()), *(("error",) if "ended" in note else ())}
    numbers = (note.get("attempt", 0), note.get("opened", 0), *note.get("index", ()))
    return (
        needed <= note.keys()
        and all(isinstance(number, int) and 0 <= number <= MOST_ITEMS for number in numbers)
        and 0 <= note.get("time", 0) < _LATEST
        and note.get("ended", "completed") in _ENDS
    )


def _has_kinds(fields: Mapping[str, Any], kinds: Mapping[str, Any]) -> bool:
    return all(isinstance(value, kinds.get(key, object)) for key, value in fields.items())


def step_runs(
    step: str, notes: Iterable[Mapping[str, Any]], run: ExecutionStatus, *, items: int | None = None,
    run_ended: datetime | None = None,
) -> list[StepRun]:  # fmt: skip
    """Return the runs of a step, in order. ``items`` is the number of items of its outermost loop, if it is known.

    ``run_ended`` is the end of the run, and so of the steps that it stopped.
    """
    by_index: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for note in (note for note in notes if "index" in note):
        by_index.setdefault(tuple(note["index"]), []).append(note)
    begun = {index[:1] for index in by_index}
    by_index.update({(number,): [] for number in range(items or 0) if (number,) not in begun})
    if not by_index:
        by_index[()] = []
    # A loop that never began is noted once, for the index around it; after a retry its items have notes of their own.
    stood_in = {index[:depth] for index in by_index for depth in range(len(index))}
    return [_step_run(step, index, by_index[index], run, run_ended) for index in sorted(by_index.keys() - stood_in)]


def _step_run(
    step: str, index: tuple[int, ...], notes: list[Mapping[str, Any]], run: ExecutionStatus, run_ended: datetime | None
) -> StepRun:
    begun = [note for note in notes if "ended" not in note]
    ended = next((note for note in reversed(notes) if "ended" in note), None)
    if ended and begun and begun[-1]["time"] > ended["time"]:
        ended = None  # it was tried again
    started_at = moment(begun[-1]["time"]) if begun else None
    # In a pod of its own, which KFP's retry creates, an attempt does not know earlier ones.
    attempt = max(int(begun[-1]["attempt"]), len(begun)) if begun else 0
    if ended is None:
        status, raw = (ExecutionStatus.RUNNING, "RUNNING") if begun else (ExecutionStatus.QUEUED, "PENDING")
        error = WAS_CANCELLED if begun and run is ExecutionStatus.CANCELLED else None
        if run is ExecutionStatus.COMPLETED:
            status, raw, error = run, "SUCCEEDED", UNKNOWN
        elif run.is_terminal:
            status, raw = ExecutionStatus.CANCELLED, "CANCELED" if begun else "PENDING"
        return StepRun(
            name=step, index=index, status=status, raw_status=raw, attempt=attempt, started_at=started_at,
            ended_at=run_ended if begun and run.is_terminal else None,
            error=error,
        )  # fmt: skip
    status, raw = _ENDS[ended["ended"]]
    error = ended["error"] or None
    if raw == "upstream_failed":
        error = f"not run, since {error}"
    return StepRun(
        name=step, index=index, status=status, raw_status=raw, attempt=attempt, started_at=started_at,
        ended_at=moment(ended["time"]), error=None if raw == "skipped" else error,
        cached_from=ended.get("cached", ""),
    )  # fmt: skip


def moment(seconds: float | None) -> datetime | None:
    """Return a time from the notes of pods, or the files of a local run."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
