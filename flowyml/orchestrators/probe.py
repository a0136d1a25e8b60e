"""Asking a URL what lives there, with the standard library alone and without credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flowyml.core.errors import EngineUnreachableError
from flowyml.core.urls import checked_url, without_credentials

__all__ = ["Answer", "Site"]

_LARGEST_ANSWER = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page answered: HTTP status, media type, and the beginning of its body."""

    status: int
    media_type: str
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when it is none, or when the status is not 200."""
        if self.status != 200:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.status} {self.media_type}".strip()


class Site:
    """A URL and the pages below it. Each page is asked once; ``seen`` tells what was asked and answered."""

    def __init__(self, url: str, *, timeout: float = 5) -> None:
        self.url = checked_url(url).rstrip("/")
        self.timeout = timeout
        self.seen: dict[str, Answer] = {}

    def get(self, path: str) -> Answer:
        """The page at ``path`` below the URL, or at a whole URL. Raises ``EngineUnreachableError`` for silence."""
        url = without_credentials(path if "://" in path else self.url + path)
        if url not in self.seen:
            self.seen[url] = _get(url, self.timeout)
        return self.seen[url]


def _get(url: str, timeout: float) -> Answer:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    with _silence_told(url):
        request = Request(url, headers={"Accept": "application/json", "User-Agent": "flowyml"})
        try:
            with urlopen(request, timeout=timeout) as response:
                return Answer(response.status, response.headers.get_content_type(), response.read(_LARGEST_ANSWER))
        except HTTPError as error:
            with error:
                return Answer(error.code, error.headers.get_content_type(), error.read(_LARGEST_ANSWER))


@contextmanager
def _silence_told(url: str) -> Iterator[None]:
    from http.client import HTTPException

    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise EngineUnreachableError(
            f"Nothing answers at {url}: {reason}. Is the server running, and is this its address?"
        ) from error
