"""The known name that a misspelt one is most like."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, if any is like it at all.

    >>> nearest("retires", ["retry", "timeout"]), nearest("colour", ["retry", "timeout"])
    ('retry', None)
    """
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, sorted(known), 1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence to put behind another, with the space before it; empty when no known name is like this one.

    >>> did_you_mean("retires", ["retry", "timeout"])
    " Did you mean 'retry'?"
    """
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""
