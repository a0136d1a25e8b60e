"""Durations, zones, sizes and counts as people write them: ``30d``, ``12h``, ``CET``, ``10GB``, ``3 files``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from flowyml.core.errors import ConfigurationError

__all__ = ["bytes_of", "counted", "listed", "seconds_of", "size_text", "span_text", "zone_text"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,6})?)"


def seconds_of(text: str) -> float:
    """Parse a number of seconds with a unit: s, m, h, d or w. Raises ``ConfigurationError``.

    >>> seconds_of("30d"), seconds_of("1.5h")
    (2592000.0, 5400.0)
    """
    match = re.fullmatch(rf"{_NUMBER}\s*([smhdw])", text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a span of time. Write a number and s, m, h, d or w, as in 30d.")
    return float(match[1]) * _SECONDS[match[2]]


def bytes_of(text: str) -> int:
    """Parse a number of bytes with a unit: B, kB, MB, GB or TB. Raises ``ConfigurationError``.

    >>> bytes_of("10GB"), bytes_of("1.5 kB")
    (10000000000, 1500)
    """
    units = {unit.lower(): factor for unit, factor in _BYTES.items()}
    match = re.fullmatch(rf"{_NUMBER}\s*([kmgt]?b)", text.strip().lower())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a size. Write a number and B, kB, MB, GB or TB, as in 10GB.")
    return int(float(match[1]) * units[match[2]])


def size_text(size: int) -> str:
    """Return a size for people.

    >>> size_text(999), size_text(12_345), size_text(3_000_000_000)
    ('999 B', '12.3 kB', '3.0 GB')
    """
    unit, factor = max(
        ((unit, factor) for unit, factor in _BYTES.items() if factor <= max(size, 1)), key=lambda pair: pair[1]
    )
    return f"{size} B" if unit == "B" else f"{size / factor:.1f} {unit}"


def span_text(seconds: float) -> str:
    """Return a span of time for people: below a minute to a tenth of a second, less than one in two digits.

    >>> span_text(0.25), span_text(12.34), span_text(90), span_text(2 * 86_400 + 3601.2)
    ('0.25 s', '12.3 s', '1 min 30 s', '2 d 1 h 1 s')
    """
    if (short := round(seconds, 1 if seconds >= 1 else 3)) < 60:
        return f"{short:{'g' if seconds >= 1 else '.2g'}} s"
    rest, parts = round(seconds), []
    for unit, factor in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, factor)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def counted(number: int | str, thing: str) -> str:
    """Return a count with its noun, whose plural ends in ``s``.

    >>> counted(1, "file"), counted(0, "DAG"), counted("0.5", "second")
    ('1 file', '0 DAGs', '0.5 seconds')
    """
    return f"{number} {thing}{'s' * (str(number) != '1')}"


def listed(names: Sequence[str], limit: int) -> str:
    """Return the first names of a list, and the number of the others.

    >>> listed(["a", "b", "c"], 3), listed(["a", "b", "c"], 1)
    ('a, b, c', 'a and 2 more')
    """
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def zone_text(moments: Iterable[datetime]) -> str:
    """Return the time zone in which this machine shows moments: ``CET``, or ``CEST/CET`` across a clock change."""
    return "/".join(dict.fromkeys(f"{moment.astimezone():%Z}" for moment in sorted(moments)))
