"""Make the HTTP of KFP's official client safe.

The client reads any answer completely, however long it is and however long it takes: a server, or another program in
its place, could fill the memory, or block a command forever with a byte a second. The client also follows redirects,
which may lead to another host, and takes a login page for an answer without content.
"""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from flowyml.core.errors import AuthenticationError, EngineError
from flowyml.core.web import LARGEST_ANSWER, Deadline, check_values, media_type, note_received
from flowyml_kubeflow.connection import Connection

__all__ = ["api_client", "within"]

_deadline: ContextVar[Deadline | None] = ContextVar("_deadline", default=None)
_until: ContextVar[float] = ContextVar("_until", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[float]:
    """Within this block, all calls together may take so long. Yields the deadline, by the monotonic clock."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield _until.get()
    finally:
        _until.reset(token)


def api_client(connection: Connection) -> Any:
    """Return a ``kfp_server_api.ApiClient`` that follows no redirect and reads bounded answers only.

    Answers are limited in bytes and in time, however slowly they come; logs and files, read in pieces, only in bytes.
    """
    import kfp_server_api  # type: ignore[import-untyped]  # ships no types
    from urllib3 import Retry

    tls = connection.tls
    configuration = kfp_server_api.Configuration(host=connection.host)
    configuration.verify_ssl = tls.verify
    configuration.ssl_ca_cert = tls.authorities
    # Ignore Retry-After: a server could make a call wait for hours.
    configuration.retries = Retry(3, redirect=False, respect_retry_after_header=False)
    if tls.certificate:
        configuration.cert_file, configuration.key_file = tls.certificate
    if not tls.verify:
        _warn_not_of(connection.host)
    client = kfp_server_api.ApiClient(configuration)
    rest = client.rest_client
    rest.pool_manager.pool_classes_by_scheme = _watched_pools()
    rest.pool_manager.request = _bounded(rest.pool_manager.request, connection.where, connection.longest)
    rest.request = partial(_no_page, rest.request, connection.where)
    return client


def _warn_not_of(host: str) -> None:
    """Turn off urllib3's warning at each call about a host that is trusted without a check, as requested."""
    from urllib3.exceptions import InsecureRequestWarning

    name = re.escape(urlsplit(host).hostname or "")
    warnings.filterwarnings(
        "ignore", f"Unverified HTTPS request is being made to host '{name}'", InsecureRequestWarning
    )


def _bounded(request: Callable[..., Any], where: str, seconds: float) -> Callable[..., Any]:
    """Return a pool manager's ``request`` that reads an answer within ``seconds``, and no more of it than is allowed.

    An answer that the caller reads, ``preload_content=False``, is limited up to its headers. Raises ``EngineError`` for
    an answer that is too large, and ``TimeoutError``.
    """

    def ask(*arguments: Any, preload_content: bool = True, **options: Any) -> Any:
        with Deadline(max(0, min(seconds, _until.get() - time.monotonic()))) as deadline:
            token = _deadline.set(deadline)
            try:
                answer = request(*arguments, preload_content=False, **options)
                return _read(answer, where) if preload_content else answer
            except EngineError:
                raise
            except Exception:
                deadline.check()
                raise
            finally:
                _deadline.reset(token)

    return ask


def _read(answer: Any, where: str) -> Any:
    from urllib3 import HTTPResponse

    body = answer.read(LARGEST_ANSWER + 1)
    if deadline := _deadline.get():
        deadline.check()  # an answer without a length just ends where its connection does
    if len(body) > LARGEST_ANSWER:
        answer.close()
        raise EngineError(
            f"KFP at {where} sent a response of more than {LARGEST_ANSWER / 2**20:g} MB, which FlowyML does not read."
        )
    answer.release_conn()
    check_values(body)
    note_received(body)
    return HTTPResponse(
        BytesIO(body), answer.headers, answer.status, reason=answer.reason,
        decode_content=False,  # it is decoded
    )  # fmt: skip


def _watched_pools() -> dict[str, Any]:
    """Return pools by scheme, whose connections the deadline of the call can close."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    def watched(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]  # HTTP or HTTPS
            def getresponse(self) -> Any:
                if (deadline := _deadline.get()) and self.sock is not None:
                    deadline.watch(self.sock)
                return super().getresponse()

        return type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": Connection})

    return {"http": watched(HTTPConnectionPool), "https": watched(HTTPSConnectionPool)}


def _no_page(request: Callable[..., Any], where: str, *arguments: Any, **options: Any) -> Any:
    """Check an answer of KFP's API, which is JSON, or the text of a log."""
    answer = request(*arguments, **options)
    kind = media_type(answer.headers if hasattr(answer, "headers") else answer.getheaders())
    is_log = not options.get("_preload_content", True)
    if kind == "text/html" if is_log else not kind.endswith("json"):
        if is_log:
            answer.close()  # it has not been read
        raise AuthenticationError(
            f"A proxy, not KFP, answered at {where}, with {kind or 'no content type'} instead of JSON: probably a "
            f"login page. Give auth=token or auth=Auth(cookies=…), and check the URL."
        )
    return answer
