"""Every call to KFP's API, through the official client; its errors become FlowyML's."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import chain
from typing import Any
from urllib.parse import urljoin

from flowyml.core.credentials import lacks_permission
from flowyml.core.errors import (
    AuthenticationError,
    EngineError,
    EngineUnreachableError,
    FlowymlError,
    ServerTroubleError,
)
from flowyml.core.urls import redact_url
from flowyml.core.web import LARGEST_ANSWER, parsed
from flowyml.orchestrators.http import status_error
from flowyml.orchestrators.listing import Listing
from flowyml_kubeflow.connection import Connection
from flowyml_kubeflow.transport import api_client

__all__ = ["MAYBE_DONE", "SERVICES", "Client", "equals", "lines_of"]

Json = dict[str, Any]

_PAGE = 100
_CHUNK = 1 << 20  # bytes of a file at once
LONGEST_LOG = 2**31  # bytes of a log that are read; more than a node keeps of a pod by far
_NO_LOG = b'{"error_message":'  # of older servers, in an answer that claims to be a success
# KFP reads the tasks of a run as one text, which MySQL cuts. Source: KFP, apiserver/storage/run_store.go, GROUP_CONCAT.
_CUT_OFF = re.compile(r"unexpected end of JSON input|parse (run )?tasks?\b", re.IGNORECASE)
_PAUSES = (0.2, 0.6)  # seconds before a call that only reads is repeated
SERVICES = {  # of the official client, by the beginnings of operations' names
    "experiment": "ExperimentServiceApi", "pipeline": "PipelineServiceApi", "recurring_run": "RecurringRunServiceApi",
    "run": "RunServiceApi", "upload": "PipelineUploadServiceApi",
}  # fmt: skip


MAYBE_DONE = (EngineUnreachableError, ServerTroubleError)
"""The answer was lost, or is a server's error: KFP may or may not have executed the call."""


