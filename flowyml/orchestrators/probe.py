"""Find out which engine answers at a URL, with only the standard library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flowyml.core.errors import ConfigurationError, EngineUnreachableError
from flowyml.core.tls import Tls, tls_cause, tls_trouble
from flowyml.core.urls import checked_url, redact_url, redact_urls, without_credentials

__all__ = ["Page", "Site"]

_LARGEST_PAGE = 65536  # bytes


@dataclass(frozen=True, slots=True)
class Page:
    """The answer of a page: HTTP status, media type, its JSON or None, and the target of a redirect."""

    status: int
    media_type: str
    content: Any = None
    redirected_to: str = ""

    def json(self) -> Any:
        """Return the body as JSON; None if it is not JSON, or the status is not 200."""
        return self.content if self.status == 200 else None

    def __str__(self) -> str:
        moved = f" at {self.redirected_to}, to which it redirects" if self.redirected_to else ""
        return f"{self.status} {self.media_type}".strip() + moved


class Site:
    """A URL and the pages below it. Each page is requested once; ``seen`` holds requests and answers.

    ``headers`` are sent to the URL itself and never to the target of a redirect, since they may contain credentials.
    ``timeout`` bounds each silence, and four times that a whole page, in seconds.
    """

    def __init__(
        self, url: str, *, timeout: float = 5, headers: Mapping[str, str] = {}, tls: Tls | None = None
    ) -> None:
        self.url = without_credentials(checked_url(url)).rstrip("/")
        self.timeout = timeout
        self.headers = dict(headers)
        self.tls = tls or Tls()
        self.seen: dict[str, Page] = {}

    def get(self, path: str) -> Page:
        """Return the page at ``path`` below the URL, or at a complete URL. Raises ``EngineUnreachableError`` if nothing
        answers.
        """
        url = without_credentials(path) if "://" in path else self.url + path
        if url not in self.seen:
            own = url.startswith(f"{self.url}/")
            self.seen[url] = self._ask(url, self.headers if own else {})
        return self.seen[url]

    def _ask(self, url: str, headers: Mapping[str, str]) -> Page:
        from flowyml.core.web import exchange

        requested: list[str] = []
        with _errors_named(requested):
            answer = exchange(
                url, headers={"Accept": "application/json", **headers}, timeout=self.timeout, tls=self.tls,
                limit=_LARGEST_PAGE, cut=True, follow=True, requested=requested,
            )  # fmt: skip
        return Page(answer.status, answer.media_type, answer.json(), answer.redirected_to)


@contextmanager
def _errors_named(requested: Sequence[str]) -> Iterator[None]:
    """Name the URLs in errors: the one that was ``requested``, and those to which it redirected."""
    from http.client import HTTPException, InvalidURL

    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        reason = redact_urls(getattr(error, "reason", None) or error)
        if isinstance(error, InvalidURL):  # which repeats a part of the URL
            reason = "the URL is malformed"
        led = f", to which {requested[0]} redirects" if len(requested) > 1 else ""
        place = redact_url(requested[-1])
        if cause := tls_cause(error):
            raise EngineUnreachableError(f"TLS with {place}{led} fails: {tls_trouble(cause)}") from error
        raise EngineUnreachableError(
            f"Nothing answers at {place}{led}: {reason}. Is the server running, and is this its address?"
        ) from (None if isinstance(error, InvalidURL) else error)
