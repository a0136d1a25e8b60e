"""The new lines of a run's log, and the lines that are the run's own, from the logs of its attempts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flowyml.core.runs import LogLine
from flowyml_airflow.log_events import LogEvent
from flowyml_airflow.names import START_TASK, TIMED_OUT, UPSTREAM_FAILED
from flowyml_airflow.step_runs import index_of, name_of

__all__ = ["LAST_WORDS", "Tail", "Tails", "class_of", "described", "is_airflows", "is_shown", "is_start", "line_of"]

_MACHINERY = (
    "task_runner.py", "airflow.dag_processing", "taskinstance.py", "standard_task_runner.py",
    "local_task_job_runner.py", "task_command.py", "secrets_masker.py",
)  # fmt: skip
_SUPERVISOR = "task"  # Airflow 3's supervisor, which names no file
_ENDS = (
    "task_runner.py", "taskinstance.py", "standard_task_runner.py", "local_task_job_runner.py", "process_utils.py",
)  # fmt: skip
LAST_WORDS = 3  # seconds that a worker has, after the end of an attempt, for the end of its log
_Key = tuple[datetime | None, str, str]
Tails = dict[tuple[str, int, int], "Tail"]  # by task, map index and attempt


@dataclass
class Tail:
    """The lines of one attempt's log that were read so far.

    Events are compared by text and time, not by position: Airflow sorts them by time, so a late event can come before
    one that was read already.
    """

    taken: Counter[_Key] = field(default_factory=Counter)
    _last: _Key | None = None
    _over_since: float | None = None

    @property
    def is_whole(self) -> bool:
        """True if the log was read after the attempt ended, and its worker had time for last lines."""
        return self._over_since is not None and time.monotonic() - self._over_since > LAST_WORDS

    def fresh(self, events: Sequence[LogEvent], *, grows: bool, over: bool = False) -> list[LogEvent]:
        """Return the new events.

        While the log ``grows``, an event that may be incomplete waits until it no longer changes.

        ``over`` is true if the attempt has ended.
        """
        if over and self._over_since is None:
            self._over_since = time.monotonic()
        if grows and events and events[-1].may_grow:
            before, self._last = self._last, _key(events[-1])
            if before != self._last:
                events = events[:-1]
        there: Counter[_Key] = Counter()
        found = []
        for event in events:
            there[_key(event)] += 1
            if there[_key(event)] > self.taken[_key(event)]:
                found.append(event)
        self.taken |= there
        return found


def _key(event: LogEvent) -> _Key:
    return event.time, event.source, event.message


def is_shown(event: LogEvent) -> bool:
    """Return whether a line belongs to the run, and not to Airflow's housekeeping."""
    if event.message.startswith(("::group::", "::endgroup::")):
        return False
    return event.level in ("ERROR", "WARNING", "CRITICAL") or not any(part in event.source for part in _MACHINERY)


def is_airflows(event: LogEvent) -> bool:
    """Return whether a line is Airflow's own report on the end of a task's process."""
    return event.source == _SUPERVISOR or any(part in event.source for part in _ENDS)


def line_of(event: LogEvent, task: Mapping[str, Any], attempt: int) -> LogLine:
    text = event.message
    if event.error and "\n" not in text:
        text = f"{text}: {described(str(event.error.get('exc_type')), str(event.error.get('exc_value')))}"
        text = "\n".join([text, *_frames(event.error)])
    step, index = ("", ()) if is_start(task) else (event.step or name_of(task), index_of(task))
    return LogLine(text, step=step, level=event.level, time=event.time, attempt=event.attempt or attempt, index=index)


def _frames(error: Mapping[str, Any]) -> list[str]:
    """Return the traceback of a task that is not FlowyML's, as Python writes it.

    A step of FlowyML's has logged its own.
    """
    frames = [frame for frame in error.get("frames") or () if isinstance(frame, Mapping)]
    if any(str(frame.get("filename", "")).endswith("flowyml_airflow/worker.py") for frame in frames):
        return []
    return [f'  File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}' for frame in frames]


def is_start(task: Mapping[str, Any]) -> bool:
    """Return whether a task is the one that a compiled DAG has for ``on_pipeline_start``, and not a step."""
    return bool(task["task_id"] == START_TASK and task.get("operator", "Start") == "Start")


def described(kind: str, said: str) -> str:
    """Describe an error of a task. FlowyML's tasks raise Airflow's own exceptions, with the step's error as text."""
    if class_of(kind) in ("AirflowException", "AirflowFailException", TIMED_OUT, UPSTREAM_FAILED) and said:
        return said
    return f"{kind}: {said}" if said else kind


def class_of(kind: str) -> str:
    """Return the name of a class, without its module."""
    return kind.rpartition(".")[2]
