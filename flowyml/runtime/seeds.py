"""Random numbers in forked children: a user's seed stays; without a seed, children draw different numbers.

A fork copies the state of a generator. Python's ``random`` is seeded anew in every child, whether the user had seeded
it or not (source: ``os.register_at_fork`` in random.py); numpy's generator never is, and neither is one that a module
has made for itself: ``random.Random()``, ``numpy.random.default_rng()``. Generators of other libraries, and one that a
pickled function brings along, are out of reach.
"""

from __future__ import annotations

import functools
import gc
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakSet

__all__ = ["Seeds"]


class Seeds:
    """A parent's record of its generators, for the children that it forks."""

    def __init__(self) -> None:
        self._is_seeded = False
        self._state: tuple[Any, ...] | None = None
        self._randoms: WeakSet[random.Random] = WeakSet()  # those created without a seed
        self._drawn: set[int] = set()  # from the system's randomness: numpy's own seeds
        self._is_noticing = False
        self._numpys: list[Any] = []

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Record, while the user's modules are imported, which generators are given a seed or a state."""
        self._is_noticing = True
        with ExitStack() as stack:
            for name in ("seed", "setstate"):
                stack.enter_context(_replaced(random, name, self._noticing))
                stack.enter_context(_replaced(random.Random, name, self._noticing_own))
            # At import, numpy takes `secrets.randbits`, which is this method of one object.
            stack.enter_context(_replaced(random.SystemRandom, "getrandbits", self._noticing_bits))
            for module in ("secrets", "numpy.random.bit_generator"):
                if module in sys.modules:
                    stack.enter_context(_replaced(sys.modules[module], "randbits", self._noticing_bits))
            try:
                yield
            finally:
                self._is_noticing = False
                self._state = random.getstate() if self._is_seeded else None
                self._numpys = [*_unseeded_of_numpy(self._drawn)]

    def reseed(self) -> None:
        """Seed the generators of a forked child again, except those with a seed of the user's."""
        if self._state is not None:
            random.setstate(self._state)
        for generator in list(self._randoms):
            generator.seed()
        for own in self._numpys:
            _seed_anew(own)
        _seed_numpy()

    def _noticing(self, function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def notice(*arguments: Any, **options: Any) -> None:
            function(*arguments, **options)
            self._is_seeded = _first(*arguments, **options) is not None

        return notice

    def _noticing_own(self, function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def notice(generator: random.Random, *arguments: Any, **options: Any) -> None:
            function(generator, *arguments, **options)
            (self._randoms.add if _first(*arguments, **options) is None else self._randoms.discard)(generator)

        return notice

    def _noticing_bits(self, function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def notice(*arguments: Any) -> int:
            bits = function(*arguments)
            if self._is_noticing:  # numpy keeps this function for good
                self._drawn.add(bits)
            return bits

        return notice


@contextmanager
def _replaced(owner: Any, name: str, by: Callable[[Any], Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, by(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def _first(*arguments: Any, **options: Any) -> Any:
    return next(iter((*arguments, *options.values())), None)


def _unseeded_of_numpy(drawn: set[int]) -> Iterator[Any]:
    """Yield numpy's generators without a seed, in all modules."""
    numpy = sys.modules.get("numpy.random")
    if numpy is None:
        return
    kinds = getattr(numpy, "Generator", None), getattr(numpy, "RandomState", None)
    for thing in gc.get_objects():
        if type(thing) in kinds:
            with suppress(Exception):  # a bit generator of the user's own kind
                if (thing.bit_generator.seed_seq.entropy in drawn) if type(thing) is kinds[0] else _is_unseeded(thing):
                    yield thing


def _seed_anew(generator: Any) -> None:
    if hasattr(generator, "bit_generator"):
        generator.bit_generator.state = type(generator.bit_generator)().state
    else:
        generator.seed()


def _is_unseeded(state: Any) -> bool:
    """Return whether a generator has no seed.

    A ``RandomState``, such as numpy's global one, starts with 0x80000000 as its first word (source:
    numpy/random/_mt19937.pyx); a seed that is an integer puts that integer there.
    """
    return bool(state.get_state()[1][0] == 0x80000000)


def _seed_numpy() -> None:
    numpy = sys.modules.get("numpy.random")
    if numpy is None:
        return
    with suppress(Exception):  # the user's own generator, for the user to seed
        if _is_unseeded(numpy):
            numpy.seed()