class Client:
    """One KFP. ``call`` and ``call_once`` take operations of ``kfp_server_api`` by name, and find their services."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._logs_from = ""

    @cached_property
    def api(self) -> Any:
        """The official ``ApiClient``, created at the first call: importing it takes half a second."""
        return api_client(self.connection)

    def model(self, name: str, /, **fields: Any) -> Any:
        """Return one of the official client's models, such as ``V2beta1Run``."""
        import kfp_server_api  # type: ignore[import-untyped]  # ships no types

        return getattr(kfp_server_api, name)(**fields)

    def has_model(self, name: str) -> bool:
        """Return whether the installed official client has a model, which older ones may lack."""
        import kfp_server_api

        return hasattr(kfp_server_api, name)

    def call(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Make a call that does no harm when it is repeated: it is repeated if the answer was lost."""
        return self._repeated(partial(self.call_once, operation, *arguments, **options))

    def _repeated(self, call: Callable[[], Any], lost: Any = MAYBE_DONE) -> Any:
        deadline = time.monotonic() + self.connection.longest
        for pause in _PAUSES:
            try:
                return call()
            except lost as error:
                if isinstance(error.__cause__, ssl.SSLError) or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
        return call()

    def call_once(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Make a call once. Raises one of ``MAYBE_DONE`` if it may or may not have changed something."""

        def call() -> Any:
            return self._operation(operation)(*arguments, **options)

        return self._call(call, operation)

    def pages(self, operation: str, field: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        """Yield all entries of a list, page after page; ``field`` is their name in the answer.

        Raises ``EngineError`` for a list without end.
        """
        token, listing = "", Listing()
        while True:
            query = {"page_size": _PAGE, **options, "page_token": token}
            answer = listing.page(
                partial(self.call, operation, *arguments, **query),
                lambda answer: getattr(answer, field) or (),
                lambda answer: answer.next_page_token,
            )
            yield from getattr(answer, field) or ()
            token = answer.next_page_token
            if not token:
                return

    def _operation(self, name: str) -> Callable[..., Any]:
        import kfp_server_api

        service = SERVICES["upload" if name.startswith("upload_") else name.partition("_service_")[0]]
        operation: Callable[..., Any] = getattr(getattr(kfp_server_api, service)(self.api), name)
        return operation

    def log(self, run: str, node: str, *, grows: bool = False) -> Iterator[str] | None:
        """Return the lines of a pod's log in KFP, as they come; None if KFP has none.

        If the log ``grows``, an incomplete last line is left for the next call.
        """
        answer = self._log_answer(run, node)
        if answer is None:
            return None
        parts = _parts_of(answer)
        begin = next(parts, b"")
        gone = begin.startswith(_NO_LOG) and b"\n" not in begin.rstrip(b"\n")
        return None if gone else lines_of(chain([begin], parts), grows=grows)

    def stored_log(self, page: str) -> Iterator[str]:
        """Return the lines of a log in KFP's store, by a page of ml-pipeline-ui; raises as ``download`` does."""
        return lines_of(_parts_of(self._text(page, "GET", {}, [*self.connection.scope.items()])))

    def _bounded(self, answer: Any) -> bytes:
        """Return the body of an answer, which may be endless, within a limit."""
        try:
            body = bytes(answer.read(LARGEST_ANSWER + 1))
        finally:
            answer.close()
        if len(body) > LARGEST_ANSWER:
            raise EngineError(
                f"An answer of {self.connection.where} is larger than the {LARGEST_ANSWER / 2**20:g} MB that are read."
            )
        return body

    def run_of_v1(self, run: str) -> Json | None:
        """Return a run of API v1beta1, with its workflow, which the official client does not support.

        None if the server does not provide it. Raises ``EngineError`` if the server cannot be asked now.
        """
        try:
            answer = self._text("/apis/v1beta1/runs/{run_id}", "GET", {"run_id": run})
            record = parsed(self._bounded(answer))
        except MAYBE_DONE:
            raise
        except (EngineError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def download(self, page: str, write: Callable[[bytes], object], limit: int) -> None:
        """Download a file from ml-pipeline-ui, of ``limit`` bytes at most.

        Raises ``NotFoundError`` if only KFP's API answers, and ``EngineError`` if the file is larger.
        """
        answer = self._text(page, "GET", {}, [*self.connection.scope.items()])
        try:
            while limit >= 0 and (part := answer.read(_CHUNK)):
                limit -= len(part)
                write(part)
        finally:
            answer.close()  # it may be endless
        if limit < 0:
            raise EngineError(f"{redact_url(page)} at {self.connection.where} is larger than what was stored there.")

    def _log_answer(self, run: str, node: str) -> Any:
        """Request a log by the API server's own path or, behind ml-pipeline-ui, by that of the UI.

        The UI passes on only v2beta1, and reads the pods itself. Sources: KFP, apiserver/main.go and
        frontend/server/app.ts.
        """
        namespace = self.connection.namespace
        pod = {"podname": node, "runid": run, **({"podnamespace": namespace} if namespace else {})}
        ways: dict[str, tuple[Any, ...]] = {
            "API": ("/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log", "GET", {"run_id": run, "node_id": node}),
            "UI": ("/k8s/pod/logs", "GET", {}, list(pod.items())),
        }
        for way in [self._logs_from] if self._logs_from else ways:
            try:
                answer = self._text(*ways[way])
            except (AuthenticationError, EngineUnreachableError):
                raise
            except EngineError:  # 500, 400 or 404, as releases differ: the pod is gone, or not there yet
                continue
            self._logs_from = way
            return answer
        return None

    def _refused(self, error: Any, operation: str) -> EngineError:
        """Return the error for an answer to the request ``asked``."""
        message = f"KFP at {self.connection.where} answered {error.status}: {_message(error)}"
        if error.status == 401:
            return AuthenticationError(
                f"{message} Check the token, the password or the cookies: they may have expired. "
                f"{self.connection.auth.note}".rstrip()
            )
        if error.status == 403:
            namespace = self.connection.given_namespace
            where = f"namespace {namespace!r}" if namespace else "this; give namespace='…' if KFP serves several users"
            needed = lacks_permission(operation, _permission(message), "")
            return AuthenticationError(f"{message} These credentials have no right to {where}. {needed}")
        if 300 <= error.status < 400:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            target = redact_url(urljoin(f"{self.connection.url}/", headers.get("location", ""))).partition("?")[0]
            return AuthenticationError(
                f"A proxy, not KFP, answered at {self.connection.where}: it redirects to {target}, probably a login. "
                f"No credentials were sent there. Give auth=token or auth=Auth(cookies=…), and check the URL."
            )
        if "unknown field" in message:
            message += (
                " This KFP is older than what it was taken for: upgrade it, or leave out what that field stands for."
            )
            if not self.connection.release():
                message += " It does not say its release, so FlowyML took it for the newest."
        if error.status == 500 and _CUT_OFF.search(message):
            message += (
                " KFP's MySQL cuts what it joins of a run's tasks at 4 MiB, some 2,900 recorded nodes; KFP then shows "
                "neither this run nor a list with it. Raise DBConfig.GroupConcatMaxLen of the API server, or run the "
                "pipeline with fewer items or steps."
            )
        return status_error(error.status, message)

    def _text(self, *words: Any) -> Any:
        """Request a page that is not in the official API, to be read in pieces; again if no answer comes.

        An error of the server is an answer: 500 is KFP's word for a pod that is gone.
        """

        def call() -> Any:
            return self.api.call_api(
                *words, header_params={"Accept": "text/plain"}, _preload_content=False,
                _return_http_data_only=True,
            )  # fmt: skip

        return self._repeated(lambda: self._call(call, f"{words[1]} {words[0]}"), EngineUnreachableError)

    def _call(self, call: Callable[[], Any], operation: str) -> Any:
        """Make a call; repeat it if the credentials were refused and new ones exist."""
        auth = self.connection.auth
        self.api.default_headers.update(headers := auth.headers())
        try:
            with self._translated(operation):
                return call()
        except AuthenticationError:
            if not auth.renew(headers):
                raise
        self.api.default_headers.update(auth.headers())
        with self._translated(operation):
            return call()

    @contextmanager
    def _translated(self, operation: str) -> Iterator[None]:
        from kfp_server_api.exceptions import ApiException, OpenApiException  # type: ignore[import-untyped]  # ships no types

        where = self.connection.where
        try:
            yield
        except ApiException as error:
            raise self._refused(error, operation) from error
        except (OpenApiException, FlowymlError):
            raise
        except (RecursionError, TypeError, ValueError, LookupError, AttributeError) as error:  # of the official client
            why = "is nested too deeply" if isinstance(error, RecursionError) else f"has another form: {error}"
            raise EngineError(f"KFP at {where} sent a response to {operation} that {why}.") from error


def _permission(message: str) -> str:
    """Return the missing permission in KFP's message, in the words of Kubernetes' role-based access control.

    Source: KFP, apiserver/resource/resource_manager.go, ``IsAuthorized``.

    >>> _permission("(request: &ResourceAttributes{Namespace:a,Verb:list,Group:pipelines.kubeflow.org,Resource:runs,})")
    "list runs.pipelines.kubeflow.org in namespace 'a'"
    """
    attributes = dict(
        part.split(":", 1) for part in re.findall(r"\b(?:Namespace|Verb|Group|Resource):[^,}\s]+", message)
    )
    if not {"Verb", "Resource"} <= attributes.keys():
        return ""
    resource = ".".join(filter(None, (attributes["Resource"], attributes.get("Group"))))
    where = f" in namespace {attributes['Namespace']!r}" if "Namespace" in attributes else ""
    return f"{attributes['Verb']} {resource}{where}"


def _parts_of(answer: Any) -> Iterator[bytes]:
    """Yield an answer in pieces, and end it: it may be endless."""
    try:
        yield from iter(partial(answer.read, _CHUNK), b"")
    finally:
        answer.close()


def lines_of(parts: Iterable[bytes], *, grows: bool = False) -> Iterator[str]:
    r"""Yield the lines of a log as its parts come; of what is longer than 2 GB, the first 2 GB and a line that says so.

    >>> [*lines_of([b"beat 1\nb", b"ea"], grows=True)], [*lines_of([b"beat 1\nbea"])], [*lines_of([b"bea"], grows=True)]
    (['beat 1'], ['beat 1', 'bea'], [])
    >>> [*lines_of(["one\u2028line\r\n".encode()])]
    ['one\u2028line']
    """
    size, begun = 0, bytearray()
    for part in parts:
        size += len(part)
        begun += part
        *whole, rest = begun.split(b"\n") if b"\n" in part else (begun,)
        yield from map(_line, whole)
        begun = rest
        if size > LONGEST_LOG:
            yield f"(FlowyML reads {LONGEST_LOG / 2**20:g} MB of a log at most; this one is longer.)"
            return
    if begun and not grows:
        yield _line(begun)


def _line(text: bytearray) -> str:
    return text.removesuffix(b"\r").decode("utf-8", "replace")


def _message(error: Any) -> str:
    """Return the server's message, without its headers."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        answer = parsed(body.encode())
        return str(answer.get("message") or answer.get("error_message") or answer.get("error") or error.reason)
    except (ValueError, AttributeError, EngineError):
        return str(error.reason)


def equals(**fields: str) -> str:
    """Return a filter of KFP's lists: fields with these values."""
    predicates = [{"key": key, "operation": "EQUALS", "string_value": value} for key, value in fields.items()]
    return json.dumps({"predicates": predicates})
