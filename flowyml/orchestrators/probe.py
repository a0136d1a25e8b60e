"""Asking a URL what lives there, with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import ConfigurationError, EngineUnreachableError
from flowyml.core.urls import checked_url, without_credentials

if TYPE_CHECKING:
    from ssl import SSLContext

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

    ``headers`` go to the URL itself and never to where it redirects, since they may hold credentials. ``verify`` is a
    file with the authorities to trust for TLS, or False to trust everybody.
    """

    def __init__(
        self, url: str, *, timeout: float = 5, headers: Mapping[str, str] = {}, verify: bool | str = True
    ) -> None:
        self.url = without_credentials(checked_url(url)).rstrip("/")
        self.timeout = timeout
        self.headers = dict(headers)
        self.verify = verify
        self.seen: dict[str, Answer] = {}

    def get(self, path: str) -> Answer:
        """The page at ``path`` below the URL, or at a whole URL. Raises ``EngineUnreachableError`` for silence."""
        url = without_credentials(path) if "://" in path else self.url + path
        if url not in self.seen:
            own = url.startswith(f"{self.url}/")
            self.seen[url] = _get(url, self.timeout, self.headers if own else {}, self.verify)
        return self.seen[url]


def _get(url: str, timeout: float, headers: Mapping[str, str], verify: bool | str) -> Answer:
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

    asked = [url]

    class Redirects(HTTPRedirectHandler):
        def redirect_request(self, *arguments: Any) -> Request | None:
            *_, target = arguments
            asked.append(without_credentials(target))
            return super().redirect_request(*arguments)

    trust = [] if verify is True else [HTTPSHandler(context=_trust(verify))]
    with _silence_told(asked):
        request = Request(url, headers={"Accept": "application/json", "User-Agent": "flowyml"})
        try:
            for name, value in headers.items():
                request.add_unredirected_header(name, value)
            response = build_opener(Redirects, *trust).open(request, timeout=timeout)
        except HTTPError as error:
            response = error
        with response:
            moved = asked[-1] if len(asked) > 1 else ""
            body = response.read(_LARGEST_ANSWER)
            return Answer(response.status, response.headers.get_content_type(), body, moved)


def _trust(verify: bool | str) -> SSLContext:
    """Trust the authorities in a file; with False, everybody."""
    import ssl

    if isinstance(verify, str):
        try:
            return ssl.create_default_context(cafile=verify)
        except OSError as error:  # SSLError too
            raise ConfigurationError(
                f"verify={verify!r} is no file of authorities in PEM format: {error.strerror or error}."
            ) from error
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


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
