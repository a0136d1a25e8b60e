"""Read the logs of a run's attempts: its lines, the error of a task, and whether a task has really stopped."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import AuthenticationError, EngineUnreachableError, ServerTroubleError
from flowyml.core.runs import LogLine
from flowyml_airflow.client import AirflowClient, KeptElsewhereError, NotThereError
from flowyml_airflow.log_events import TASK_FAILED, LogEvent
from flowyml_airflow.names import ERROR_KEY, START_TASK, TIMED_OUT, UPSTREAM_FAILED
from flowyml_airflow.outcomes import task_status
from flowyml_airflow.step_runs import attributed, index_of, map_index, name_of, steps_of_task

__all__ = ["LAST_WORDS", "RECORDING", "Tail", "TaskLogs", "is_start"]

_MACHINERY = (
    "task_runner.py", "airflow.dag_processing", "taskinstance.py", "standard_task_runner.py",
    "local_task_job_runner.py", "task_command.py", "secrets_masker.py",
)  # fmt: skip
_SUPERVISOR = "task"  # Airflow 3's supervisor, which names no file
_ENDS = (
    "task_runner.py", "taskinstance.py", "standard_task_runner.py", "local_task_job_runner.py", "process_utils.py",
)  # fmt: skip
LAST_WORDS = 3  # seconds that a worker has, after the end of an attempt, for the end of its log
RECORDING = frozenset({"Choose", "ExternalDag", "ItemStep", "ItemTogether", "Items", "Start", "Step", "Together"})
"""The classes of a compiled DAG file whose tasks record their errors: ``operator`` of a task in Airflow's API."""
_Key = tuple[datetime | None, str, str]
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_STOPPED = ("Task killed!", "terminated with exit code", "exited with return code", "Task exited")


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


class TaskLogs:
    """Reads the logs of tasks through a client, and remembers which lines it has returned as new."""

    def __init__(self, client: AirflowClient) -> None:
        self._client = client
        self._tails: dict[tuple[str, int, int], Tail] = defaultdict(Tail)  # by task, map index and attempt

    def read(self, run: Mapping[str, Any], task: Mapping[str, Any], attempt: int) -> list[LogEvent] | None:
        """Return the log of an attempt so far; None if Airflow does not answer."""
        try:
            return self._client.log(run["dag_id"], run["dag_run_id"], task, attempt)
        except (EngineUnreachableError, ServerTroubleError):
            return None

    def new_lines(
        self, run: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], *, follow: bool
    ) -> list[LogLine]:
        """Return the lines that are new; with ``follow``, a line that may be incomplete waits for the next call.

        ``facts`` are those of the DAG file.
        """
        lines: list[tuple[datetime, LogLine]] = []
        for task in tasks:
            newest, ended = task["try_number"] or 0, task_status(task, run).is_terminal
            names = steps_of_task(task["task_id"], facts)
            when = _EARLIEST  # lines that have no time go with those before them
            for attempt in range(1, newest + 1):
                tail = self._tails[task["task_id"], map_index(task), attempt]
                events = None if tail.is_whole else self.read(run, task, attempt)
                if events is None:
                    continue
                if names:
                    events = list(attributed(events, names, attempt))
                over = ended or attempt < newest
                for event in tail.fresh(events, grows=follow and not over, over=over):
                    when = event.time or when
                    if _is_shown(event) and (over or not event.is_reason):
                        lines.append((when, _line_of(event, task, attempt)))
        return [line for _, line in sorted(lines, key=lambda item: item[0])]

    def error(self, run: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[str, str]:
        """Return the error of the last attempt of a failed task, and the class of its exception."""
        if known := self._recorded(run, task):
            return known
        events = self.read(run, task, task["try_number"] or 1) or []
        raised = [event for event in events if event.error]
        # After the error come failures of callbacks and mails about it.
        if raised := [event for event in raised if event.message.startswith(TASK_FAILED)] or raised:
            error = raised[-1].error or {}
            kind, said = str(error.get("exc_type", "")), str(error.get("exc_value", ""))
            return _described(kind, said), _class_of(kind)
        errors = [event.message for event in events if event.level in ("ERROR", "CRITICAL")]
        if errors:
            return errors[-1], ""
        if ended := self._client.why_ended(run, task):
            return f"Airflow ended the task: {ended}", ""
        why = [event.message for event in events if event.is_reason]
        killed = "the process of the task ended without an error in its log; was its worker killed?"
        return " ".join([killed, *why[-1:]]), ""

    def _recorded(self, run: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the same from the XCom that a task of FlowyML's pushes before it fails; None without it."""
        if task.get("operator") not in RECORDING:
            return None
        try:
            said = self._client.xcom(run["dag_id"], run["dag_run_id"], task["task_id"], ERROR_KEY, map_index(task))
            kind, text = str(said["class"]), str(said["said"])
        except (NotThereError, KeptElsewhereError, AuthenticationError, KeyError, TypeError):  # or may not be read
            return None
        return (_described(kind, text), kind) if said.get("try") == task["try_number"] else None

    def has_stopped(self, run: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
        """Return whether the last attempt of a task has ended by its log, or never began."""
        events = [event for event in self.read(run, task, task["try_number"]) or () if event.time is not None]
        return not events or any(
            event.error or any(words in event.message for words in _STOPPED) for event in events if _is_airflows(event)
        )


def _key(event: LogEvent) -> _Key:
    return event.time, event.source, event.message


def _is_shown(event: LogEvent) -> bool:
    """Return whether a line belongs to the run, and not to Airflow's housekeeping."""
    if event.message.startswith(("::group::", "::endgroup::")):
        return False
    return event.level in ("ERROR", "WARNING", "CRITICAL") or not any(part in event.source for part in _MACHINERY)


def _is_airflows(event: LogEvent) -> bool:
    """Return whether a line is Airflow's own report on the end of a task's process."""
    return event.source == _SUPERVISOR or any(part in event.source for part in _ENDS)


def _line_of(event: LogEvent, task: Mapping[str, Any], attempt: int) -> LogLine:
    text = event.message
    if event.error and "\n" not in text:
        text = f"{text}: {_described(str(event.error.get('exc_type')), str(event.error.get('exc_value')))}"
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


def _described(kind: str, said: str) -> str:
    """Describe an error of a task. FlowyML's tasks raise Airflow's own exceptions, with the step's error as text."""
    if _class_of(kind) in ("AirflowException", "AirflowFailException", TIMED_OUT, UPSTREAM_FAILED) and said:
        return said
    return f"{kind}: {said}" if said else kind


def _class_of(kind: str) -> str:
    """Return the name of a class, without its module."""
    return kind.rpartition(".")[2]
