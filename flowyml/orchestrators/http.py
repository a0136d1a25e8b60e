"""HTTP for adapters: call an engine's API over persistent connections.

Retries transient failures, bounds every answer in bytes and time, follows no redirect, distinguishes an answer of the
engine from those of proxies and login pages, and verifies TLS. A subclass adds the engine's own words.

It uses httpcore, the layer below httpx: httpx cannot bound the whole time of a call, since its timeouts restart with
each byte that arrives. ``flowyml.core.web`` is a smaller version with the standard library.
"""

from __future__ import annotations

import json as json_module
import math
import random
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit, urlunsplit

from flowyml.core.credentials import Auth, lacks_permission
from flowyml.core.errors import (
    AuthenticationError,
    ConfigurationError,
    EngineError,
    EngineUnreachableError,
    ServerTroubleError,
)
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.tls import Tls, tls_cause, tls_trouble
from flowyml.core.urls import redact_url, redact_urls
from flowyml.orchestrators.listing import Listing

if TYPE_CHECKING:
    import httpcore

    from flowyml.core.web import Answer

__all__ = [
    "BUSY",
    "ConflictError",
    "HttpClient",
    "NotFoundError",
    "ProxyLoginError",
    "RefusedError",
    "is_this_machine",
    "one_spelling",
    "paged",
    "status_error",
]

Item = TypeVar("Item")
Page = tuple[Sequence[Item], int | None]

BUSY = frozenset({429, 502, 503, 504})
"""The statuses of a busy server, or of a proxy that cannot reach its server: a retry may succeed soon."""

_BUSY_SECONDS = 3  # SQLite under many writers is free again within this
_LONGEST_PAUSE = 60  # seconds that a server may ask for in Retry-After
_ASKED_PAUSES = 3
_ERROR_BYTES = 2**20
_DETAIL = 500  # characters


def is_this_machine(url: str) -> bool:
    """Return whether a URL leads to this machine, judged by its host only.

    >>> is_this_machine("http://localhost:8080"), is_this_machine("http://[::1]/api"), is_this_machine("http://10.0.0.1")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def paged(fetch: Callable[[int, int], Page[Item]], size: int, limit: int | None = None) -> Iterator[Item]:
    """Yield the items of a list that a server returns page by page, all of them or the first ``limit``.

    ``fetch`` gets the size of a page and the number of items before it, and returns its items and, if the server
    reports it, the total. If not, a page with fewer items than requested is the last one. Raises ``EngineError`` for a
    list without end.
    """
    read, listing = 0, Listing()
    while limit is None or read < limit:
        page_size = size if limit is None else min(size, limit - read)
        items, total = listing.page(partial(fetch, page_size, read), lambda page: page[0])
        yield from items
        read += len(items)
        if not items or (len(items) < page_size if total is None else read >= total):
            return


def one_spelling(url: str) -> str:
    """Return the address of a server without credentials, the same for all spellings.

    >>> {one_spelling(url) for url in ("http://LOCALHOST/", "http://127.0.0.1:80", "http://[::1]")}
    {'http://localhost:80'}
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    host = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


class NotFoundError(EngineError, LookupError):
    """The engine answered 404: it has nothing of this name."""


class ConflictError(EngineError):
    """The engine answered 409: the object exists, created by another process or by a call whose answer was lost."""


class ProxyLoginError(AuthenticationError):
    """A proxy in front of the engine requires its own login, so the call did not reach the engine."""


class RefusedError(EngineError, ValueError):
    """The engine answered 400 or 422: it rejects the request."""


def status_error(status: int, message: str) -> EngineError:
    """Return the error for a status that does not refuse the credentials. The same for all engines.

    >>> status_error(404, "no such run")
    NotFoundError('no such run')
    """
    if status in BUSY:
        return EngineUnreachableError(message)
    kind = {404: NotFoundError, 409: ConflictError, 400: RefusedError, 422: RefusedError}.get(status)
    return kind(message) if kind else ServerTroubleError(message) if status >= 500 else EngineError(message)


