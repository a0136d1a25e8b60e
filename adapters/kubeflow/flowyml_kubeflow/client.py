"""Every call to KFP's API, through the official client; its errors become FlowyML's."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from flowyml.core.errors import AuthenticationError, ConfigurationError, EngineError, EngineUnreachableError
from flowyml.core.tls import Tls
from flowyml.core.urls import checked_url, shown, without_credentials
from flowyml.core.web import LARGEST_ANSWER, media_type
from flowyml.orchestrators.probe import Site
from flowyml_kubeflow.connection import SignIn

__all__ = ["AmbiguousError", "Client", "NotFoundError", "equals"]

_PAGE = 100
_CHUNK = 1 << 20  # bytes of a file at once
_TRANSIENT = (429, 500, 502, 503, 504)
_NO_LOG = '{"error_message":'  # what older servers say in an answer that claims to be a success
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of a pod; source: Kubernetes
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
        sign_in: SignIn | None = None,
        tls: Tls | None = None,
        timeout: float = 30,
    ) -> None:
        self.url = without_credentials(checked_url(url)).partition("?")[0].rstrip("/")
        self._namespace = namespace
        self.sign_in = (sign_in or SignIn()).beside(url)
        self.tls = tls or Tls()
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
    def healthz(self) -> Mapping[str, Any]:
        """What KFP says of itself without a login; empty where it says nothing."""
        answer = self.site(self.host).get("/apis/v2beta1/healthz").json()
        return answer if isinstance(answer, Mapping) else {}

    @cached_property
    def version(self) -> tuple[int, ...]:
        """The release of KFP, as ``(2, 17)``; empty where it does not tell."""
        found = re.match(r"v?([0-9]+)\.([0-9]+)", str(self.healthz.get("tag_name") or ""))
        return tuple(int(number) for number in found.groups()) if found else ()

    @cached_property
    def namespace(self) -> str | None:
        """The user's; None on a KFP of one user, which has none.

        A pod's own counts where none was given. Raises ``ConfigurationError`` where KFP serves several users and there
        is none: each of its calls would be refused. Source: apiserver/server/experiment_server.go, and its siblings.
        """
        if self._namespace or not self.healthz.get("multi_user"):
            return self._namespace
        try:
            return _OWN_NAMESPACE.read_text("utf-8").strip()
        except OSError:
            raise ConfigurationError(
                f"KFP at {self.where} serves several users, each in a namespace. Give yours: namespace='…', or "
                f'namespace = "…" in flowyml.toml.'
            ) from None

    def site(self, url: str) -> Site:
        """A URL of this KFP, to be asked with what was given to sign in."""
        return Site(url, timeout=min(self._timeout, 5), headers=self.sign_in.headers(), tls=self.tls)

    @cached_property
    def kfp(self) -> Any:
        """The official client.

        With a namespace it asks nothing when it is made. Cookies and headers that it keeps for another KFP stay there.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it says which servers it works with, each time
            import kfp  # type: ignore[import-untyped]  # ships no types

            client = kfp.Client(
                host=self.host,
                namespace=self._namespace or "default",
                credentials=self.sign_in if self.sign_in.gives_token else None,
                cookies=self.sign_in.cookies.get() or "",
                ssl_ca_cert=self.tls.authorities,
                verify_ssl=self.tls.verify is not False,
            )
        api = client._run_api.api_client  # all its APIs share it
        api.default_headers = {"User-Agent": api.user_agent, **self.sign_in.basic.headers()}
        self._made_safe(api.rest_client)
        return client

    def _made_safe(self, rest: Any) -> None:
        """No redirect is followed, which may lead to another host, and no page is taken for an answer.

        Answers have bounds in bytes and in time, slow drips included; logs and files, read in pieces, in bytes alone.
        """
        from urllib3 import Retry

        from flowyml_kubeflow.bounds import bounded, watched_pools

        options = rest.pool_manager.connection_pool_kw
        rest.pool_manager.pool_classes_by_scheme = watched_pools()
        rest.pool_manager.request = bounded(rest.pool_manager.request, self.where, 4 * self._timeout)
        options["retries"] = Retry(3, redirect=False)
        if self.tls.certificate:
            options["cert_file"], options["key_file"] = self.tls.certificate
        rest.request = partial(_no_page, rest.request, self.where)

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
        lines = _lines(self._bounded(answer).decode("utf-8", "replace"), grows=grows)
        gone = len(lines) == 1 and lines[0].startswith(_NO_LOG)
        return None if gone else lines

    def _bounded(self, answer: Any) -> bytes:
        """The body of an answer; there may be no end of it."""
        try:
            body = bytes(answer.read(LARGEST_ANSWER + 1))
        finally:
            answer.close()
        if len(body) > LARGEST_ANSWER:
            raise EngineError(f"A log at {self.where} is larger than the {LARGEST_ANSWER / 2**20:g} MB that are read.")
        return body

    def download(self, page: str, write: Callable[[bytes], object], limit: int) -> None:
        """A file that ml-pipeline-ui gives, of ``limit`` bytes at most. Raises ``NotFoundError`` where KFP's API alone
        answers, and ``EngineError`` where there is more."""
        namespace = [("namespace", self.namespace)] if self.namespace else []
        answer = self._called(partial(self._text, (page, "GET", {}, namespace)))
        try:
            while limit >= 0 and (part := answer.read(_CHUNK)):
                limit -= len(part)
                write(part)
        finally:
            answer.close()  # there may be no end of it
        if limit < 0:
            raise EngineError(f"{shown(page)} at {self.where} is larger than what was stored there.")

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

    def _refused(self, error: Any) -> EngineError:
        """What an answer that is an error means."""
        message = f"KFP at {self.where} answered {error.status}: {_message(error)}"
        if error.status == 401:
            return AuthenticationError(
                f"{message} Check the token, the credentials or the cookies: they may have expired."
            )
        if error.status == 403:
            where = f"namespace {self._namespace!r}" if self._namespace else "what was asked for; give namespace='…'"
            return AuthenticationError(f"{message} Who signs in like this has no right to {where}.")
        if 300 <= error.status < 400:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            target = shown(urljoin(f"{self.url}/", headers.get("location", ""))).partition("?")[0]
            return AuthenticationError(
                f"Not KFP answered at {self.where}, but something in front of it, which redirects to {target}: a "
                f"login, it seems. Nothing was sent there. Give token=…, credentials=… or cookies=…, and check the URL."
            )
        if error.status == 404:
            return NotFoundError(message)
        return AmbiguousError(message) if error.status in _TRANSIENT else EngineError(message)

    def _text(self, words: tuple[Any, ...], api: Any) -> Any:
        return api._run_api.api_client.call_api(
            *words, header_params={"Accept": "text/plain"}, auth_settings=["Bearer"], _preload_content=False,
            _return_http_data_only=True, **self.limits,
        )  # fmt: skip

    def _called(self, call: Callable[[Any], Any]) -> Any:
        """One call; once more where what was given to sign in was refused, and a fresh one is there by now."""
        headers = self.sign_in.headers()
        try:
            with self._translated():
                return call(self.kfp)
        except AuthenticationError:
            if not self.sign_in.renew(headers):
                raise
        self.kfp._run_api.api_client.cookie = self.sign_in.cookies.get() or ""
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
            raise self._refused(error) from error
        except TimeoutError as error:  # of the official client, which waits for healthz when it is made
            raise AmbiguousError(f"KFP at {where} does not answer: {error} Is it running?") from error
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise AmbiguousError(f"KFP at {where} does not answer: {type(reason).__name__}. Is it running?") from error


def _no_page(request: Callable[..., Any], where: str, *arguments: Any, **options: Any) -> Any:
    """An answer of KFP's API, which is JSON, or the text of a log.

    The generated client would take a login page, which comes with status 200, for an answer without content.
    """
    answer = request(*arguments, **options)
    kind = media_type(answer.headers if hasattr(answer, "headers") else answer.getheaders())
    is_log = not options.get("_preload_content", True)
    if kind == "text/html" if is_log else not kind.endswith("json"):
        if is_log:
            answer.close()  # it has not been read
        raise AuthenticationError(
            f"Not KFP answered at {where}, but something in front of it, with {kind or 'no type'} instead of JSON: a "
            f"login page, it seems. Give token=…, credentials=… or cookies=…, and check the URL."
        )
    return answer


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
