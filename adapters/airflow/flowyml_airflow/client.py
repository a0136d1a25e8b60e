"""Every call to Airflow 3, through ``/api/v2``. ``client_v1`` has the differences of Airflow 2.

One transport serves both majors: ``apache-airflow-client`` takes seconds to import, does not speak ``/api/v1``, and its
models refuse fields that a newer Airflow adds. ``AirflowOrchestrator.api_client`` returns that client to users who need
more of Airflow.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flowyml.core.credentials import Auth
from flowyml.core.errors import (
    AuthenticationError,
    EngineError,
    EngineUnreachableError,
    MissingExtraError,
    ServerTroubleError,
)
from flowyml.core.following import command_line
from flowyml.core.urls import redact_url
from flowyml.orchestrators.http import ConflictError, ProxyLoginError, RefusedError, paged
from flowyml.orchestrators.http import NotFoundError as NotThereError
from flowyml_airflow.audit_log import AuditLogCalls
from flowyml_airflow.connection import Token, refusal
from flowyml_airflow.log_events import LogEvent, log_events
from flowyml_airflow.parameters import SIXTY_FOUR_BITS
from flowyml_airflow.transport import Transport
from flowyml_airflow.xcoms import is_kept_elsewhere

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

__all__ = [
    "AirflowClient", "ConflictError", "KeptElsewhereError", "NotThereError", "RefusedError", "quoted", "usable_id",
    "with_display_names",
]  # fmt: skip

_PAGE = 100  # Airflow's limit for a page, unless its [api] maximum_page_limit is another
_BUSY_SECONDS = 30
_READ_AGAIN = 3  # times that a list is read again which changed while it was read


class KeptElsewhereError(EngineError):
    """The value of an XCom is stored by an XCom backend, where Airflow's API does not read it."""