class HttpClient:
    """Calls to one server, safe for many threads.

    ``timeout`` bounds each silence of the server, and four times that a whole answer, in seconds. ``policy`` is for
    retries if a server does not answer or has an error, but not if an answer takes longer than that; a busy server is
    retried for some seconds even without it, and after its ``Retry-After``. Raises kinds of ``EngineError``.
    """

    engine: ClassVar[str] = "the engine"
    """The engine's name in errors."""
    advice: ClassVar[str] = "Is the server running, and is this its address?"
    """The advice in errors if it does not answer."""
    answers_objects: ClassVar[bool] = False
    """True if the engine always answers with a JSON object. Any other answer then comes from another program."""

    def __init__(
        self,
        url: str,
        *,
        auth: Auth | None = None,
        tls: Tls | None = None,
        timeout: float = 30,
        policy: OrchestratorRetryPolicy | None = None,
    ) -> None:
        self.url = url
        self.auth = Auth() if auth is None else auth  # an empty one may have a note
        self.tls = tls or Tls()
        self.timeout = timeout
        self.policy = policy
        self._pool: httpcore.ConnectionPool | None = None
        self._opening = threading.Lock()

    # Methods that a subclass may override for its engine.

    def base(self) -> str:
        """Return the URL that all paths are relative to. May raise ``ConfigurationError``."""
        return self.url

    def headers(self) -> dict[str, str]:
        """Return the credentials of each call."""
        return self.auth.headers()

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Return whether another try makes sense after a refusal of these headers."""
        return self.auth.renew(refused)

    def refusal(self, status: int) -> AuthenticationError:
        """Return the error for a 401 or 403."""
        return AuthenticationError(
            f"{self.engine} at {self.url} refuses these credentials ({status}). {self.auth.note}"
        )

    def permission(self, method: str, path: str) -> str:
        """Return the permission that a call needs, in the engine's own words; empty if unknown."""
        return ""

    def busy_seconds(self, answer: Answer) -> float:
        """Return the seconds for which to retry a server that gives this answer because it is busy."""
        return _BUSY_SECONDS

    def foreign_answer(self, answer: Answer, method: str, path: str) -> EngineError:
        """Return the error for an answer that is not the engine's JSON: of a proxy, a login page, another program."""
        from flowyml.core.web import page_title

        status, title = answer.status, page_title(answer.body)
        titled = f" titled {title!r}" if title else ""
        what = (
            f"{self.url} answered {method} {path} with a page{titled} ({status}, {answer.media_type or 'no type'}), "
            f"which does not come from {self.engine}'s API"
        )
        if status in BUSY:
            return EngineUnreachableError(f"{what}. The proxy in front of {self.engine} cannot reach it.")
        if target := answer.headers.get("location"):
            return self._moved(what, urljoin(self.url, target), path)
        if status in (401, 403, 407) or 300 <= status < 400:
            return ProxyLoginError(
                f"{what}. A proxy in front of {self.engine} requires a login of its own: give auth=Auth(cookies=…)."
            )
        if status >= 500:
            return ServerTroubleError(f"{what}. Its log says why.")
        return EngineError(f"{what}. A proxy or a login page answered, or the URL is another site's.")

    # Calls.

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON at a path. Parameters that are None are left out."""
        return self.call("GET", path, params=params)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] = {},
        json: Any = None,
        again: bool = True,
        anonymous: bool = False,
    ) -> Any:
        """Make a call, retried after transient failures unless ``again`` is false; return its JSON, or None."""
        target, content = path + _query(params), None if json is None else json_module.dumps(json).encode()
        delays = iter(self.policy.delays if self.policy and again else ())
        while True:
            try:
                answer = self._send_signed_in(method, target, content, again, anonymous)
                return self._json_or_error(answer, method, path)
            except (EngineUnreachableError, ServerTroubleError) as error:
                delay = next(delays, None)
                final = isinstance(error.__cause__, ssl.SSLError) or not (self.policy and self.policy.retries_on(error))
                if delay is None or final or time.monotonic() >= _until.get(math.inf):
                    raise
                time.sleep(delay)

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _send_signed_in(self, method: str, target: str, content: bytes | None, again: bool, anonymous: bool) -> Answer:
        headers = self.auth.cookie_header() if anonymous else self.headers()
        answer = self._send_until_free(method, target, content, headers, again)
        if answer.status in (401, 403) and not anonymous and self.renew(headers):
            answer = self._send_until_free(method, target, content, self.headers(), again)
        return answer

    def _send_until_free(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str], again: bool
    ) -> Answer:
        """Send a request until the server is no longer busy, for some moments at most; return the answer."""
        begun, pause, asked_pauses = time.monotonic(), 0.02, 0
        while True:
            answer = self.send(method, target, content, headers, again)
            if answer.status not in BUSY or not again:
                return answer
            if wanted := _retry_after(answer):
                asked_pauses += 1
                if wanted > _LONGEST_PAUSE or asked_pauses > _ASKED_PAUSES:
                    return answer
                time.sleep(wanted)
                continue
            if time.monotonic() > begun + self.busy_seconds(answer):
                return answer
            time.sleep(random.uniform(0.02, pause + 0.03))  # no secret: so that callers do not collide
            pause = min(2 * pause, 0.25)

    # Requests, for clients of other libraries that send theirs here.

    def send(self, method: str, target: str, content: bytes | None, headers: Mapping[str, str], again: bool) -> Answer:
        """Send a request; send it again if the server had closed the persistent connection meanwhile."""
        import httpcore

        gone = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
        try:
            return self._exchange(method, target, content, headers)
        except EngineUnreachableError as error:
            if not again or not isinstance(error.__cause__, gone):
                raise
        return self._exchange(method, target, content, headers)

    def _exchange(self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        from flowyml.core.web import LARGEST_ANSWER, Answer, note_received

        with self.stream(method, target, content, headers) as (status, received, parts):
            body = self._read(parts, LARGEST_ANSWER if status < 400 else _ERROR_BYTES, cut=status >= 400)
            note_received(body)
            return Answer(status, received, body)

    @contextmanager
    def stream(
        self,
        method: str,
        target: str,
        content: bytes | None,
        headers: Mapping[str, str],
        *,
        body_may_last: bool = False,
    ) -> Iterator[tuple[int, dict[str, str], Iterator[bytes]]]:
        """Send a request once. In the block, the status, the headers and the parts of the body can be read.

        All that may take four times ``timeout``; if ``body_may_last``, the body as long as it needs.
        """
        kind = {} if content is None else {"Content-Type": "application/json"}
        common = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "flowyml"}
        sent = [(name.encode(), value.encode()) for name, value in {**common, **kind, **headers}.items()]
        limits = {"connect": min(self.timeout, 10), "read": self.timeout, "write": self.timeout, "pool": self.timeout}
        _until.set(time.monotonic() + 4 * self.timeout)
        with self.reaching(), self.pool().stream(
            method, _ascii(self.base() + target), headers=sent, content=content, extensions={"timeout": limits}
        ) as response:  # fmt: skip
            received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if body_may_last:
                _until.set(math.inf)
            yield response.status, received, response.iter_stream()

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Raise ``EngineUnreachableError`` for a connection that fails within the block."""
        import httpcore

        try:
            yield
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
            raise self._unreachable(error) from (tls_cause(error) or error)

    def _read(self, parts: Iterable[bytes], limit: int, *, cut: bool) -> bytes:
        body = bytearray()
        for part in parts:
            body += part
            if len(body) > limit and not cut:
                raise EngineError(
                    f"{self.engine} at {self.url} sent a response of more than {limit / 2**20:g} MB, which FlowyML "
                    f"does not read."
                )
            if len(body) > limit:
                break
        return bytes(body[:limit])

    def pool(self) -> httpcore.ConnectionPool:
        """Return the persistent connections; httpcore is imported at first use."""
        if self._pool is None:
            with self._opening:
                if self._pool is None:  # another thread may have been faster
                    self._pool = _open_pool(self.base(), self.tls)
                    weakref.finalize(self, self._pool.close)  # an orchestrator created for one call is never closed
        return self._pool

    # The meaning of answers.

    def _json_or_error(self, answer: Answer, method: str, path: str) -> Any:
        from flowyml.core.web import JsonObject

        status = answer.status
        if status == 204 or (status < 300 and not answer.body and not self.answers_objects):
            return None
        content = _json_of(answer)
        if content is _NO_JSON or 300 <= status < 400:
            raise self.foreign_answer(answer, method, path)
        exchange = f"{self.url} answered {method} {path}"
        if status < 300 and type(content) is dict:
            return JsonObject(content, exchange)
        if status < 300 and self.answers_objects:
            raise EngineError(f"{exchange} with {content!r:.200}. Something other than {self.engine} answers there.")
        if status < 300:
            return content
        detail = _detail(content)
        if status == 401:
            raise self.refusal(status)
        if status == 403:
            needed = lacks_permission(f"{method} {path}", self.permission(method, path), detail)
            raise AuthenticationError(f"{self.refusal(status)} {needed}")
        raise status_error(status, f"{self.engine} at {self.url} answered {status} to {method} {path}: {detail}")

    def _unreachable(self, error: Exception) -> EngineUnreachableError:
        if cause := tls_cause(error):
            return EngineUnreachableError(f"TLS with {self.engine} at {self.url} fails: {tls_trouble(cause)}")
        reason = redact_urls(error) or type(error).__name__
        return EngineUnreachableError(f"{self.engine} at {self.url} does not answer: {reason}. {self.advice}")

    def _moved(self, what: str, target: str, path: str) -> EngineError:
        """Return the error for a redirect: within the same host the path is wrong; to another host it is a login."""
        where = redact_url(target).partition("?")[0]
        if urlsplit(target).hostname == urlsplit(self.url).hostname and "login" not in where:
            return EngineError(f"{what}: it redirects to {where}. Give url={where.removesuffix(path)!r}.")
        return ProxyLoginError(
            f"{what}: it redirects to {where}. A proxy in front of {self.engine} requires a login of its own, or it "
            f"has moved. Nothing was sent there."
        )


