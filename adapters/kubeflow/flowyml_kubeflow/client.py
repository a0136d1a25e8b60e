"""Every call to KFP's API, through the official client; its errors become FlowyML's."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

from flowyml.core.errors import AuthenticationError, EngineError, EngineUnreachableError
from flowyml.core.tls import Tls
from flowyml.core.urls import checked_url, shown
from flowyml.orchestrators.probe import Site

__all__ = ["AmbiguousError", "Client", "NotFoundError", "equals"]

_PAGE = 100
_TRANSIENT = (429, 500, 502, 503, 504)
_NO_LOG = '{"error_message":'  # what older servers say in an answer that claims to be a success
_PAUSES = (0.2, 0.6)  # seconds before a call that only reads is made again


class NotFoundError(EngineError):
    """KFP knows nothing of that id."""


class AmbiguousError(EngineUnreachableError):
    """The answer was lost, or an error: what was asked for may have happened or not."""


class Client:
    """One KFP. The official client is made at the first call, since importing it takes two seconds."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str | None = None,
        token: str | None = None,
        credentials: Any = None,
        cookies: str | None = None,
        ssl_ca_cert: str | None = None,
        timeout: float = 30,
    ) -> None:
        self.url = checked_url(url).rstrip("/")
        self.namespace = namespace
        self._token = token
        self._credentials = credentials
        self._cookies = cookies
        self._ssl_ca_cert = ssl_ca_cert
        self._timeout = timeout
        self._logs_from = ""

    @property
    def where(self) -> str:
        """The URL, as it may be shown."""
        return shown(self.url)

    def page(self, path: str) -> str:
        """A page of KFP's UI, as it may be shown."""
        return shown(f"{self.host}/#/{path}")

    @cached_property
    def host(self) -> str:
        """Where the API is: at the URL, or behind Kubeflow's dashboard below ``/pipeline``."""
        if self.url.endswith("/pipeline"):
            return self.url
        try:
            site = self.site(self.url)
            behind = (
                site.get("/apis/v2beta1/healthz").status == 404 and site.get("/pipeline/apis/v2beta1/healthz").json()
            )
        except EngineUnreachableError:
            return self.url
        return f"{self.url}/pipeline" if behind else self.url

    @cached_property
    def version(self) -> tuple[int, ...]:
        """The release of KFP, as ``(2, 17)``; empty where it does not tell."""
        answer = self.site(self.host).get("/apis/v2beta1/healthz").json()
        tag = str(answer.get("tag_name") or "") if isinstance(answer, Mapping) else ""
        found = re.match(r"v?([0-9]+)\.([0-9]+)", tag)
        return tuple(int(number) for number in found.groups()) if found else ()

    def site(self, url: str) -> Site:
        """A URL of this KFP, to be asked with what was given to sign in."""
        timeout = min(self._timeout, 5)
        return Site(url, timeout=timeout, headers=dict(self._headers()), tls=Tls(ca_file=self._ssl_ca_cert))

    def _headers(self) -> Iterator[tuple[str, str]]:
        if token := self._token or _token_of(self._credentials):
            yield "Authorization", f"Bearer {token}"
        if self._cookies:
            yield "Cookie", self._cookies

    @cached_property
    def kfp(self) -> Any:
        """The official client."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it says which servers it works with, each time
            import kfp  # type: ignore[import-untyped]  # ships no types

            client = kfp.Client(
                host=self.host,
                namespace=self.namespace or "kubeflow",
                existing_token=self._token,
                credentials=self._credentials,
                cookies=self._cookies,
                ssl_ca_cert=self._ssl_ca_cert,
            )
        rest = client._run_api.api_client.rest_client  # all its APIs share it
        rest.request = partial(_no_page, rest.request, self.where)
        return client

    def read(self, call: Callable[[Any], Any]) -> Any:
        """A call that changes nothing, so that it is made again when the first answer was lost."""
        for pause in _PAUSES:
            try:
                return self._called(call)
            except AmbiguousError:
                time.sleep(pause)
        return self._called(call)

    def write(self, call: Callable[[Any], Any]) -> Any:
        """A call that changes something. Raises ``AmbiguousError`` when it may have and may not have done so."""
        return self._called(call)

    def pages(self, call: Callable[..., Any], field: str, **options: Any) -> Iterator[Any]:
        """All entries of a list, page after page."""
        options = {"page_size": _PAGE, **options, **self.limits}
        token = ""
        while True:
            answer = self.read(partial(_page, call, {**options, "page_token": token}))
            yield from getattr(answer, field) or ()
            token = answer.next_page_token
            if not token:
                return

    @property
    def limits(self) -> dict[str, Any]:
        """What every call of the generated API takes."""
        return {"_request_timeout": (min(self._timeout, 10), self._timeout)}

    def log(self, run: str, node: str, *, grows: bool = False) -> list[str] | None:
        """The log of a pod as KFP has it; None when it has none.

        Of one that ``grows``, a last line that is not yet whole is left for later.
        """
        answer = self._log_answer(run, node)
        if answer is None:
            return None
        lines = _lines(bytes(answer.data).decode("utf-8", "replace"), grows=grows)
        gone = len(lines) == 1 and lines[0].startswith(_NO_LOG)
        return None if gone else lines

    def _log_answer(self, run: str, node: str) -> Any:
        """By the API server's own path or, where ml-pipeline-ui stands in front, by that of the UI, which passes on
        v2beta1 only and reads the pods itself. Sources: KFP, apiserver/main.go and frontend/server/app.ts."""
        pod = {"podname": node, "runid": run, **({"podnamespace": self.namespace} if self.namespace else {})}
        ways: dict[str, tuple[Any, ...]] = {
            "API": ("/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log", "GET", {"run_id": run, "node_id": node}),
            "UI": ("/k8s/pod/logs", "GET", {}, list(pod.items())),
        }
        for way in [self._logs_from] if self._logs_from else ways:
            try:
                answer = self._called(partial(self._text, ways[way]))
            except AuthenticationError:
                raise
            except EngineError:  # 400, 404 or 500, by the release; the pod is gone, or not there yet
                continue
            self._logs_from = way
            return answer
        return None

    def _text(self, words: tuple[Any, ...], api: Any) -> Any:
        return api._run_api.api_client.call_api(
            *words, header_params={"Accept": "text/plain"}, auth_settings=["Bearer"], _preload_content=False,
            _return_http_data_only=True, **self.limits,
        )  # fmt: skip

    def _called(self, call: Callable[[Any], Any]) -> Any:
        with self._translated():
            return call(self.kfp)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from kfp_server_api.exceptions import ApiException  # type: ignore[import-untyped]  # ships no types
        from urllib3.exceptions import HTTPError

        where = self.where
        try:
            yield
        except ApiException as error:
            raise _error(error.status, f"KFP at {where} answered {error.status}: {_message(error)}") from error
        except TimeoutError as error:  # of the official client, which waits for healthz when it is made
            raise AmbiguousError(f"KFP at {where} does not answer: {error} Is it running?") from error
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise AmbiguousError(f"KFP at {where} does not answer: {type(reason).__name__}. Is it running?") from error


def _token_of(credentials: Any) -> str | None:
    """The token that an object of ``kfp.client`` gives, which it does by writing it into a configuration."""
    if credentials is None:
        return None
    configuration = SimpleNamespace(api_key=dict[str, str]())
    credentials.refresh_api_key_hook(configuration)
    api_key: dict[str, str] = configuration.api_key
    return api_key.get("authorization")


def _no_page(request: Callable[..., Any], where: str, *arguments: Any, **options: Any) -> Any:
    """An answer of KFP's API, which is JSON, or the text of a log.

    The generated client would take a login page, which comes with status 200, for an answer without content.
    """
    answer = request(*arguments, **options)
    kind = _media_type(answer.headers if hasattr(answer, "headers") else answer.getheaders())
    is_log = not options.get("_preload_content", True)
    if kind == "text/html" if is_log else not kind.endswith("json"):
        if is_log:
            answer.close()  # it has not been read
        raise AuthenticationError(
            f"Not KFP answered at {where}, but something in front of it, with {kind or 'no type'} instead of JSON: a "
            f"login page, it seems. Give token=…, credentials=… or cookies=…, and check the URL."
        )
    return answer


def _media_type(headers: Mapping[str, str]) -> str:
    """
    >>> _media_type({"Content-Type": "application/json; charset=utf-8"})
    'application/json'
    """
    by_name = {name.lower(): value for name, value in headers.items()}
    return by_name.get("content-type", "").partition(";")[0].strip().lower()


def _lines(text: str, *, grows: bool) -> list[str]:
    r"""The lines of a log.

    >>> _lines("beat 1\nbea", grows=True), _lines("beat 1\nbea", grows=False), _lines("bea", grows=True)
    (['beat 1'], ['beat 1', 'bea'], [])
    >>> _lines("one\u2028line\r\n", grows=False)
    ['one\u2028line']
    """
    *whole, last = text.split("\n")
    return [line.removesuffix("\r") for line in (whole if grows or not last else [*whole, last])]


def _page(call: Callable[..., Any], options: dict[str, Any], api: Any) -> Any:
    return call(api)(**options)


def _error(status: int, message: str) -> EngineError:
    if status in (401, 403):
        return AuthenticationError(f"{message} Check the token, or the credentials, and the namespace.")
    if status == 404:
        return NotFoundError(message)
    return AmbiguousError(message) if status in _TRANSIENT else EngineError(message)


def _message(error: Any) -> str:
    """What the server says, without its headers."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        told = json.loads(body)
        return str(told.get("message") or told.get("error_message") or told.get("error") or error.reason)
    except (ValueError, AttributeError):
        return str(error.reason)


def equals(**fields: str) -> str:
    """A filter of KFP's lists: fields that are what they should be."""
    predicates = [{"key": key, "operation": "EQUALS", "string_value": value} for key, value in fields.items()]
    return json.dumps({"predicates": predicates})