class AirflowClient(AuditLogCalls):
    """The API as plain JSON; ids are quoted here. ``version`` is that of the server."""

    api = "/api/v2"
    can_backfill = True
    dates_all_runs = False
    """True if each run has a logical date, even a run that was started without one."""
    stops_what_is_gone = True
    """True if Airflow can stop a run whose DAG, or one of whose tasks, is no longer in the DAGs folder."""
    may_run_after_end = False
    """True if a run may be running again, for a moment, after it ended with a task that skipped itself.

    The process of such a task commits its end twice, and the second time all that it knows of the run, too. Source:
    ``TaskInstance.save_to_db`` of Airflow 2, in ``_run_raw_task``.
    """

    def __init__(self, transport: Transport, version: str) -> None:
        self.transport = transport
        self.version = version
        self.dags_folder = ""  # as the user names it
        self.command: Callable[..., str] = command_line
        """A command line for this Airflow; with its target, if an orchestrator has one."""
        transport.credentials = self._credentials()

    def _credentials(self) -> Auth | Token:
        return Token(self.transport.auth, self._log_in)

    def _log_in(self) -> str:
        """Return a new token. A password from a file or a command is read again when it is refused."""
        auth = self.transport.auth
        for _ in range(2):
            login = {"username": auth.username, "password": auth.password.get()}
            try:
                return str(self.transport.call("POST", "/auth/token", json=login, anonymous=True)["access_token"])
            except ProxyLoginError:
                raise
            except AuthenticationError:
                if not auth.password.renew(login["password"] or ""):
                    break
        raise refusal(self.transport.connection, 401)

    # DAGs.

    def dag(self, dag_id: str) -> dict[str, Any]:
        """Return a DAG with its details. Raises ``NotThereError``."""
        answer: dict[str, Any] = self.transport.get(self._dag(dag_id, "details"))
        return answer

    def row(self, dag_id: str) -> dict[str, Any]:
        """Return a DAG without its details, which Airflow 2 lacks when the file is gone. Raises ``NotThereError``."""
        answer: dict[str, Any] = self.transport.get(self._dag(dag_id))
        return answer

    def dags(self, tag: str | None = None) -> Iterator[dict[str, Any]]:
        """Return all DAGs that have a file, or those of them with a tag."""
        return self._pages(f"{self.api}/dags", "dags", tags=tag, **self._alive)

    def _pages(self, path: str, name: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list, over all of its pages."""

        def fetch(size: int, offset: int) -> tuple[list[dict[str, Any]], int]:
            page = self.transport.get(path, limit=size, offset=offset, **params)
            return page[name], page["total_entries"] if page[name] else 0

        return paged(fetch, _PAGE)

    @property
    def _alive(self) -> Mapping[str, Any]:
        return {"exclude_stale": True}

    def source(self, dag: Mapping[str, Any], version: int | None = None) -> str:
        """Return the text of a DAG's file, as Airflow has parsed it."""
        content: str = self.transport.get(f"{self.api}/dagSources/{quoted(dag['dag_id'])}", version_number=version)[
            "content"
        ]
        return content

    def pause(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause a DAG. The mark in the query stays in Airflow's audit log and shows that FlowyML did it."""
        self.transport.call("PATCH", self._dag(dag_id), params=self._mark, json={"is_paused": paused})

    def delete(self, dag_id: str) -> None:
        """Delete what Airflow knows about a DAG, its runs included. Raises ``NotThereError``, ``ConflictError``."""
        self.transport.call("DELETE", self._dag(dag_id))

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the tasks of the DAG as it is now."""
        answer: list[dict[str, Any]] = self.transport.get(self._dag(dag_id, "tasks"))["tasks"]
        return answer

    def setting(self, section: str, option: str, default: float) -> float:
        """Read a number from Airflow's settings; the default if Airflow does not show its settings, which is an option.

        Source: Airflow, ``[api] expose_config``, on 2 ``[webserver] expose_config``.
        """
        with suppress(AuthenticationError, NotThereError, LookupError, ValueError):
            answer = self.transport.get(f"{self.api}/config/section/{section}/option/{option}")
            return float(answer["sections"][0]["options"][0]["value"])
        return default

    @property
    def reads_new_files_within(self) -> float:
        """The seconds that Airflow takes at most to begin to read a new or changed file of its DAGs folder."""
        first, again = (self.setting(section, option, default) for section, option, default in self._rhythm)
        return first + again

    @property
    def shows_changes_within(self) -> float:
        """Seconds from the first reading of a file until the API has its tasks, parameters and schedule.

        Airflow may have to read the file twice, since it does not write to its database again what it has just written.
        """
        return sum(self.setting(section, option, default) for section, option, default in self._changes)

    _changes: Sequence[tuple[str, str, float]] = (
        ("core", "min_serialized_dag_update_interval", 30),
        ("dag_processor", "min_file_process_interval", 30),
    )

    # Airflow's intervals for finding files, and for reading a file again; source: Airflow's configuration reference.
    _rhythm: Sequence[tuple[str, str, float]] = (
        ("dag_processor", "refresh_interval", 300),
        ("dag_processor", "min_file_process_interval", 30),
    )

    def has_pool(self, name: str) -> bool:
        """Return whether a pool exists; True if the user may not ask."""
        return self._has("pools", name)

    def has_connection(self, name: str) -> bool:
        """Return whether Airflow's database has a connection; True if the user may not ask."""
        return self._has("connections", name)

    def has_variable(self, name: str) -> bool:
        """Return whether Airflow's database has a variable; True if the user may not ask."""
        return self._has("variables", name)

    def _has(self, kind: str, name: str) -> bool:
        try:
            self.transport.get(f"{self.api}/{kind}/{quoted(name)}")
        except NotThereError:
            return False
        except AuthenticationError:
            return True
        return True

    def import_error(self, filename: str) -> dict[str, Any] | None:
        """Return the import error of a DAG file in ``dags_folder``; None if it has none."""
        pages = self._pages(f"{self.api}/importErrors", "import_errors", order_by="-import_error_id")
        return next((error for error in pages if self._is_file(str(error["filename"]), filename)), None)

    def _is_file(self, path: str, filename: str) -> bool:
        """Return whether a path of Airflow's is our file, and not one of the same name elsewhere.

        Airflow reports the path below the root of a bundle, which is ``dags_folder`` or a folder above it.
        """
        return f"/{self.dags_folder.rstrip('/')}/{filename}".endswith(f"/{path}")

    # Runs.

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], *, is_dated: bool = False) -> dict[str, Any]:
        """Start a run. Raises ``ConflictError`` if the run id is taken, also by an earlier try of the same call.

        With ``is_dated`` the run gets the current time of this machine as its logical date, as on Airflow's page:
        without it, Airflow 3 has no ``{{ ds }}``.
        """
        body = {"dag_run_id": run_id, "conf": dict(conf), **self._date(datetime.now(UTC) if is_dated else None)}
        answer: dict[str, Any] = self._once_written(self._dag(dag_id, "dagRuns"), body)
        return answer

    def _once_written(self, path: str, body: Mapping[str, Any], **options: Any) -> Any:
        """Send a POST and return the answer; while SQLite is locked, repeat it for half a minute.

        On SQLite, Airflow answers 500 while another process writes, and has changed nothing then.
        """
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self.transport.call("POST", path, json=body, **options)
            except ServerTroubleError:
                if time.monotonic() > until:
                    raise
            time.sleep(random.uniform(0.1, 1))  # noqa: S311  # no secret: so that callers do not collide

    def make_run(self, dag_id: str, run_id: str, logical: datetime, start: datetime, end: datetime) -> None:
        """Create a run for a logical date. Raises ``ConflictError`` if the id or the date has a run."""
        body = {
            "dag_run_id": run_id, "conf": {}, "logical_date": logical.isoformat(),
            "data_interval_start": start.isoformat(), "data_interval_end": end.isoformat(),
        }  # fmt: skip
        self.transport.call("POST", self._dag(dag_id, "dagRuns"), json=body)

    def set_success(self, dag_id: str, run_id: str) -> None:
        """Mark a run as successful."""
        self.transport.call("PATCH", self._run(dag_id, run_id), json={"state": "success"})

    integers: range | None = SIXTY_FOUR_BITS
    """The integers that Airflow carries in a run's parameters; None if it carries all."""

    def _date(self, logical: datetime | None) -> Mapping[str, Any]:
        return {"logical_date": logical.isoformat() if logical else None}

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run. Raises ``NotThereError``."""
        answer: dict[str, Any] = self.transport.get(self._run(dag_id, run_id))
        return answer

    def runs(
        self, dag_ids: Sequence[str] | None, limit: int | None, between: tuple[datetime, datetime] | None = None
    ) -> list[dict[str, Any]]:
        """Return runs of these DAGs, or of all, newest first; ``between`` two logical dates, both included."""
        body: dict[str, Any] = {"order_by": self._newest, **({"dag_ids": list(dag_ids)} if dag_ids else {})}
        if between:
            body |= dict(zip(self._dates, (moment.isoformat() for moment in between), strict=True))

        def fetch(size: int, offset: int) -> tuple[list[dict[str, Any]], int]:
            query = {**body, "page_limit": size, "page_offset": offset}
            page = self.transport.call("POST", f"{self.api}/dags/~/dagRuns/list", json=query)
            return page["dag_runs"], page["total_entries"] if page["dag_runs"] else 0

        # A run that is created meanwhile shifts the others: the last run of a page may come again as the first of the
        # next.
        return list({(run["dag_id"], run["dag_run_id"]): run for run in paged(fetch, _PAGE, limit)}.values())

    def unfinished(self, dag_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return runs of these DAGs that have not ended; only some of them if they are many."""
        body = {"dag_ids": list(dag_ids), "states": ["queued", "running"], "page_limit": 3}
        answer: list[dict[str, Any]] = self.transport.call("POST", f"{self.api}/dags/~/dagRuns/list", json=body)[
            "dag_runs"
        ]
        return answer

    _dates = ("logical_date_gte", "logical_date_lte")
    _newest = "-id"  # a backfill makes runs for dates that have passed

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the tasks of a run, without loop items that Airflow removed. Raises ``NotThereError``.

        An item is removed when its run was cleared, and the list has become shorter.
        """
        tasks = with_display_names(self._task_instances(dag_id, run_id))
        return [task for task in tasks if task["state"] != "removed" or task.get("map_index", -1) < 0]

    def _task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List the tasks of a run, once more if the list changed while it was read.

        A task that runs again gets a new id, and with it the last position in the list. If that happens between two
        pages, the task is listed twice and another task not at all.
        """
        path, tries = self._run(dag_id, run_id, "taskInstances"), _READ_AGAIN
        while True:
            read = list(self._pages(path, "task_instances", order_by="id"))
            by_place = {(task["task_id"], task.get("map_index", -1)): task for task in read}
            if len(by_place) == len(read) or not tries:
                return list(by_place.values())
            tries -= 1

    def note(self, dag_id: str, run_id: str, note: str) -> None:
        """Write a note on a run."""
        self.transport.call("PATCH", self._run(dag_id, run_id), json={"note": note})

    def fail(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Mark a run as failed, which ends its tasks. Returns the run as it is then."""
        answer: dict[str, Any] = self.transport.call("PATCH", self._run(dag_id, run_id), json={"state": "failed"})
        return answer

    def clear(self, dag_id: str, run_id: str, failed_only: bool) -> int:
        """Clear the tasks of a run, so that they run again; return their number."""
        body = {"dag_run_id": run_id, "only_failed": failed_only, "dry_run": False, "reset_dag_runs": True}
        return len(self._cleared(dag_id, body)["task_instances"])

    def clear_tasks(self, dag_id: str, run_id: str, items_of: Mapping[str, Collection[int] | None]) -> None:
        """Clear these tasks of an ended run, so that they run again: the given map indexes, or all if None."""
        marks: list[Any] = []
        for task, indexes in items_of.items():
            marks += [task] if indexes is None else [[task, index] for index in sorted(indexes)]
        self._clear(dag_id, run_id, marks, only_failed=False, reset_dag_runs=True)

    def _clear(self, dag_id: str, run_id: str, tasks: Sequence[Any], **options: bool) -> None:
        self._cleared(dag_id, {"dag_run_id": run_id, "task_ids": list(tasks), "dry_run": False, **options})

    def _cleared(self, dag_id: str, body: Mapping[str, Any]) -> Any:
        """Clear tasks and return Airflow's answer. The call is not repeated if its answer was lost.

        A second call would stop the tasks that run again since the first.
        """
        try:
            return self._once_written(self._dag(dag_id, "clearTaskInstances"), body, again=False)
        except EngineUnreachableError as error:
            raise EngineUnreachableError(
                f"{error} The request may have arrived and cleared tasks: look at the run before you repeat this."
            ) from error

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Read an XCom.

        Raises ``NotThereError``, and ``KeptElsewhereError`` if Airflow stores the value outside of its database, where
        the API does not read it.
        """
        path = self._run(dag_id, run_id, "taskInstances", task_id, "xcomEntries", key)
        value = self.transport.get(path, map_index=map_index, **self._as_json)["value"]
        if not is_kept_elsewhere(value, dag_id, run_id, task_id):
            return value
        with suppress(RefusedError):  # Airflow 2 reads it if [api] enable_xcom_deserialize_support is on; 3 does not
            read = self.transport.get(path, map_index=map_index, deserialize=True, **self._as_json)["value"]
            if read != value:
                return read
        raise KeptElsewhereError(
            f"Airflow's XCom backend stores {key!r} of task {task_id!r} at {redact_url(value)}, and the API does not "
            f"read it there. In Airflow, {self._to_read}"
        )

    # Values that FlowyML passes on are smaller, also as escaped JSON.
    _to_read = (
        "set [common.io] xcom_objectstorage_threshold to 1000000: later runs then have no output of FlowyML's steps "
        "there."
    )

    @property
    def _as_json(self) -> Mapping[str, Any]:
        return {}

    def returned(self, dag_id: str, run_id: str, key: str = "return_value") -> list[tuple[str, int]]:
        """Return the tasks of a run that left an XCom of this key, with their map indexes: -1 if not mapped."""
        path = self._run(dag_id, run_id, "taskInstances", "~", "xcomEntries")
        entries = self._pages(path, "xcom_entries", xcom_key=key)
        return list(dict.fromkeys((entry["task_id"], entry.get("map_index", -1)) for entry in entries))

    def log(self, dag_id: str, run_id: str, task: Mapping[str, Any], attempt: int) -> list[LogEvent]:
        """Return the log of an attempt so far."""
        path = self._run(dag_id, run_id, "taskInstances", task["task_id"], "logs", str(attempt))
        try:
            answer = self.transport.get(path, full_content=True, map_index=task.get("map_index", -1))
        except NotThereError:
            return []
        return self._events(answer["content"])

    def _events(self, content: Any) -> list[LogEvent]:
        return log_events(content or ())

    def api_client(self) -> ApiClient:
        """Return Airflow's own client with a new token. Raises ``MissingExtraError``."""
        try:
            from airflow_client.client import ApiClient, Configuration  # takes seconds to import
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{error.name!r} is not installed: pip install 'flowyml[airflow]'") from error
        auth, tls = self.transport.auth, self.transport.tls
        token = self._log_in() if auth.username and auth.password else auth.token.get()
        settings = Configuration(
            self.transport.url, access_token=token, ssl_ca_cert=tls.authorities, verify_ssl=tls.verify
        )
        settings.cert_file, settings.key_file = tls.certificate or (None, None)
        return ApiClient(settings, cookie=auth.cookies.get())

    # Backfills.

    def backfill(self, dag_id: str, start: datetime, end: datetime, conf: Mapping[str, Any], **options: Any) -> int:
        """Create the runs of a date range. Raises ``ConflictError`` while another backfill of the DAG is active."""
        body = {
            "dag_id": dag_id, "from_date": start.isoformat(), "to_date": end.isoformat(), "dag_run_conf": dict(conf),
            **options,
        }  # fmt: skip
        return int(self.transport.call("POST", f"{self.api}/backfills", json=body, again=False)["id"])

    # Health and addresses.

    def health(self) -> dict[str, str]:
        """Return the health of each component, in Airflow's words."""
        parts = self.transport.get(self._health_page)
        return {name: part["status"] for name, part in parts.items() if isinstance(part, dict) and part.get("status")}

    _health_page = "/api/v2/monitor/health"

    def run_url(self, dag_id: str, run_id: str) -> str:
        """Return the page of a run in the UI."""
        return f"{self.transport.connection.url}/dags/{quoted(dag_id)}/runs/{quoted(run_id)}"

    def dag_url(self, dag_id: str) -> str:
        """Return the page of a DAG in the UI."""
        return f"{self.transport.connection.url}/dags/{quoted(dag_id)}"

    def _dag(self, dag_id: str, *parts: str) -> str:
        return "/".join((f"{self.api}/dags", *map(quoted, (dag_id, *parts))))

    def _run(self, dag_id: str, run_id: str, *parts: str) -> str:
        return self._dag(dag_id, "dagRuns", run_id, *parts)


def with_display_names(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give items that never began, for which Airflow 3 shows the task id, the display name of another item."""
    names = {
        task["task_id"]: name
        for task in tasks
        if (name := task.get("task_display_name")) not in (None, "", task["task_id"])
    }
    return [
        {**task, "task_display_name": names[task["task_id"]]} if task["task_id"] in names else task for task in tasks
    ]


def usable_id(name: str) -> bool:
    """Return whether an id can stand in a path: ``..`` and ``~`` would mean something else."""
    return bool(name) and name not in (".", "..", "~")


def quoted(part: str) -> str:
    if not usable_id(part) and part != "~":
        raise EngineError(f"{part!r} cannot be an id in Airflow.")
    return quote(part, safe="~")
