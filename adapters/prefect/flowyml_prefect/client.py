"""Every call to Prefect, over its REST API and persistent connections.

Prefect's own client is not used: importing it takes 1.9 s of CPU, this one 0.1 s; it hides SQLite's "database is
locked" behind seconds of waiting; and it is bound to the event loop that created it. The part of the API that is used
here has been the same since Prefect 3.0.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from flowyml.core.errors import AuthenticationError, EngineError
from flowyml.core.following import command_line
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.http import ConflictError, HttpClient, NotFoundError, paged
from flowyml.orchestrators.listing import Listing
from flowyml_prefect.connection import Connection
from flowyml_prefect.parameters import unfilled
from flowyml_prefect.records import FlowRun, Log, TaskRun

if TYPE_CHECKING:
    from flowyml.core.web import Answer

__all__ = ["TAG", "PrefectClient", "not_an_id", "unknown"]

Meaning = TypeVar("Meaning")

TAG = "flowyml"
_LOCKED_SECONDS = 300  # SQLite refused a deployment for more than a minute while many runs wrote
_MOST_ARTIFACTS = 100_000  # of one run
_PAGE = 200
_SECRET_BLOCKS = "secret"  # noqa: S105  # the slug of their type


class PrefectClient(HttpClient):
    """The client of one server. Threads may share it; it sends one writing call at a time, for SQLite's sake.

    A call whose answer was lost is repeated, so its first try may have succeeded: Prefect then returns the flow, the
    deployment or the run that exists, and answers 409 to a second work pool, or a second schedule of a slug. A second
    artifact or automation has the same effect as the first.
    """

    engine = "Prefect"

    def __init__(
        self, connection: Connection, retry_policy: OrchestratorRetryPolicy | None = None, *, timeout: float = 30
    ) -> None:
        super().__init__(
            connection.api_url, auth=connection.auth, tls=connection.tls, timeout=timeout, policy=retry_policy
        )
        self.connection = connection
        self.command: Callable[..., str] = command_line
        """A command line for this Prefect; with its target, if an orchestrator has one."""
        self.locked_seconds: float = _LOCKED_SECONDS
        self._writing = threading.Lock()

    def refusal(self, status: int) -> AuthenticationError:
        withheld = ""
        if self.connection.has_strangers_login:
            withheld = (
                "A file of this folder names this server, so it did not get the login of your environment or profile: "
                f"if you trust it, set PREFECT_API_URL={self.url}. "
            )
        return AuthenticationError(
            f"Prefect at {self.url} refuses these credentials ({status}). {withheld}Give auth=key or "
            f"auth=(username, password); or set PREFECT_API_KEY or PREFECT_API_AUTH_STRING. {self.auth.note}".rstrip()
        )

    def busy_seconds(self, answer: Answer) -> float:
        """Return the patience with a busy server: more for a SQLite that is locked than for a gateway's error."""
        content = answer.json() if answer.status == 503 else None
        is_locked = isinstance(content, dict) and "exception_message" in content
        return self.locked_seconds if is_locked else super().busy_seconds(answer)

    # The server.

    def is_healthy(self) -> bool:
        """Return whether the server answers and accepts these credentials."""
        try:
            return self.get("/health") is True
        except EngineError:
            return False

    def version(self) -> str:
        return self._understood(_text, self.get("/admin/version"))

    def has_secret_block(self, name: str) -> bool:
        """Return whether a Secret block of this name exists, without reading its value."""
        try:
            self.get(f"/block_types/slug/{_SECRET_BLOCKS}/block_documents/name/{quote(name, safe='')}")
        except NotFoundError:
            return False
        return True

    # Flows and deployments.

    def create_flow(self, name: str, labels: Mapping[str, str]) -> str:
        """Return the id of the flow of this name; create it if it does not exist."""
        made = self.write("/flows/", {"name": name, "tags": [TAG], "labels": labels})
        return str(self._understood(_record, made)["id"])

    def flow_name(self, flow_id: str) -> str:
        return str(self._understood(_record, self.get(f"/flows/{flow_id}"))["name"])

    def deployment(self, flow: str, name: str) -> dict[str, Any] | None:
        return self._record_at(f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")

    def create_deployment(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._understood(_record, self.write("/deployments/", body))

    def update_deployment(self, deployment_id: str, body: Mapping[str, Any]) -> None:
        """Change a deployment in place: its id, its runs and its schedules stay."""
        self.write(f"/deployments/{deployment_id}", body, method="PATCH")

    def deployment_by_id(self, deployment_id: str) -> dict[str, Any]:
        return self._understood(_record, self.get(f"/deployments/{deployment_id}"))

    def deployments(self, flow: str | None = None) -> list[dict[str, Any]]:
        """Return the deployments that FlowyML made."""
        filters: dict[str, Any] = {"deployments": {"tags": {"all_": [TAG]}}, "sort": "NAME_ASC"}
        if flow is not None:
            filters["flows"] = {"name": {"any_": [flow]}}
        return list(self._pages("/deployments/filter", filters))

    def has_unfinished_runs(self, deployment_id: str) -> bool:
        """Return whether a run of a deployment has not ended, including runs that are planned for later."""
        states = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
        body = {
            "deployments": {"id": {"any_": [deployment_id]}},
            "flow_runs": {"state": {"type": {"any_": states}}},
            "limit": 1,
        }
        return bool(self.query("/flow_runs/filter", body))

    def delete_deployment(self, deployment_id: str) -> None:
        """Remove a deployment if it exists. Prefect removes those of its runs that have not begun."""
        self._delete(f"/deployments/{deployment_id}")

    # Schedules.

    def save_schedule(self, deployment_id: str, body: Mapping[str, Any], schedule_id: str | None = None) -> None:
        """Create a schedule of a deployment, or change the one of this id; its next runs are planned at once.

        Raises ``ConflictError`` if a schedule of this slug exists.
        """
        if schedule_id is None:
            self.write(f"/deployments/{deployment_id}/schedules", [body])
        else:
            self.write(f"/deployments/{deployment_id}/schedules/{schedule_id}", body, method="PATCH")
        self.plan_runs(deployment_id)

    def plan_runs(self, deployment_id: str) -> None:
        """Plan the next runs of a deployment at once. The server drops them whenever the deployment changes."""
        self.write(f"/deployments/{deployment_id}/schedule", {})

    def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        """Remove a schedule if it exists."""
        self._delete(f"/deployments/{deployment_id}/schedules/{schedule_id}")

    def planned(self, deployment_ids: Sequence[str], enough: int) -> dict[str, list[datetime]]:
        """Return the planned times of these deployments' runs, soonest first: all times, or ``enough`` of them.

        Read page by page. The next request leaves out deployments with ``enough`` times, so that a deployment that runs
        each minute takes no room from one that runs once a day.
        """
        future = {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "expected_start_time": {"after_": datetime.now(UTC).isoformat()},
        }
        times: dict[str, list[datetime]] = {deployment: [] for deployment in deployment_ids}
        read: Counter[str] = Counter()
        listing = Listing()
        while wanted := [deployment for deployment, known in times.items() if len(known) < enough]:
            body = {"deployments": {"id": {"any_": wanted}}, "flow_runs": future, "sort": "EXPECTED_START_TIME_ASC"}
            # The number of runs of these deployments that were read. Not ``paged``, which sends the same request each
            # time.
            offset = sum(read[deployment] for deployment in wanted)
            request = {**body, "limit": _PAGE, "offset": offset}
            page = listing.page(partial(self.query, "/flow_runs/filter", request), list)
            for plain in page:
                run = self._understood(FlowRun.of, plain)
                deployment = str(run.deployment_id)
                known = self._understood(times.__getitem__, deployment)  # Prefect may answer with runs of others
                read[deployment] += 1
                if run.due:
                    known.append(run.due)
            if len(page) < _PAGE:
                break
        return times

    # Work pools and automations.

    def work_pool(self, name: str) -> dict[str, Any] | None:
        return self._record_at(f"/work_pools/{quote(name, safe='')}")

    def ensure_process_pool(self, name: str) -> None:
        """Create a work pool whose workers start processes, unless a pool of this name exists."""
        if self.work_pool(name) is None:
            with suppress(ConflictError):
                self.write("/work_pools/", {"name": name, "type": "process"})

    def ensure_automation(self, body: Mapping[str, Any]) -> None:
        """Create an automation, unless one of its name exists.

        An automation of an earlier release, with another name of the state, is replaced, unless people have added
        actions to it.
        """
        found = self.query("/automations/filter", {"automations": {"name": {"any_": [body["name"]]}}})
        if not found:
            self.write("/automations/", body)
        elif len(found[0]["actions"]) == 1 and found[0]["actions"][0].get("name") != body["actions"][0]["name"]:
            changed = {**body, "enabled": found[0]["enabled"]}
            self.write(f"/automations/{found[0]['id']}", changed, method="PUT")

    # Runs.

    def create_run(self, deployment_id: str, body: Mapping[str, Any]) -> FlowRun:
        """Create a run, or return the run that has this idempotency key."""
        body = {**body, "parameters": unfilled(body["parameters"])}
        return self._understood(FlowRun.of, self.write(f"/deployments/{deployment_id}/create_flow_run", body))

    def run(self, run_id: str) -> FlowRun:
        return self._understood(FlowRun.of, self.get(f"/flow_runs/{run_id}"))

    def runs(self, filters: Mapping[str, Any], limit: int) -> list[FlowRun]:
        """Return the newest runs that pass the filters."""
        body = {**filters, "sort": "EXPECTED_START_TIME_DESC"}
        return self._all(FlowRun.of, "/flow_runs/filter", body, limit)

    def begun_runs(self, flow: str | None = None) -> list[FlowRun]:
        """Return all runs of FlowyML's, or of one flow, without those that are planned for later."""
        now = datetime.now(UTC).isoformat()
        filters: dict[str, Any] = {"flow_runs": {"tags": {"all_": [TAG]}, "expected_start_time": {"before_": now}}}
        if flow is not None:
            filters["flows"] = {"name": {"any_": [flow]}}
        return self._all(FlowRun.of, "/flow_runs/filter", {**filters, "sort": "ID_DESC"})

    def has_event(self, name: str, run_id: str, since: datetime) -> bool:
        """Return whether an event of this name was sent for a run since then. The sender's clock may be fast."""
        occurred = {"since": since.isoformat(), "until": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
        wanted = {"event": {"name": [name]}, "resource": {"id": [f"prefect.flow-run.{run_id}"]}, "occurred": occurred}
        found = self.ask("/events/filter", {"filter": wanted, "limit": 1})
        return self._understood(lambda page: bool(page["events"]), found)

    def delete_run(self, run_id: str) -> None:
        """Remove a run with its tasks, its log and its artifacts, if it exists."""
        filters = {"artifacts": {"flow_run_id": {"any_": [run_id]}}, "limit": _PAGE}
        gone: set[str] = set()
        while ids := {plain["id"] for plain in self.query("/artifacts/filter", filters)} - gone:
            for artifact_id in ids:
                self._delete(f"/artifacts/{artifact_id}")
            gone |= ids
            if len(gone) > _MOST_ARTIFACTS:
                raise EngineError(f"Prefect at {self.url} lists more than {_MOST_ARTIFACTS} artifacts of run {run_id}.")
        self._delete(f"/flow_runs/{run_id}")

    def task_runs(self, run_id: str) -> list[TaskRun]:
        """Return the task runs of a run, which Prefect records some seconds late."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self._all(TaskRun.of, "/task_runs/filter", body)

    def logs(self, run_id: str, after: datetime | None = None) -> list[Log]:
        """Return the log of a run in the order of time, from a moment on."""
        wanted: dict[str, Any] = {"flow_run_id": {"any_": [run_id]}}
        if after:
            wanted["timestamp"] = {"after_": after.isoformat()}
        return self._all(Log.of, "/logs/filter", {"logs": wanted, "sort": "TIMESTAMP_ASC"})

    def create_artifact(self, body: Mapping[str, Any]) -> None:
        self.write("/artifacts/", body)

    def artifacts(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the artifacts of a key, newest first, read page by page on demand."""
        return self._pages("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"})

    def artifact_of_run(self, key: str, run_id: str) -> Any:
        """Return the data of a run's newest artifact of this key, or None."""
        wanted = {"key": {"any_": [key]}, "flow_run_id": {"any_": [run_id]}}
        found = self.query("/artifacts/filter", {"artifacts": wanted, "sort": "CREATED_DESC", "limit": 1})
        return found[0]["data"] if found else None

    def markdown_of_run(self, run_id: str, key: str) -> Iterator[Any]:
        """Yield the texts of a run's artifacts whose keys begin with ``key``, oldest first."""
        query = {"type": {"any_": ["markdown"]}, "flow_run_id": {"any_": [run_id]}, "key": {"like_": f"{key}%"}}
        artifacts = self._pages("/artifacts/filter", {"artifacts": query, "sort": "ID_DESC"})
        return (item["data"] for item in sorted(artifacts, key=lambda item: str(item["created"])))

    def set_state(self, run_id: str, state: Mapping[str, Any], *, force: bool = False) -> str:
        """Propose a state; return Prefect's answer: ACCEPT, REJECT, ABORT or WAIT."""
        answer = self.write(f"/flow_runs/{run_id}/set_state", {"state": state, "force": force})
        return self._understood(lambda plain: str(plain["status"]), answer)

    def set_task_state(self, task_run_id: str, state: Mapping[str, Any]) -> None:
        """Set the state of a task run, whatever its state is."""
        self.write(f"/task_runs/{task_run_id}/set_state", {"state": state, "force": True})

    def label_run(self, run_id: str, labels: Mapping[str, Any]) -> None:
        """Set labels of a run; its other labels stay."""
        self.write(f"/flow_runs/{run_id}/labels", dict(labels), method="PATCH")

    def record_process(self, run_id: str, process: str) -> None:
        """Record on a run the process that executes it, as ``HOST:PID``."""
        self.write(f"/flow_runs/{run_id}", {"infrastructure_pid": process}, method="PATCH")

    def claim(self, run_id: str, mine: str) -> bool:
        """Claim a scheduled run for execution: only one process succeeds.

        ``mine`` is a UUID for the transition. A retry after a lost answer must pass the same one.
        """
        state = {"type": "PENDING", "name": "Pending", "state_details": {"transition_id": mine}}
        self.set_state(run_id, state)
        return self.run(run_id).transition_id == mine

    # Requests.

    def ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a POST that changes nothing."""
        return self.call("POST", path, json=body)

    def query(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        """Send a POST that changes nothing and returns a list."""
        return self._understood(_list, self.ask(path, body))

    def write(
        self, path: str, body: Mapping[str, Any] | list[Mapping[str, Any]] | None, *, method: str = "POST"
    ) -> Any:
        """Send a call that changes something: one at a time."""
        with self._writing:
            return self.call(method, path, json=body)

    def _record_at(self, path: str) -> dict[str, Any] | None:
        try:
            return self._understood(_record, self.get(path))
        except NotFoundError:
            return None

    def _delete(self, path: str) -> None:
        """Remove a record if it exists."""
        with suppress(NotFoundError):
            self.write(path, None, method="DELETE")

    def _all(
        self, meaning: Callable[[Any], Meaning], path: str, body: Mapping[str, Any], limit: int | None = None
    ) -> list[Meaning]:
        """Return all records of a list, each read with ``meaning``."""
        return [self._understood(meaning, plain) for plain in self._pages(path, body, limit)]

    def _pages(self, path: str, body: Mapping[str, Any], limit: int | None = None) -> Iterator[Any]:
        def fetch(size: int, offset: int) -> tuple[list[Any], None]:
            return self.query(path, {**body, "limit": size, "offset": offset}), None

        return paged(fetch, _PAGE, limit)

    def _understood(self, meaning: Callable[[Any], Meaning], answer: Any) -> Meaning:
        """Read an answer with ``meaning``; raise ``EngineError`` if the answer does not come from Prefect's API."""
        try:
            return meaning(answer)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self.url} answered with {answer!r:.200}, which does not come from Prefect's API. "
                f"Is this its address?"
            ) from error


def _text(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError("no text")
    return answer


def _list(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise TypeError("no list")
    return answer


def _record(answer: Any) -> dict[str, Any]:
    """Return a flow, a deployment or a work pool, which must have an id and a name."""
    if not isinstance(answer, dict) or not answer.keys() >= {"id", "name"}:
        raise TypeError("no record")
    return answer


def unknown(client: PrefectClient, what: str, name: str) -> str:
    """Say that the server does not have this run or schedule."""
    return f"Prefect at {client.connection.ui_url} has no {what} {name!r}."


def not_an_id(client: PrefectClient, what: str, name: str, listing: str) -> str:
    """Say the same for a text that cannot be an id of Prefect's. Raises if the server cannot be asked."""
    client.version()
    return f"{unknown(client, what, name)} Its id is a UUID, as `{listing}` shows it."
