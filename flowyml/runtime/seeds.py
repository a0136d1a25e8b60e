"""Random numbers in forked children: a seed that the user's module has set stays; without one no two draw the same.

A fork copies the state of a generator. Python's ``random`` is seeded anew in every child, whether the user had seeded
it or not (source: ``os.register_at_fork`` in random.py); numpy's generator never is.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["Seeds"]


class Seeds:
    """What a parent knows of the generators, for the children that it forks."""

    def __init__(self) -> None:
        self._is_seeded = False
        self._state: tuple[Any, ...] | None = None

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """While the user's modules are imported: notice that ``random`` is given a seed or a state."""
        before = random.seed, random.setstate
        random.seed, random.setstate = self._noticing(random.seed), self._noticing(random.setstate)
        try:
            yield
        finally:
            random.seed, random.setstate = before
            self._state = random.getstate() if self._is_seeded else None

    def in_child(self) -> None:
        """Bring the generators of a forked child to where they should be."""
        if self._state is not None:
            random.setstate(self._state)
        _seed_numpy()

    def _noticing(self, function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def notice(*arguments: Any, **options: Any) -> None:
            function(*arguments, **options)
            self._is_seeded = next(iter((*arguments, *options.values())), None) is not None

        return notice


def _seed_numpy() -> None:
    """numpy's global generator starts with 0x80000000 as its first word (source: numpy/random/_mt19937.pyx); a seed
    that is an integer puts that integer there."""
    generator = sys.modules.get("numpy.random")
    if generator is None:
        return
    with suppress(Exception):  # the user has put in another generator, which is the user's to seed
        if generator.get_state()[1][0] == 0x80000000:
            generator.seed()
