"""The dates of a run: its logical date and its data interval, and the parameters to fill with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

from flowyml.core.errors import ParameterError

__all__ = ["DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "RunDates"]

# `Any`, so that type checkers also accept them as the default of a `date` or `datetime`.
LOGICAL_DATE: Final[Any] = "<logical_date>"
"""As a parameter: the logical date of the run."""
DATA_INTERVAL_START: Final[Any] = "<data_interval_start>"
"""As a parameter: the start of the run's data interval, which only a scheduled run has."""
DATA_INTERVAL_END: Final[Any] = "<data_interval_end>"
"""As a parameter: the end of the run's data interval, which only a scheduled run has."""

_FILLED: Mapping[str, str] = {
    LOGICAL_DATE: "logical_date",
    DATA_INTERVAL_START: "data_interval_start",
    DATA_INTERVAL_END: "data_interval_end",
}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDates:
    """The dates of a run. All times have a time zone.

    The logical date is the scheduled time; without a schedule, the time of the request. The data interval goes from the
    schedule's previous time to this one; without a schedule there is none.
    """

    logical_date: datetime = field(default_factory=_now)
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None

    @classmethod
    def of(cls, plain: Mapping[str, str | None]) -> RunDates:
        """Read back what ``plain()`` returned; missing fields get their defaults."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: datetime.fromisoformat(text) for name, text in plain.items() if text and name in known})

    def plain(self) -> dict[str, str]:
        moments = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: moment.isoformat() for name, moment in moments.items() if moment is not None}

    def filled(self, values: Mapping[str, Any], days: Collection[str] = ()) -> dict[str, Any]:
        """Return the parameters, with placeholders for dates filled in: a time in ISO 8601, for ``days`` only the day.

        The day is in the time zone of the schedule. Raises ``ParameterError`` if the run has no such date.

        >>> dates = RunDates(logical_date=datetime(2026, 3, 1, tzinfo=UTC))
        >>> dates.filled({"day": LOGICAL_DATE, "rows": 3})
        {'day': '2026-03-01T00:00:00+00:00', 'rows': 3}
        >>> dates.filled({"day": LOGICAL_DATE}, days={"day"})
        {'day': '2026-03-01'}
        """
        return {name: self._fill(name, value, name in days) for name, value in values.items()}

    def _fill(self, name: str, value: Any, is_day: bool) -> Any:
        date = _FILLED.get(value) if type(value) is str else None
        if date is None:
            return value
        moment: datetime | None = getattr(self, date)
        if moment is None:
            raise ParameterError(
                f"Parameter {name!r} takes the run's {date}, but this run has none: it was not scheduled, its "
                f"schedule was changed before it began, or the engine does not report its scheduled time. Pass a value "
                f"for {name!r}."
            )
        return (moment.date() if is_day else moment).isoformat()
