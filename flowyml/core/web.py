"""One HTTP exchange with the standard library: bounded in bytes and time, over verified TLS, without leaking secrets.

Workers, the probe and the Pushgateway use this. The adapters' clients, which reuse connections and retry, are in
``flowyml.orchestrators.http``.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from flowyml.core.durations import span_text
from flowyml.core.errors import ConfigurationError, EngineError
from flowyml.core.tls import Tls
from flowyml.core.urls import redact_url, same_address

__all__ = [
    "LARGEST_ANSWER",
    "Answer",
    "Deadline",
    "JsonObject",
    "Received",
    "TooLargeError",
    "check_values",
    "exchange",
    "media_type",
    "note_received",
    "page_title",
    "receiving",
]

LARGEST_ANSWER = 256 * 2**20
"""The limit in bytes for an answer. The largest answers of engines are logs."""

_MOST_VALUES = 4_000_000  # of an answer in JSON: objects, lists, and what is in them; as Python objects, some 1 GB
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_TITLE_WITHIN = 20_000  # characters


class TooLargeError(OSError):
    """The answer is larger than the limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer. Names of headers are in lower case; ``redirected_to`` is the target of a redirect."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    redirected_to: str = ""

    @property
    def media_type(self) -> str:
        """``application/json``, or empty."""
        return media_type(self.headers)

    def json(self) -> Any:
        """Return the body as JSON, or None if it is not JSON, or too deeply nested.

        Raises ``EngineError`` if it holds more values than ``check_values`` allows.
        """
        try:
            return parsed(self.body)
        except ValueError:
            return None


def parsed(body: bytes) -> Any:
    """Return the JSON that another program wrote.

    Raises ``ValueError`` if it is not JSON, or nested too deeply, and ``EngineError`` as ``check_values`` does.
    """
    check_values(body)
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_values(body: bytes) -> None:
    """Raise ``EngineError`` for JSON with more values than FlowyML reads, before they fill the memory.

    ``[{},{},…]`` takes 24 times as much memory as it has bytes. Texts, such as a log with many commas, do not count.
    """
    if _marks(body) > _MOST_VALUES and _marks(_TEXT.sub(b"", body)) > _MOST_VALUES:
        raise EngineError(
            f"An answer of {len(body) / 2**20:.0f} MB holds more than {_MOST_VALUES:,} values, which FlowyML does not "
            f"read. Another program may answer there."
        )


def _marks(body: bytes) -> int:
    return body.count(b"{") + body.count(b"[") + body.count(b",")


class JsonObject(dict[str, Any]):
    """An object in an answer. A missing field raises ``EngineError``, since the answer is not from the engine.

    >>> JsonObject({"status": "ok"}, "http://127.0.0.1:80 answered GET /api/runs")["runs"]
    Traceback (most recent call last):
    flowyml.core.errors.EngineError: http://127.0.0.1:80 answered GET /api/runs without the field 'runs': \
    {'status': 'ok'}. Another program may answer there, or another version of the engine.
    """

    def __init__(self, content: Mapping[str, Any] = {}, context: str = "") -> None:
        super().__init__(content)
        self.context = context

    def __missing__(self, field: str) -> Any:
        raise EngineError(
            f"{self.context} without the field {field!r}: {dict(self)!r:.200}. Another program may answer there, or "
            f"another version of the engine."
        )


def media_type(headers: Mapping[str, str]) -> str:
    """
    >>> media_type({"Content-Type": "application/json; charset=utf-8"})
    'application/json'
    """
    kinds = (value for name, value in headers.items() if name.lower() == "content-type")
    return next(kinds, "").partition(";")[0].strip().lower()


def page_title(page: str | bytes) -> str:
    """Return the title of an HTML page, on one line and cut; empty if it has none. Reads each character once.

    >>> page_title("<html><head><TITLE lang=en> Sign \\n in </TITLE>")
    'Sign in'
    """
    text = page[:_TITLE_WITHIN].decode("utf-8", "replace") if isinstance(page, bytes) else page[:_TITLE_WITHIN]
    lower = text.lower()
    if len(lower) != len(text):  # a letter whose lower case has two letters
        text = lower
    opened = lower.find("<title")
    begin = lower.find(">", opened) + 1 if opened >= 0 else 0
    end = lower.find("</title", begin) if begin else -1
    title = " ".join(text[begin : max(begin, end)].split())
    return "".join(letter for letter in title if letter.isprintable())[:80]


@dataclass(slots=True)
class Received:
    """The bytes of all answers within ``receiving``, and the body of the last one."""

    size: int = 0
    last: bytes = b""


_received: ContextVar[Received | None] = ContextVar("flowyml_received", default=None)


@contextmanager
def receiving() -> Iterator[Received]:
    """Count the bytes of the answers within this block, of any client."""
    received = Received()
    token = _received.set(received)
    try:
        yield received
    finally:
        _received.reset(token)


def note_received(body: bytes) -> None:
    """Record the body of an answer; called by each client."""
    if (received := _received.get()) is not None:
        received.size += len(body)
        received.last = body


