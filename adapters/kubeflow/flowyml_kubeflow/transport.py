"""The HTTP of KFP's official client: FlowyML's own, so that answers are bounded and no redirect is followed; and how
that client reads its models from JSON: FlowyML's own, so that it is fast.

The client's own HTTP reads any answer completely, however long it is and however long it takes: a server, or another
program in its place, could fill the memory, or block a command forever with a byte a second. It also follows redirects,
which may lead to another host, and takes a login page for an answer without content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from functools import cached_property
from http.client import responses
from typing import Any
from urllib.parse import urlencode

from flowyml.core.errors import AuthenticationError
from flowyml.core.web import LARGEST_ANSWER, check_values, media_type
from flowyml.orchestrators.http import HttpClient
from flowyml_kubeflow.connection import Connection

__all__ = ["api_client", "model_of"]

_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "str": str, "int": int, "float": float, "bool": bool, "datetime": datetime.fromisoformat,
    "object": lambda value: value,
}  # fmt: skip


def api_client(connection: Connection) -> Any:
    """Return a ``kfp_server_api.ApiClient`` that sends by ``Http``, and reads answers by ``model_of``."""
    import kfp_server_api  # type: ignore[import-untyped]  # ships no types

    client = kfp_server_api.ApiClient(kfp_server_api.Configuration(host=connection.host))
    client.rest_client.pool_manager = Http(connection)
    client.deserialize = lambda answer, kind: model_of(json.loads(answer.data), kind, client.configuration)
    return client


def model_of(value: Any, kind: str, configuration: Any) -> Any:
    """Return JSON as the official client's model of that ``kind``, or a list or mapping of such models.

    The client's own ``deserialize`` creates a configuration for each model, and guesses the format of each date: it
    takes 0.6 s for a run of 2,900 tasks, 14 times as long. Raises ``TypeError``, ``ValueError`` or ``AttributeError``
    for JSON of another form.
    """
    import kfp_server_api

    if value is None:
        return None
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    if kind.startswith("list["):
        return [model_of(item, kind[5:-1], configuration) for item in value]
    if kind.startswith("dict(str, "):
        return {name: model_of(item, kind[10:-1], configuration) for name, item in value.items()}
    model = getattr(kfp_server_api, kind)
    if not model.openapi_types:  # the name of a state
        return value
    fields = {
        name: model_of(value.get(model.attribute_map[name]), of, configuration)
        for name, of in model.openapi_types.items()
    }
    return model(**fields, local_vars_configuration=configuration)


class Http(HttpClient):
    """The part of ``urllib3.PoolManager`` that the official client uses.

    Answers are limited in bytes and in time, however slowly they come; logs and files, read in pieces, only in bytes.
    """

    engine = "KFP"
    advice = "Is it running?"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.host, tls=connection.tls, timeout=connection.timeout)
        self._where = connection.where

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        fields: Any = None,
        body: str | None = None,
        preload_content: bool = True,
        **_: Any,
    ) -> Response:
        """Send a request. ``fields`` are the query of a GET, and else a form with files."""
        from urllib3 import encode_multipart_formdata

        target, content = url.removeprefix(self.url), None if body is None else body.encode()
        if fields and method == "GET":
            target += f"?{urlencode(fields)}"
        elif fields:
            content, headers["Content-Type"] = encode_multipart_formdata(fields)
        if preload_content:
            answer = self.send(method, target, content, headers, again=method == "GET")
            check_values(answer.body)
            return self._checked(Response(answer.status, answer.headers, [answer.body]), "json")
        stack = ExitStack()
        long = self.stream(method, target, content, headers, body_may_last=True)
        status, reply_headers, parts = stack.enter_context(long)
        return self._checked(Response(status, reply_headers, self._reached(parts), stack.close), "")

    def _reached(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        with self.reaching():
            yield from parts

    def _checked(self, answer: Response, media: str) -> Response:
        """Refuse a page instead of KFP's answer, which is JSON, or the text of a log."""
        kind = media_type(answer.headers)
        if answer.status < 300 and (kind == "text/html" or not kind.endswith(media)):
            answer.close()
            raise AuthenticationError(
                f"A proxy, not KFP, answered at {self._where}, with {kind or 'no content type'} instead of JSON: "
                f"probably a login page. Give auth=token or auth=Auth(cookies=…), and check the URL."
            )
        return answer


class Response:
    """The part of ``urllib3.HTTPResponse`` that the official client, and FlowyML's, use."""

    def __init__(
        self, status: int, headers: Mapping[str, str], parts: Iterable[bytes], close: Callable[[], None] = lambda: None
    ) -> None:
        self.status = status
        self.reason = responses.get(status, "")
        self.headers = headers
        self.close = close
        self._parts = iter(parts)
        self._rest = bytearray()

    @cached_property
    def data(self) -> bytes:
        return self.read(LARGEST_ANSWER)

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer than ``size`` only at the end."""
        while len(self._rest) < size and (part := next(self._parts, None)) is not None:
            self._rest += part
        body = bytes(self._rest[:size])
        del self._rest[:size]
        return body

    def getheaders(self) -> Mapping[str, str]:
        return self.headers

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name.lower(), default)
