"""The end of a log that grows while it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flowyml_airflow.client import LogEvent

__all__ = ["Tail"]

_Key = tuple[datetime | None, str, str]


@dataclass
class Tail:
    """What was taken of the log of one attempt.

    Events are known by what they say and when, not by their place: Airflow sorts them by time, so that a late one can
    come before one that was taken already.
    """

    taken: Counter[_Key] = field(default_factory=Counter)
    _last: _Key | None = None

    def fresh(self, events: Sequence[LogEvent], *, grows: bool) -> list[LogEvent]:
        """The events that are new. While the log ``grows``, one that may be half-written waits until it stays."""
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
