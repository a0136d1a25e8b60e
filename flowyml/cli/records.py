"""Runs, schedules and values as JSON and as words. The fields are documented in docs/reference/scripting.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowyml.artifacts.folders import url_of
from flowyml.artifacts.plain import with_floats
from flowyml.cli.output import Word
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.core.runs import Artifact, LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import ScheduleInfo
from flowyml.orchestrators.base import Orchestrator
from flowyml.plan.parameters import in_words

__all__ = [
    "holds_copies", "metrics_of", "plain_artifact", "plain_log", "plain_outputs", "plain_run", "plain_schedule",
    "plain_step", "format_value", "status_word", "without_copies",
]  # fmt: skip

_LONGEST_VALUE = 200
_MARKS = frozenset(("$type", "$not_kept", "$filled"))
_STYLES = {
    ExecutionStatus.QUEUED: "dim",
    ExecutionStatus.RUNNING: "cyan",
    ExecutionStatus.COMPLETED: "green",
    ExecutionStatus.FAILED: "red",
    ExecutionStatus.CANCELLED: "yellow",
    ExecutionStatus.TIMEOUT: "red",
}


def status_word(status: ExecutionStatus) -> Word:
    return Word(status.name, _STYLES[status])


def plain_run(run: Run, orchestrator: str) -> dict[str, Any]:
    return {
        **_fields(run, "job_id", "run_id", "pipeline"),
        "orchestrator": orchestrator,
        **_fields(run, "status", "raw_status", "created_at", "started_at", "ended_at", "duration_seconds"),
        **_fields(run, "error", "url"),
        "parameters": {name: _parameter(value) for name, value in run.parameters.items()},
        "revision": run.revision,
    }


def plain_step(step: StepRun) -> dict[str, Any]:
    times = ("started_at", "ended_at", "duration_seconds")
    plain = _fields(step, "name", "status", "raw_status", "attempt", *times, "error", "index")
    return {**plain, "cached_from": step.cached_from or None}


def plain_log(line: LogLine) -> dict[str, Any]:
    return _fields(line, "time", "step", "index", "level", "message")


def plain_artifact(artifact: Artifact) -> dict[str, Any]:
    plain = _fields(artifact, "step", "index", "name", "type", "format", "size", "digest", "url", "picture")
    return {**plain, "metadata": _facts(artifact)}


def _facts(artifact: Artifact) -> dict[str, Any]:
    """Return the metadata of an artifact as JSON; a preview has marks for numbers that JSON lacks already."""
    read = {name: json.loads(json.dumps(value), object_hook=with_floats) for name, value in artifact.metadata.items()}
    return {name: _plain(value) for name, value in read.items()}


def metrics_of(target: Orchestrator, run: Run, lacks: list[str]) -> dict[str, Any]:
    """Return the metrics of a run by ``STEP.NAME``; append to ``lacks`` the reason if they cannot be read."""
    try:
        artifacts = target.run_artifacts(run.job_id)
    except UnsupportedFeatureError as error:
        lacks.append(f"metrics: {error}")
        return {}
    return {
        f"{labelled(artifact.step, artifact.index)}.{name}": value
        for artifact in artifacts
        if artifact.type == "metrics"
        for name, value in _facts(artifact).items()
    }


def plain_schedule(info: ScheduleInfo, orchestrator: str) -> dict[str, Any]:
    return {
        **_fields(info, "schedule_id", "pipeline"),
        "orchestrator": orchestrator,
        "schedule": info.schedule.to_dict(),
        **_fields(info, "paused", "next_runs", "missed", "drift"),
    }


def plain_outputs(outputs: Outputs) -> dict[str, Any]:
    """Return outputs as JSON.

    A value that JSON lacks is ``{"$type", "$repr"}``, one that was not stored ``{"$not_kept"}``.
    """
    kept = {name: _plain(value) for name, value in outputs.items()}
    return kept | {name: {"$not_kept": reason} for name, reason in outputs.not_kept.items()}


@dataclass(frozen=True, slots=True)
class _Url:
    """Stands for the copy of a stored file or folder, which is removed when the command has ended."""

    url: str

    def __repr__(self) -> str:
        return self.url


def without_copies(value: Any) -> Any:
    """Replace each copy of a stored file or folder in a value by its URL."""
    if url := url_of(value):
        return _Url(url)
    if type(value) in (list, tuple):
        return type(value)(map(without_copies, value))
    return {key: without_copies(item) for key, item in value.items()} if type(value) is dict else value


def holds_copies(value: Any) -> bool:
    """Return whether a value contains such a copy."""
    inside = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
    return url_of(value) is not None or any(map(holds_copies, inside))


def format_value(value: object) -> str:
    """Return a value on one line, cut if it is long; for the copy of a stored file, its URL, which is never cut."""
    if url := url_of(value):
        return url
    text = " ".join(repr(without_copies(value)).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return _unmistakable({key: _plain(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    kind = type(value)
    plain = {"$type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."), "$repr": format_value(value)}
    url = url_of(value)
    return {**plain, "$url": url} if url else plain


def _parameter(value: Any) -> Any:
    """Return a parameter's value; for a default that is a date of the run, its description."""
    if date := in_words(value):
        return {"$filled": date}
    return _unmistakable(value) if isinstance(value, dict) else value


def _unmistakable(value: dict[str, Any]) -> dict[str, Any]:
    """Return a dict that has one of the marks of this module as a key in a form that is not taken for it."""
    return value if _MARKS.isdisjoint(value) else {"$type": "dict", "$value": value}


def _fields(record: object, *names: str) -> dict[str, Any]:
    """Return fields of a record as JSON: times in ISO 8601, seconds to the microsecond."""
    return {name: _field(getattr(record, name)) for name in names}


def _field(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(map(_field, value))
    if isinstance(value, ExecutionStatus):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat()
    return round(value, 6) if isinstance(value, float) else value
