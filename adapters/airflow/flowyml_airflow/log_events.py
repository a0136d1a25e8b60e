"""The lines of an attempt's log, from Airflow's API: JSON on Airflow 3, text on Airflow 2."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flowyml_airflow.status import moment

__all__ = ["TASK_FAILED", "LogEvent", "log_events", "text_log_events"]

TASK_FAILED = "Task failed with exception"
"""The beginning of the event of an exception in a task; source: Airflow, task_runner.py, and taskinstance.py of 2."""

_LONGEST_HEAD = 100  # lines
_ABOUT = "*** "  # begins Airflow 2's own lines about the source of a log
_LINE = re.compile(r"\[(?P<time>\d{4}-\d\d-\d\dT[^\]]+)\] \{(?P<source>[^}]*)\} (?P<level>[A-Z]+) - (?P<message>.*)")
# Not why a log is missing: marks of Airflow's, and where it has found a log, which may be empty. Source: on both, the
# ``FileTaskHandler`` and the remote ones.
_NO_REASON = re.compile(r"::(end)?group::|/|\w+://|Found |  \* ")
_RAISED = re.compile(r"(?P<type>(?:[A-Za-z_]\w*\.)*[A-Z]\w*)(?:: (?P<value>.*))?")


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line of the log of an attempt. ``source`` is the logger, ``error`` the error of a failed attempt.

    ``is_reason`` is true for what Airflow says instead of a log, ``may_grow`` if the line may be incomplete. ``step``
    and ``attempt`` are set for a line of a step in an execution group.
    """

    message: str
    level: str = "INFO"
    time: datetime | None = None
    source: str = ""
    error: Mapping[str, Any] | None = None
    may_grow: bool = False
    is_reason: bool = False
    step: str = ""
    attempt: int = 0


def log_events(content: Sequence[Any]) -> list[LogEvent]:
    """Return the log of an attempt on Airflow 3."""
    log = _without_head(content)
    if not log:
        return _reasons(map(_said, content))
    return [_event(item) for item in log if not _is_torn(item)]


def _reasons(head: Iterable[str]) -> list[LogEvent]:
    """Return why Airflow has no log, from its own lines about the source."""
    return [
        LogEvent(f"Airflow has no log of this attempt: {text}", "WARNING", is_reason=True)
        for text in head
        if not _NO_REASON.match(text)
    ]


def _without_head(content: Sequence[Any]) -> Sequence[Any]:
    """Return the log without Airflow's own lines about its source, which are at its beginning and have no time."""
    head = content[:_LONGEST_HEAD]
    ends = [number for number, item in enumerate(head) if _said(item) == "::endgroup::" and not _time(item)]
    has_head = bool(ends) and _said(head[0]).startswith("::group::Log message source")
    return content[ends[0] + 1 :] if has_head else content


def _said(item: Any) -> str:
    return str(item.get("event", "") if isinstance(item, dict) else item)


def _time(item: Any) -> str | None:
    return item.get("timestamp") if isinstance(item, dict) else None


def _is_torn(item: Any) -> bool:
    """Return whether a line is incomplete: Airflow passes on incomplete JSON as if it were text.

    Source: Airflow, ``file_task_handler._log_stream_to_parsed_log_stream``.
    """
    return isinstance(item, dict) and not item.get("timestamp") and str(item.get("event", "")).startswith("{")


def _event(item: Any) -> LogEvent:
    if not isinstance(item, dict):
        return LogEvent(str(item))
    source = ":".join(str(item[part]) for part in ("logger", "filename") if item.get(part))
    detail = item.get("error_detail") or [None]
    return LogEvent(
        str(item.get("event", "")),
        str(item.get("level") or "info").upper(),
        moment(item.get("timestamp")),
        source,
        detail[0],
    )


def _text(content: str) -> str:
    """Return the text of the log. The content is the repr of a list of pairs: host and text."""
    try:
        return "\n".join(str(text) for _, text in ast.literal_eval(content))
    except (ValueError, SyntaxError, TypeError):
        return content


def text_log_events(content: str) -> list[LogEvent]:
    """Parse the log of an attempt on Airflow 2, which is text.

    A line that begins with a time begins an event; other lines belong to the event before.

    The last line may be incomplete, or have more lines to come: Airflow leaves out the line break that ends it.
    """
    events: list[LogEvent] = []
    lines = _text(content).splitlines()
    for line in lines:
        if match := _LINE.fullmatch(line):
            time = datetime.fromisoformat(match["time"])
            events.append(LogEvent(match["message"], match["level"], time, match["source"]))
        elif events:
            events[-1] = _continued(events[-1], line)
    if not events:
        return _reasons(line.removeprefix(_ABOUT) for line in lines if line.startswith(_ABOUT))
    return [*events[:-1], replace(events[-1], may_grow=True)]


def _continued(event: LogEvent, line: str) -> LogEvent:
    raised = _RAISED.fullmatch(line) if event.message.startswith(TASK_FAILED) else None
    error = {"exc_type": raised["type"], "exc_value": raised["value"] or ""} if raised else event.error
    return LogEvent(f"{event.message}\n{line}", event.level, event.time, event.source, error)