class Deadline:
    """Closes the connections that it watches at a deadline, even if the other side keeps sending slowly.

    A socket's timeout restarts with each byte, so it is no limit. Use it as a context manager; ``expired`` is True if
    the deadline was reached.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._watched: list[socket.socket] = []
        self._responses: list[HTTPResponse] = []
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def watch(self, connection: socket.socket) -> None:
        """Watch a connection, with TLS or before it; Python refuses ``dup`` of one with TLS."""
        kind = connection.family, connection.type, connection.proto
        self._watched.append(socket.fromfd(connection.fileno(), *kind))
        if self.expired:
            self._expire()

    def close_at_end(self, response: HTTPResponse) -> HTTPResponse:
        """Close a response when this block ends: after an error, the traceback would keep it open."""
        self._responses.append(response)
        return response

    def _expire(self) -> None:
        self.expired = True
        for connection in tuple(self._watched):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise ``TimeoutError`` after the deadline."""
        if self.expired:
            raise TimeoutError(f"the answer was not complete after {span_text(self.seconds)}")

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        for response in self._responses:
            response.close()
        for connection in self._watched:
            connection.close()


def exchange(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] = {},
    body: bytes | None = None,
    timeout: float = 30,
    total: float | None = None,
    tls: Tls = Tls(),  # noqa: B008  # it is frozen
    limit: int = LARGEST_ANSWER,
    cut: bool = False,
    follow: bool = False,
    keep_headers: bool = False,
    requested: list[str] | None = None,
) -> Answer:
    """Send one request.

    ``timeout`` bounds each silence and ``total`` the whole, in seconds; by default four times as long.

    A redirect is an answer like any other, unless ``follow``: then it is followed without a body, and without
    ``headers``, which may contain credentials; with ``keep_headers``, a redirect within the same address gets them.
    ``requested`` receives each requested URL. With ``cut``, an answer longer than ``limit`` bytes is cut off there.
    Credentials in the URL are not sent.

    Raises ``OSError``, of which ``TimeoutError`` and ``TooLargeError`` are kinds, ``http.client.HTTPException`` for
    what is not HTTP, and ``ConfigurationError``.
    """
    requested = [] if requested is None else requested
    requested.append(redact_url(url))
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    request = Request(bare, body, {"User-Agent": "flowyml"}, method=method)
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    with Deadline(total or 4 * timeout) as deadline:
        try:
            with _opened(
                _opener(deadline, tls, requested, follow=follow, keep_headers=keep_headers), request, timeout
            ) as response:
                content = _read(response, limit, cut=cut)
                received = {name.lower(): value for name, value in response.headers.items()}
        except ConfigurationError:  # of ``tls``
            raise
        except ValueError as error:
            raise OSError(f"{requested[-1]} redirects to an address that is not a URL: {error}") from error
        except Exception:
            deadline.check()
            raise
        deadline.check()
        return Answer(response.status, received, content, requested[-1] if len(requested) > 1 else "")


def _opened(opener: OpenerDirector, request: Request, timeout: float) -> Any:
    try:
        return opener.open(request, timeout=timeout)
    except HTTPError as error:  # an answer too
        return error


def _read(response: Any, limit: int, *, cut: bool) -> bytes:
    content: bytes = response.read(limit + 1)
    if len(content) > limit and not cut:
        raise TooLargeError(f"the answer is larger than {limit / 2**20:g} MB")
    if len(content) <= limit and getattr(response, "length", None):  # the answer was cut short
        raise IncompleteRead(content, response.length)
    return content[:limit]


def _opener(deadline: Deadline, tls: Tls, requested: list[str], *, follow: bool, keep_headers: bool) -> OpenerDirector:
    """Return the parts of ``urllib`` that are used: HTTP and proxies; no files, FTP, or stored passwords."""

    class Redirects(HTTPRedirectHandler):
        def redirect_request(
            self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Request | None:
            if not follow or urlsplit(newurl).scheme not in ("http", "https"):
                return None
            requested.append(redact_url(newurl).partition("?")[0])
            parts = urlsplit(newurl)  # a login in it would be looked up as a part of the host's name
            before, target = req, urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
            follow_up = super().redirect_request(req, fp, code, msg, headers, target)
            if (
                keep_headers
                and follow_up is not None
                and same_address(urljoin(before.full_url, "/"), urljoin(target, "/"))
            ):
                for name, value in before.unredirected_hdrs.items():
                    if not name.lower().startswith("content-"):
                        follow_up.add_unredirected_header(name, value)
            return follow_up

    class Watched(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

        def getresponse(self) -> HTTPResponse:
            return deadline.close_at_end(super().getresponse())

    class WatchedTls(HTTPSConnection, Watched):
        """``HTTPSConnection`` connects by the next class, ``Watched``, and then starts TLS."""

    class Http(HTTPHandler):
        def http_open(self, request: Request) -> HTTPResponse:
            return self.do_open(Watched, request)

    class Https(HTTPSHandler):
        def https_open(self, request: Request) -> HTTPResponse:
            return self.do_open(WatchedTls, request, context=tls.context())

    opener = OpenerDirector()
    for handler in (ProxyHandler, Http, Https, Redirects, HTTPErrorProcessor, HTTPDefaultErrorHandler, UnknownHandler):
        opener.add_handler(handler())
    return opener
