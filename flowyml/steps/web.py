"""Requests over HTTP, with only the standard library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowyml.authoring.steps import step
from flowyml.core.credentials import Secret
from flowyml.core.urls import checked_url, same_address, shown
from flowyml.steps.waiting import wait_for

if TYPE_CHECKING:
    from urllib.error import HTTPError
    from urllib.request import Request

__all__ = ["http", "wait_for_http"]

_MOST_SHOWN = 500  # characters of the answer in an error
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # source: RFC 9110, 5.6.2
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
    secret: ``http.options(secrets={"token": "api/token"})``. ``timeout`` is the seconds for the answer to begin. A
    redirect to another host gets neither the token nor ``headers``. A line break at the end of the token, as files have
    it, is ignored. Raises ``ConnectionError`` if nothing answers, ``RuntimeError`` for a status of 400 or above, with
    the beginning of the answer, and ``ValueError`` for what cannot be sent, without showing its value.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.parse import urlencode

    where = url if not params else f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"
    request = _request(where, method, json, data, {**_checked(headers or {}), **_bearer(token)})
    try:
        with _opener().open(request, timeout=timeout) as answer:
            body: bytes = answer.read()
            print(f"{method} {shown(url)}: {answer.status}, {len(body)} bytes")
            return _text(body, answer.headers.get_content_charset())
    except HTTPError as error:
        raise RuntimeError(f"{method} {shown(url)}: {error.code} {error.reason}. {_said(error)}") from None
    except (OSError, HTTPException) as error:  # the latter where the answer breaks off, or is not HTTP
        why = getattr(error, "reason", "") or str(error) or type(error).__name__
        raise ConnectionError(f"{method} {shown(url)}: {why}") from None


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

    def look() -> str | None:
        try:
            text = http.function(url, headers=headers, token=token)
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

    return wait_for(shown(url), look, poll_interval, patience)


def _said(error: HTTPError) -> str:
    from http.client import HTTPException

    try:
        with error:
            said = error.read(4 * _MOST_SHOWN).decode("utf-8", "replace")[:_MOST_SHOWN]
    except (OSError, HTTPException):
        return "Its answer breaks off."
    return f"It said: {said}"


def _text(body: bytes, charset: str | None) -> str:
    """An answer as text; as UTF-8 where the server names none, or one that Python does not know."""
    try:
        return body.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {Secret('token', token).get()}"} if token else {}


def _checked(headers: Mapping[Any, Any]) -> Mapping[str, str]:
    """The headers, if HTTP can carry them: the errors of the standard library would show their values."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise ValueError("headers: a name has a character that HTTP does not allow. Use letters, digits and -.")
        if not isinstance(value, str):
            raise TypeError(f"headers: the value of {name!r} is of type {type(value).__name__}. Give it as text.")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"headers: {name!r} has a value that HTTP cannot carry, such as one with a line break. It is not shown "
                f"here."
            )
    return headers


def _request(url: str, method: str, json: Any, data: str | None, headers: Mapping[str, str]) -> Request:
    import json as codec
    from urllib.request import Request

    if not _SENDABLE.fullmatch(checked_url(url)):
        raise ValueError(
            f"The URL {shown(url)!r} has a space, a control character or a non-ASCII character. Give values as "
            f"params=…, or write them as %20."
        )
    if json is not None and data is not None:
        raise ValueError("http takes json=… or data=…, and not both.")
    body = data if json is None else codec.dumps(json)
    kind = {} if json is None else {"Content-Type": "application/json"}
    return Request(url, None if body is None else body.encode(), {**kind, **headers}, method=method)


def _opener() -> Any:
    from urllib.parse import urljoin
    from urllib.request import HTTPRedirectHandler, build_opener

    class Redirects(HTTPRedirectHandler):
        """What was meant for one host stays there."""

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            made = super().redirect_request(req, fp, code, msg, headers, newurl)
            if made is not None and not same_address(urljoin(req.full_url, "/"), urljoin(newurl, "/")):
                made.headers.clear()
            return made

    return build_opener(Redirects)
