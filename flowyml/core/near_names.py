"""The known name closest to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the closest known name; None if no name is close.

    >>> nearest("retires", ["retry", "timeout"]), nearest("colour", ["retry", "timeout"])
    ('retry', None)
    """
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, sorted(known), 1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence to append to another, with a leading space; empty if no known name is close.

    >>> did_you_mean("retires", ["retry", "timeout"])
    " Did you mean 'retry'?"
    """
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""