_until: ContextVar[float] = ContextVar("flowyml_http_until")
_NO_JSON = object()


def _open_pool(url: str, tls: Tls) -> httpcore.ConnectionPool:
    """Return a pool of connections to one server, through the proxy in the environment, if any."""
    from urllib.request import getproxies, proxy_bypass

    import httpcore

    from flowyml.orchestrators.deadlines import DeadlineBackend

    parts = urlsplit(url)
    options: dict[str, Any] = {"ssl_context": tls.context(), "network_backend": DeadlineBackend(_until)}
    options |= {"max_connections": 100, "max_keepalive_connections": 20, "keepalive_expiry": 5}
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return httpcore.ConnectionPool(**options)
    try:
        through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        auth = (through.username or "", through.password or "") if through.username else None
        bare = urlunsplit((through.scheme, through.netloc.rpartition("@")[2], "/", "", ""))
        kind = httpcore.SOCKSProxy if through.scheme.startswith("socks") else httpcore.HTTPProxy
        return kind(bare, proxy_auth=auth, **options)
    except (ImportError, ValueError, RuntimeError) as error:  # SOCKS needs a package
        raise ConfigurationError(
            f"the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names for {url} cannot be used: {redact_urls(error)}"
        ) from None


def _query(params: Mapping[str, Any]) -> str:
    values = {name: value for name, value in params.items() if value is not None}
    plain = {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
    return f"?{urlencode(plain, doseq=True)}" if plain else ""


def _ascii(url: str) -> str:
    """Return a URL in ASCII. Quoted parts are unchanged."""
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return urlunsplit((parts.scheme, host, quote(parts.path, safe="/%:@!$&'()*+,;=~"), parts.query, ""))


def _retry_after(answer: Answer) -> float:
    """Return the seconds of the answer's ``Retry-After``; 0 without one. Dates are ignored."""
    with suppress(ValueError):
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    return 0


def _json_of(answer: Answer) -> Any:
    from flowyml.core.web import parsed

    if "json" not in (answer.media_type or "json"):
        return _NO_JSON
    try:
        return parsed(answer.body)
    except ValueError:
        return _NO_JSON


def _detail(content: Any) -> str:
    """Return the message in an error's JSON, in FastAPI's and Connexion's forms."""
    detail = content.get("detail", content) if isinstance(content, dict) else content
    if isinstance(detail, dict):
        detail = detail.get("message") or detail.get("reason") or detail
    if isinstance(detail, list):
        detail = "; ".join(str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail)
    return detail[:_DETAIL] if isinstance(detail, str) else repr(detail)[:_DETAIL]
