"""Lists that a server sends page by page, which end although the server does not want to."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flowyml.core.durations import span_text
from flowyml.core.errors import EngineError

__all__ = ["Listing"]

Answered = TypeVar("Answered")

_MOST_ENTRIES = 200_000  # of a list, such as the lines of a log
_MOST_EMPTY = 10  # empty pages of a list that name a next one, as with filters on a server
_LONGEST_LISTING = 300  # seconds that a server may take for all pages of a list


class Listing:
    """The pages of one list, which bounds a server that sends more and more.

    It bounds their entries, bytes, time and empty pages. A page with the same content as an earlier one, or with the
    same token for the next, is an error, whatever came between.
    """

    def __init__(self) -> None:
        self._entries = self._empty = self._bytes = 0
        self._seconds = 0.0
        self._seen: set[object] = set()

    def page(
        self,
        fetch: Callable[[], Answered],
        entries: Callable[[Answered], Sequence[Any]],
        token: Callable[[Answered], str | None] = lambda answer: None,
    ) -> Answered:
        """Return the next page, requested by ``fetch``; ``token`` returns the token of the page after it.

        Raises ``EngineError`` if the list has no end.
        """
        from flowyml.core.web import LARGEST_ANSWER, receiving

        begun = time.monotonic()
        with receiving() as received:
            answer = fetch()
        self._seconds += time.monotonic() - begun
        self._bytes += received.size
        number, following = len(entries(answer)), token(answer) or ""
        self._entries += number
        self._empty += not number
        content = received.last.replace(following.encode(), b"") if number else b""
        for mark in filter(None, (following, content and hashlib.blake2b(content).digest())):
            if mark in self._seen:
                what = "token of a next page" if mark == following else "page"
                raise EngineError(f"A list has no end: after {self._entries} entries, an earlier {what} came again.")
            self._seen.add(mark)
        if (
            self._entries > _MOST_ENTRIES
            or self._bytes > LARGEST_ANSWER
            or self._seconds > _LONGEST_LISTING
            or self._empty > _MOST_EMPTY
        ):
            raise EngineError(
                f"A list has no end: {self._entries} entries came in {span_text(self._seconds)} and "
                f"{self._bytes / 2**20:.0f} MB, with {self._empty} empty pages. At most {_MOST_ENTRIES} are read, in "
                f"{_LONGEST_LISTING} s and {LARGEST_ANSWER / 2**20:g} MB, with {_MOST_EMPTY} empty pages."
            )
        return answer
