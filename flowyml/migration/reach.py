"""Follow links from items to others, step by step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def reached(start: Iterable[T], after: Callable[[T], Iterable[T]]) -> Iterator[T]:
    """Yield the first items and all that ``after`` leads to from them, each once, the nearest first.

    >>> list(reached([6], lambda number: [number // 2, number // 3] if number else []))
    [6, 3, 2, 1, 0]
    """
    found = dict.fromkeys(start)
    waiting = [*found]
    for each in waiting:  # which grows
        yield each
        new = [one for one in dict.fromkeys(after(each)) if one not in found]
        found.update(dict.fromkeys(new))
        waiting += new
