"""The times of a schedule before a moment, and between two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flowyml.core.errors import DefinitionError
from flowyml.core.schedule import Schedule

MOST_TIMES = 1000
"""The largest number of times in one cutover."""


def time_before(schedule: Schedule, moment: datetime) -> datetime:
    """Return the last time of a schedule until a moment, in UTC."""
    found = schedule.dates_at(moment + timedelta(microseconds=1)).data_interval_start
    assert found is not None
    return found.astimezone(UTC)


def times_between(schedule: Schedule, after: datetime, until: datetime) -> list[datetime]:
    """Return the times of a schedule after one moment until another. Raises ``DefinitionError`` for too many."""
    found: list[datetime] = []
    time = after
    while (time := schedule.next_times(1, time)[0]) <= until:
        found.append(time.astimezone(UTC))
        if len(found) > MOST_TIMES:
            raise DefinitionError(
                f"More than {MOST_TIMES} times of the schedule are after {after.astimezone(UTC).isoformat()}: too many "
                f"to make up for."
            )
    return found
