"""Every call to Prefect, over its REST API and one kept connection.

Why not Prefect's own client: importing it takes 1.9 s of CPU, while this and httpx take 0.1 s; it hides SQLite's
"database is locked" behind seconds of waiting; and it is bound to the event loop that made it. What is used here of
the API has been the same since Prefect 3.0.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from flowyml.core.errors import AuthenticationError, EngineError, EngineUnreachableError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.urls import without_credentials
from flowyml_prefect.connection import Connection

if TYPE_CHECKING:
    import httpx

__all__ = ["ConflictError", "FlowRun", "Log", "NotFoundError", "PrefectClient", "TaskRun", "is_id"]

Meaning = TypeVar("Meaning")

TAG = "flowyml"
_BUSY = frozenset({429, 502, 503, 504})
_BUSY_TRIES = 40
_LONGEST_PAUSE_SECONDS = 0.5
_PAGE = 200


class NotFoundError(EngineError):
    """Prefect knows nothing of this id or name."""


class ConflictError(EngineError):
    """There is one already, made by somebody else, or by a call whose answer was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """A flow run, as far as FlowyML looks at it."""

    id: str
    name: str
    state_type: str
    state_name: str
    message: str
    labels: Mapping[str, Any]
    tags: Sequence[str]
    parameters: Mapping[str, Any]
    flow_id: str
    deployment_id: str | None
    version: str | None
    transition_id: str | None
    created: datetime | None
    start_time: datetime | None
    end_time: datetime | None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> FlowRun:
        """Read Prefect's JSON."""
        state = plain.get("state") or {}
        return cls(
            id=plain["id"], name=plain["name"], state_type=plain.get("state_type") or "SCHEDULED",
            state_name=plain.get("state_name") or "Scheduled", message=state.get("message") or "",
            labels=plain.get("labels") or {}, tags=plain.get("tags") or (), parameters=plain.get("parameters") or {},
            flow_id=plain["flow_id"], deployment_id=plain.get("deployment_id"), version=plain.get("deployment_version"),
            transition_id=(state.get("state_details") or {}).get("transition_id"),
            created=_time(plain.get("created")), start_time=_time(plain.get("start_time")),
            end_time=_time(plain.get("end_time")),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """A task run, as far as FlowyML looks at it. ``function`` is the task's function in the compiled flow."""

    id: str
    name: str
    function: str
    state_type: str
    state_name: str
    message: str
    run_count: int
    start_time: datetime | None
    end_time: datetime | None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> TaskRun:
        """Read Prefect's JSON."""
        return cls(
            id=plain["id"], name=plain["name"], function=plain["task_key"].rpartition("-")[0],
            state_type=plain.get("state_type") or "PENDING", state_name=plain.get("state_name") or "Pending",
            message=(plain.get("state") or {}).get("message") or "", run_count=plain.get("run_count") or 0,
            start_time=_time(plain.get("start_time")), end_time=_time(plain.get("end_time")),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One record of a run's log."""

    id: str
    message: str
    level: int
    time: datetime
    task_run_id: str | None


@dataclass
class PrefectClient:
    """One server. Calls are safe from many threads; those that write go one at a time, for SQLite's sake.

    A database that is busy is asked again after 20 to 50 ms, then less and less often, for ``busy_seconds``; one that
    stays so is as good as a server that does not answer at all, with which ``retry_policy`` adds patience. Raises
    ``EngineUnreachableError``, ``AuthenticationError``, ``NotFoundError``, ``ConflictError`` and ``EngineError``.

    A call whose answer was lost is made again, so that what it asks for may be there already: Prefect gives back the
    flow, the deployment and the run that it has, and says 409 to a second work pool, or a second schedule of a slug.
    A second artifact or automation does what the first one does.
    """

    connection: Connection
    retry_policy: OrchestratorRetryPolicy | None = None
    timeout: float = 30
    busy_seconds: float = 60
    _http: httpx.Client | None = field(default=None, init=False, repr=False)
    _opening: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _writing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    # The server itself.

    def is_healthy(self) -> bool:
        """Whether it answers at all."""
        try:
            return self._answer("GET", "/health", None).status_code == 200
        except EngineUnreachableError:
            return False

    def version(self) -> str:
        """The server's version."""
        return self._understood(_text, self.read("/admin/version"))

    # Flows and deployments.

    def create_flow(self, name: str, labels: Mapping[str, str]) -> str:
        """The id of the flow of this name, made if need be."""
        made = self.write("/flows/", {"name": name, "tags": [TAG], "labels": labels})
        return str(self._understood(_record, made)["id"])

    def flow_name(self, flow_id: str) -> str:
        """The name of a flow."""
        return str(self._understood(_record, self.read(f"/flows/{flow_id}"))["name"])

    def deployment(self, flow: str, name: str) -> dict[str, Any] | None:
        """The deployment of this name, or None."""
        try:
            found = self.read(f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        except NotFoundError:
            return None
        return self._understood(_record, found)

    def create_deployment(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a deployment."""
        return self._understood(_record, self.write("/deployments/", body))

    def update_deployment(self, deployment_id: str, body: Mapping[str, Any]) -> None:
        """Change a deployment where it stands: its id, its runs and its schedules stay."""
        self.write(f"/deployments/{deployment_id}", body, method="PATCH")

    def deployment_by_id(self, deployment_id: str) -> dict[str, Any]:
        """One deployment."""
        return self._understood(_record, self.read(f"/deployments/{deployment_id}"))

    def deployments(self, flow: str | None = None) -> list[dict[str, Any]]:
        """The deployments that FlowyML made."""
        filters: dict[str, Any] = {"deployments": {"tags": {"all_": [TAG]}}, "sort": "NAME_ASC"}
        if flow is not None:
            filters["flows"] = {"name": {"any_": [flow]}}
        return self._pages("/deployments/filter", filters)

    # Schedules.

    def save_schedule(self, deployment_id: str, body: Mapping[str, Any], schedule_id: str | None = None) -> None:
        """Make a schedule of a deployment, or change the one of this id; its next runs are planned at once.

        Raises ``ConflictError`` when there is one of its slug.
        """
        path = f"/deployments/{deployment_id}/schedules"
        if schedule_id is None:
            self.write(path, [body])
        else:
            self.write(f"{path}/{schedule_id}", body, method="PATCH")
        self.write(f"/deployments/{deployment_id}/schedule", {})

    def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        """Remove a schedule, if it is there."""
        with suppress(NotFoundError):
            self.write(f"/deployments/{deployment_id}/schedules/{schedule_id}", None, method="DELETE")

    def planned(self, deployment_ids: Sequence[str], enough: int) -> dict[str, list[datetime]]:
        """When the scheduler means to run these deployments, soonest first: all times, or ``enough`` of them.

        Page by page. A deployment of which enough is known is asked for no more, so that one which runs each minute
        takes no room from one that runs once a day; of the others, what was read so far is the first part of the rest.
        """
        future = {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "expected_start_time": {"after_": datetime.now(UTC).isoformat()},
        }
        times: dict[str, list[datetime]] = {deployment: [] for deployment in deployment_ids}
        read: Counter[str] = Counter()
        while wanted := [deployment for deployment, known in times.items() if len(known) < enough]:
            body = {"deployments": {"id": {"any_": wanted}}, "flow_runs": future, "sort": "EXPECTED_START_TIME_ASC"}
            offset = sum(read[deployment] for deployment in wanted)
            page = self.query("/flow_runs/filter", {**body, "limit": _PAGE, "offset": offset})
            for plain in page:
                read[plain["deployment_id"]] += 1
                if plain["auto_scheduled"] and (time := _time(plain["expected_start_time"])):
                    times[plain["deployment_id"]].append(time)
            if len(page) < _PAGE:
                break
        return times

    # Work pools and automations.

    def work_pool(self, name: str) -> dict[str, Any] | None:
        """A work pool, or None."""
        try:
            found = self.read(f"/work_pools/{quote(name, safe='')}")
        except NotFoundError:
            return None
        return self._understood(_record, found)

    def ensure_process_pool(self, name: str) -> None:
        """See to it that there is a work pool whose workers start processes."""
        if self.work_pool(name) is None:
            with suppress(ConflictError):
                self.write("/work_pools/", {"name": name, "type": "process"})

    def has_online_worker(self, pool: str) -> bool:
        """Whether a worker polls this pool."""
        workers = self.query(f"/work_pools/{quote(pool, safe='')}/workers/filter", {"limit": _PAGE})
        return any(worker.get("status") == "ONLINE" for worker in workers)

    def ensure_automation(self, body: Mapping[str, Any]) -> None:
        """Make an automation, unless there is one of its name."""
        found = self.query("/automations/filter", {"automations": {"name": {"any_": [body["name"]]}}})
        if not found:
            self.write("/automations/", body)

    # Runs.

    def create_run(self, deployment_id: str, body: Mapping[str, Any]) -> FlowRun:
        """A new run, or the one that has this idempotency key already."""
        return self._understood(FlowRun.of, self.write(f"/deployments/{deployment_id}/create_flow_run", body))

    def run(self, run_id: str) -> FlowRun:
        """One run."""
        return self._understood(FlowRun.of, self.read(f"/flow_runs/{run_id}"))

    def runs(self, filters: Mapping[str, Any], limit: int) -> list[FlowRun]:
        """The newest runs that pass the filters."""
        found: list[FlowRun] = []
        while len(found) < limit:
            body = {
                **filters,
                "sort": "EXPECTED_START_TIME_DESC",
                "limit": min(limit - len(found), _PAGE),
                "offset": len(found),
            }
            page = self.query("/flow_runs/filter", body)
            found += (self._understood(FlowRun.of, plain) for plain in page)
            if len(page) < body["limit"]:
                break
        return found

    def task_runs(self, run_id: str) -> list[TaskRun]:
        """The task runs of a run, which Prefect records some seconds late."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return [self._understood(TaskRun.of, plain) for plain in self._pages("/task_runs/filter", body)]

    def logs(self, run_id: str, after: datetime | None = None) -> list[Log]:
        """The log of a run in the order of time, from a moment on."""
        wanted: dict[str, Any] = {"flow_run_id": {"any_": [run_id]}}
        if after:
            wanted["timestamp"] = {"after_": after.isoformat()}
        return [
            Log(id=log["id"], message=log["message"], level=log["level"],
                time=datetime.fromisoformat(log["timestamp"]), task_run_id=log["task_run_id"])
            for log in self._pages("/logs/filter", {"logs": wanted, "sort": "TIMESTAMP_ASC"})
        ]  # fmt: skip

    def create_artifact(self, body: Mapping[str, Any]) -> None:
        """Keep an artifact."""
        self.write("/artifacts/", body)

    def artifacts(self, key: str, limit: int = _PAGE) -> list[dict[str, Any]]:
        """The artifacts of a key, the newest first."""
        wanted = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": limit}
        return self.query("/artifacts/filter", wanted)

    def artifact_of_run(self, key: str, run_id: str) -> Any:
        """The data of a run's newest artifact of this key, or None."""
        wanted = {"key": {"any_": [key]}, "flow_run_id": {"any_": [run_id]}}
        found = self.query("/artifacts/filter", {"artifacts": wanted, "sort": "CREATED_DESC", "limit": 1})
        return found[0]["data"] if found else None

    def set_state(self, run_id: str, state: Mapping[str, Any], *, force: bool = False) -> str:
        """Propose a state; gives Prefect's answer: ACCEPT, REJECT, ABORT or WAIT."""
        answer = self.write(f"/flow_runs/{run_id}/set_state", {"state": state, "force": force})
        return self._understood(lambda plain: str(plain["status"]), answer)

    def claim(self, run_id: str) -> bool:
        """Take a scheduled run for execution. Of all who try, only one gets it."""
        from uuid import uuid4

        mine = str(uuid4())
        state = {"type": "PENDING", "name": "Pending", "state_details": {"transition_id": mine}}
        self.set_state(run_id, state)
        return self.run(run_id).transition_id == mine

    # The general forms.

    def read(self, path: str) -> Any:
        """GET."""
        return self._checked("GET", path, None)

    def query(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        """POST that changes nothing, and gives a list."""
        return self._understood(_list, self._checked("POST", path, body))

    def write(
        self, path: str, body: Mapping[str, Any] | list[Mapping[str, Any]] | None, *, method: str = "POST"
    ) -> Any:
        """A call that changes something: one at a time."""
        with self._writing:
            return self._checked(method, path, body)

    def close(self) -> None:
        """End the connection; the next call opens a new one."""
        with self._opening:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def _pages(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = []
        while True:
            page = self.query(path, {**body, "limit": _PAGE, "offset": len(found)})
            found += page
            if len(page) < _PAGE:
                return found

    def _checked(self, method: str, path: str, body: Any) -> Any:
        response = self._patiently(lambda: self._answer(method, path, body))
        if response.status_code in (401, 403):
            raise AuthenticationError(
                f"Prefect at {self.connection.api_url} refuses these credentials ({response.status_code}). "
                f"Pass api_key=…, or set PREFECT_API_KEY or PREFECT_API_AUTH_STRING."
            )
        if response.is_redirect:
            raise EngineError(
                self._strange(f"a redirect to {without_credentials(response.headers.get('location', ''))}")
            )
        if response.status_code == 409:
            raise ConflictError(self._told(response, method, path))
        if response.is_error and response.status_code != 404:
            raise EngineError(self._told(response, method, path))
        try:
            answer = response.json() if response.content else None
        except ValueError as error:
            raise EngineError(self._strange(f"{response.status_code} and {_page(response):.300}")) from error
        if response.status_code == 404:
            raise NotFoundError(f"Prefect at {self.connection.api_url} has nothing at {path}.")
        return answer

    def _understood(self, meaning: Callable[[Any], Meaning], answer: Any) -> Meaning:
        """What an answer means; an ``EngineError`` where it is none that Prefect gives."""
        try:
            return meaning(answer)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise EngineError(self._strange(f"{answer!r:.200}")) from error

    def _strange(self, answer: str) -> str:
        return (
            f"{self.connection.api_url} answered with {answer}, and not as Prefect's API does. Is this its address, "
            f"and does something stand in front of it, such as a login page?"
        )

    def _answer(self, method: str, path: str, body: Any) -> httpx.Response:
        """One call, and more of them while the database is locked, or a gateway has nobody behind it."""
        import random

        deadline = time.monotonic() + self.busy_seconds
        for tries in count():
            response = self._send(method, path, body)
            if response.status_code not in _BUSY:
                return response
            patient = _is_locked(response) and time.monotonic() < deadline
            if tries + 1 >= _BUSY_TRIES and not patient:
                break
            time.sleep(random.uniform(0.4, 1) * min(0.05 * 1.1**tries if patient else 0.05, _LONGEST_PAUSE_SECONDS))
        raise EngineUnreachableError(self._told(response, method, path))

    def _told(self, response: httpx.Response, method: str, path: str) -> str:
        where, status = self.connection.api_url, response.status_code
        return f"Prefect at {where} answered {status} to {method} {path}: {_page(response)}"

    def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        """One request; a second one if the server had closed the kept connection meanwhile."""
        import httpx

        url = self.connection.api_url + path
        try:
            try:
                return self._client().request(method, url, json=body)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                return self._client().request(method, url, json=body)
        except httpx.TransportError as error:
            raise EngineUnreachableError(
                f"Prefect does not answer at {self.connection.api_url}: {str(error) or type(error).__name__}. "
                f"Is the server running, and is this its address?"
            ) from error

    def _client(self) -> httpx.Client:
        if self._http is not None:
            return self._http
        import httpx

        with self._opening:
            http: httpx.Client | None = self._http  # another thread may have been faster
            if http is None:
                http = self._http = httpx.Client(headers=self.connection.headers, timeout=self.timeout)
                weakref.finalize(self, http.close)  # nobody closes an orchestrator that was made for one call
            return http

    def _patiently(self, call: Callable[[], httpx.Response]) -> httpx.Response:
        for delay in self.retry_policy.delays if self.retry_policy else ():
            try:
                return call()
            except EngineUnreachableError as error:
                if self.retry_policy is None or not self.retry_policy.retries_on(error):
                    raise
                time.sleep(delay)
        return call()


def is_id(text: object) -> bool:
    """Whether Prefect could have given this id."""
    from uuid import UUID

    try:
        UUID(str(text))
    except ValueError:
        return False
    return isinstance(text, str)


def _is_locked(response: httpx.Response) -> bool:
    """Whether this is Prefect's own answer when two of its transactions meet on SQLite, and not a gateway's."""
    if response.status_code != 503:
        return False
    try:
        answer = response.json()
    except ValueError:
        return False
    return isinstance(answer, dict) and "exception_message" in answer


def _text(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError("no text")
    return answer


def _list(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise TypeError("no list")
    return answer


def _record(answer: Any) -> dict[str, Any]:
    """A flow, a deployment or a work pool: each has an id and a name."""
    if not isinstance(answer, dict) or not answer.keys() >= {"id", "name"}:
        raise TypeError("no record")
    return answer


def _page(response: httpx.Response) -> str:
    """What a person would see: the title of a page of HTML, else the text."""
    import re

    title = re.search(r"<title[^>]*>\s*(.*?)\s*</title", response.text[:20000], re.IGNORECASE | re.DOTALL)
    return f"a page titled {title[1][:80]!r}" if title else response.text[:2000]


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
