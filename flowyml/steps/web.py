"""Requests over HTTP, by the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowyml.authoring.steps import step
from flowyml.core.urls import checked_url, same_address, shown
from flowyml.steps.waiting import wait_for

if TYPE_CHECKING:
    from urllib.request import Request

__all__ = ["http", "wait_for_http"]

_MOST_SHOWN = 500  # characters of the answer in an error


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
    """Send a request, and give the text of the answer.

    ``params`` go into the query, ``json`` or ``data`` into the body. ``token`` is sent as a bearer token, and is a
    secret: ``http.options(secrets={"token": "api/token"})``. ``timeout`` is in seconds, for the answer to begin. On a
    redirect to another host, neither the token nor ``headers`` go along. Raises ``ConnectionError`` where nothing
    answers, and ``RuntimeError`` for a status of 400 and more, with the beginning of the answer.
    """
    from urllib.error import HTTPError, URLError
    from urllib.parse import urlencode

    where = url if not params else f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"
    request = _request(where, method, json, data, {**(headers or {}), **_bearer(token)})
    try:
        with _opener().open(request, timeout=timeout) as answer:
            body: bytes = answer.read()
            print(f"{method} {shown(url)}: {answer.status}, {len(body)} bytes")
            return body.decode(answer.headers.get_content_charset() or "utf-8", "replace")
    except HTTPError as error:
        with error:
            said = error.read(4 * _MOST_SHOWN).decode("utf-8", "replace")[:_MOST_SHOWN]
        raise RuntimeError(f"{method} {shown(url)}: {error.code} {error.reason}. It said: {said}") from None
    except (URLError, OSError) as error:
        raise ConnectionError(f"{method} {shown(url)}: {getattr(error, 'reason', error)}") from None


@step
def wait_for_http(
    url: str,
    contains: str = "",
    headers: dict[str, str] | None = None,
    token: str = "",
    poll_interval: float = 10,
    patience: float = 3600,
) -> str:
    """Wait until a page answers with a status below 400, and with ``contains`` in its text, and give the text.

    ``poll_interval`` and ``patience`` are in seconds; it keeps a worker while it waits. Raises ``TimeoutError``.
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
            said = "it answers otherwise"
        if text is not None and contains in text:
            return text
        if said != last[0]:
            print(said)
            last[0] = said
        return None

    return wait_for(shown(url), look, poll_interval, patience)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _request(url: str, method: str, json: Any, data: str | None, headers: Mapping[str, str]) -> Request:
    import json as codec
    from urllib.request import Request

    checked_url(url)
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
