"""Requests over HTTP, with only the standard library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowyml import step
from flowyml.core.credentials import Auth, Secret
from flowyml.core.urls import checked_url, redact_url
from flowyml.steps.waiting import wait_for

__all__ = ["http", "wait_for_http"]

_MOST_SHOWN = 500  # characters of the answer in an error
_LONGEST_POLL = 60  # seconds
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # source: RFC 9110, 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")  # the same, 5.5
_SENDABLE = re.compile(r"[\x21-\x7e]+")


@step
def http(
    url: str,
    method: str = "GET",
    params: dict[str, str] | None = None,
    json: Any = None,
    data: str | None = None,
    headers: dict[str, str] | None = None,
    token: str = "",
    timeout: float = 60,
) -> str:
    """Send a request, and return the text of the answer.

    ``params`` go into the query, ``json`` or ``data`` into the body. ``token`` is sent as a bearer token, and is a
    secret: ``http.options(secrets={"token": "api/token"})``; a user and a password in the URL are sent as basic
    authentication. ``timeout`` is the number of seconds for which the server may be silent; the answer has to be
    complete within four times as long, and has at most 256 MB. A redirect to another host gets neither the token nor
    ``headers``. A line break at the end of the token, as files have it, is ignored. Raises ``ConnectionError`` if
    nothing answers, ``RuntimeError`` for a status that is not 2xx, with the beginning of the answer, and ``ValueError``
    for a value that cannot be sent, without showing it.
    """
    from urllib.parse import urlencode

    where = url if not params else f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"
    return _text_at(where, method, json, data, headers or {}, token, timeout)


@step
def wait_for_http(
    url: str,
    contains: str = "",
    headers: dict[str, str] | None = None,
    token: str = "",
    poll_interval: float = 10,
    patience: float = 3600,
) -> str:
    """Wait until a page answers with a status below 400 and ``contains`` in its text, and return the text.

    ``poll_interval`` and ``patience`` are in seconds; waiting occupies a worker. Raises ``TimeoutError``.
    """
    checked_url(url)
    last = [""]

    def poll(remaining: float) -> str | None:
        seconds = max(min(remaining, _LONGEST_POLL), 1)
        try:
            text = _text_at(url, "GET", None, None, headers or {}, token, seconds, total=seconds)
        except (ConnectionError, RuntimeError) as error:
            text = None
            said = str(error)
        else:
            said = "the answer does not contain the text yet"
        if text is not None and contains in text:
            return text
        if said != last[0]:
            print(said)
            last[0] = said
        return None

    return wait_for(redact_url(url), poll, poll_interval, patience)


def _text_at(
    url: str, method: str, json: Any, data: str | None, headers: Mapping[str, str], token: str, timeout: float,
    *, total: float | None = None,
) -> str:  # fmt: skip
    """Send a request and return the answer as text."""
    from http import HTTPStatus
    from http.client import HTTPException

    from flowyml.core.web import exchange

    if not _TOKEN.fullmatch(method):
        raise ValueError(f"method={method!r:.50} is not a method of HTTP. Write it like POST.")
    if not _SENDABLE.fullmatch(checked_url(url)):
        raise ValueError(
            f"The URL {redact_url(url)!r} has a space, a control character or a non-ASCII character. Give values as "
            f"params=…, or write them as %20."
        )
    kind = {} if json is None else {"Content-Type": "application/json"}
    sent = {**kind, **Auth.in_url(url).headers(), **_checked(headers), **_bearer(token)}  # a name may have any case
    body = _body(json, data)
    request_line = f"{method} {redact_url(url)}"
    try:
        answer = exchange(
            url,
            method=method,
            headers=sent,
            body=body,
            timeout=timeout,
            total=total,
            follow=True,
            keep_headers=True,
        )
    except (OSError, HTTPException) as error:  # the latter where the answer breaks off, or is not HTTP
        why = getattr(error, "reason", "") or str(error) or type(error).__name__
        raise ConnectionError(f"{request_line}: {why}") from None
    text = _text(answer.body, answer.headers.get("content-type", ""))
    if not 200 <= answer.status < 300:
        known = answer.status in HTTPStatus.__members__.values()
        reason = f" {HTTPStatus(answer.status).phrase}" if known else ""
        raise RuntimeError(f"{request_line}: {answer.status}{reason}. It said: {text[:_MOST_SHOWN]}")
    print(f"{request_line}: {answer.status}, {len(answer.body)} bytes")
    return text


def _text(body: bytes, media_type: str) -> str:
    """Return an answer as text; as UTF-8 if the server names no charset, or one that Python lacks."""
    from email.message import Message

    message = Message()
    message["Content-Type"] = media_type
    try:
        return body.decode(message.get_content_charset() or "utf-8", "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {Secret('token', token).get()}"} if token else {}


def _checked(headers: Mapping[Any, Any]) -> Mapping[str, str]:
    """Return the headers, if HTTP can carry them.

    Checked here, since the standard library's errors would show their values.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError("headers: a name has a character that HTTP does not allow. Use letters, digits and -.")
        if not isinstance(value, str):
            raise TypeError(f"headers: the value of {name!r} is of type {type(value).__name__}. Give it as text.")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"headers: {name!r} has a value that HTTP cannot carry, such as one with a line break. It is not shown "
                f"here."
            )
    return headers


def _body(json: Any, data: str | None) -> bytes | None:
    import json as codec

    if json is not None and data is not None:
        raise ValueError("http takes json=… or data=…, and not both.")
    text = data if json is None else codec.dumps(json)
    return None if text is None else text.encode()
