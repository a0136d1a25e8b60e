"""The end of a log that grows while it is read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flowyml_airflow.client import LogEvent

__all__ = ["Tail"]

LAST_WORDS = 3  # seconds that a worker has, after the end of an attempt, for the end of its log
_Key = tuple[datetime | None, str, str]


@dataclass
class Tail:
    """What was taken of the log of one attempt.

    Events are known by what they say and when, not by their place: Airflow sorts them by time, so that a late one can
    come before one that was taken already.
    """

    taken: Counter[_Key] = field(default_factory=Counter)
    _last: _Key | None = None
    _over_since: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the log was read after its attempt was over, and after its worker had time for the last words."""
        return self._over_since is not None and time.monotonic() - self._over_since > LAST_WORDS

    def fresh(self, events: Sequence[LogEvent], *, grows: bool, over: bool = False) -> list[LogEvent]:
        """The events that are new. While the log ``grows``, one that may be half-written waits until it stays.

        ``over`` is the attempt that wrote it.
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
