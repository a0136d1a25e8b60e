"""Asking a URL what lives there, with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flowyml.core.errors import EngineUnreachableError
from flowyml.core.urls import checked_url, without_credentials

__all__ = ["Answer", "Site"]

_LARGEST_ANSWER = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page answered: HTTP status, media type, the beginning of its body, and who answered after a redirect."""

    status: int
    media_type: str
    body: bytes
    redirected_to: str = ""

    def json(self) -> Any:
        """The body as JSON; None when it is none, or when the status is not 200."""
        if self.status != 200:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        moved = f" at {self.redirected_to}, to which it redirects" if self.redirected_to else ""
        return f"{self.status} {self.media_type}".strip() + moved


class Site:
    """A URL and the pages below it. Each page is asked once; ``seen`` tells what was asked and answered.

    ``headers`` go to the URL itself and never to where it redirects, since they may hold credentials. ``ca_file`` holds
    the certificates to trust.
    """

    def __init__(
        self, url: str, *, timeout: float = 5, headers: Mapping[str, str] = {}, ca_file: str | None = None
    ) -> None:
        self.url = without_credentials(checked_url(url)).rstrip("/")
        self.timeout = timeout
        self.headers = dict(headers)
        self.ca_file = ca_file
        self.seen: dict[str, Answer] = {}

    def get(self, path: str) -> Answer:
        """The page at ``path`` below the URL, or at a whole URL. Raises ``EngineUnreachableError`` for silence."""
        url = without_credentials(path) if "://" in path else self.url + path
        if url not in self.seen:
            own = url.startswith(f"{self.url}/")
            self.seen[url] = _get(url, self.timeout, self.headers if own else {}, self.ca_file)
        return self.seen[url]


def _get(url: str, timeout: float, headers: Mapping[str, str], ca_file: str | None) -> Answer:
    from ssl import create_default_context
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

    asked = [url]

    class Redirects(HTTPRedirectHandler):
        def redirect_request(self, *arguments: Any) -> Request | None:
            *_, target = arguments
            asked.append(without_credentials(target))
            return super().redirect_request(*arguments)

    with _silence_told(asked):
        request = Request(url, headers={"Accept": "application/json", "User-Agent": "flowyml"})
        try:
            for name, value in headers.items():
                request.add_unredirected_header(name, value)
            trusted = [HTTPSHandler(context=create_default_context(cafile=ca_file))] if ca_file else []
            response = build_opener(Redirects, *trusted).open(request, timeout=timeout)
        except HTTPError as error:
            response = error
        with response:
            moved = asked[-1] if len(asked) > 1 else ""
            body = response.read(_LARGEST_ANSWER)
            return Answer(response.status, response.headers.get_content_type(), body, moved)


@contextmanager
def _silence_told(asked: Sequence[str]) -> Iterator[None]:
    """``asked`` are the URL and those to which it led."""
    from http.client import HTTPException

    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        led = f", to which {asked[0]} redirects" if len(asked) > 1 else ""
        raise EngineUnreachableError(
            f"Nothing answers at {asked[-1]}{led}: {reason}. Is the server running, and is this its address?"
        ) from error
