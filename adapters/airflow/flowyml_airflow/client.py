"""Every call to Airflow 3, through ``/api/v2``. ``client_v1`` says what is different on Airflow 2.

One transport serves both majors: ``apache-airflow-client`` takes seconds to import, speaks no ``/api/v1``, and its
models refuse what a newer Airflow adds. ``AirflowOrchestrator.api_client`` gives it to those who want more of Airflow.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from flowyml.core.credentials import Login
from flowyml.core.errors import (
    AuthenticationError,
    EngineError,
    EngineUnreachableError,
    MissingExtraError,
    ServerTroubleError,
)
from flowyml.core.following import command_line
from flowyml.core.urls import shown
from flowyml.orchestrators.http import ConflictError, ProxyLoginError, RefusedError, paged
from flowyml.orchestrators.http import NotFoundError as NotThereError
from flowyml_airflow.connection import Token, refusal
from flowyml_airflow.log_events import LogEvent, log_events
from flowyml_airflow.parameters import SIXTY_FOUR_BITS
from flowyml_airflow.transport import Transport
from flowyml_airflow.xcoms import is_kept_elsewhere

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

__all__ = [
    "AirflowClient", "ConflictError", "KeptElsewhereError", "Mark", "NotThereError", "RefusedError", "quoted",
    "usable_id", "with_display_names",
]  # fmt: skip

_PAGE = 100  # Airflow gives no more at once, unless its [api] maximum_page_limit says otherwise
_BUSY_SECONDS = 30
_READ_AGAIN = 3  # times that a list is read again which changed while it was read


class KeptElsewhereError(EngineError):
    """Airflow's XCom backend stores a value where Airflow's API does not read it."""


class Mark(NamedTuple):
    """A task that a user marked as failed; without a ``task``, a run or a group of tasks."""

    task: str | None
    user: str
    time: str


class AirflowClient:
    """Plain JSON in and out; ids are quoted here. ``version`` is that of the server."""

    api = "/api/v2"
    can_backfill = True
    dates_all_runs = False
    """Whether each run has a logical date, also one that is started without."""
    stops_what_is_gone = True
    """Whether it stops a run whose DAG, or one of whose tasks, is not in the DAGs folder any more."""

    def __init__(self, transport: Transport, version: str) -> None:
        self.transport = transport
        self.version = version
        self.dags_folder = ""  # as the user names it
        self.command: Callable[..., str] = command_line
        """The command line that does something on this Airflow; with its target, where an orchestrator has one."""
        transport.credentials = self._credentials()

    def _credentials(self) -> Login | Token:
        return Token(self.transport.login, self._log_in)

    def _log_in(self) -> str:
        """A new token. A password from a file or a command is read again when it is refused."""
        login = self.transport.login
        for _ in range(2):
            who = {"username": login.username, "password": login.password.get()}
            try:
                return str(self.transport.call("POST", "/auth/token", json=who, anonymous=True)["access_token"])
            except ProxyLoginError:
                raise
            except AuthenticationError:
                if not login.password.renew(who["password"] or ""):
                    break
        raise refusal(self.transport.connection, 401)

    # DAGs.

    def dag(self, dag_id: str) -> dict[str, Any]:
        """A DAG with its details. Raises ``NotThereError``."""
        found: dict[str, Any] = self.transport.get(self._dag(dag_id, "details"))
        return found

    def dags(self, tag: str | None = None) -> Iterator[dict[str, Any]]:
        """All DAGs that still have a file, or those with a tag."""
        return self._pages(f"{self.api}/dags", "dags", tags=tag, **self._alive)

    def _pages(self, path: str, name: str, **params: Any) -> Iterator[dict[str, Any]]:
        """What a list holds, however many pages it has."""

        def fetch(size: int, offset: int) -> tuple[list[dict[str, Any]], int]:
            page = self.transport.get(path, limit=size, offset=offset, **params)
            return page[name], page["total_entries"] if page[name] else 0

        return paged(fetch, _PAGE)

    @property
    def _alive(self) -> Mapping[str, Any]:
        return {"exclude_stale": True}

    def source(self, dag: Mapping[str, Any], version: int | None = None) -> str:
        """The text of a DAG's file, as Airflow has parsed it."""
        content: str = self.transport.get(f"{self.api}/dagSources/{quoted(dag['dag_id'])}", version_number=version)[
            "content"
        ]
        return content

    def pause(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause. The mark in the query, which Airflow keeps in its audit log, tells that FlowyML did it."""
        self.transport.call("PATCH", self._dag(dag_id), params=self._mark, json={"is_paused": paused})

    @property
    def _mark(self) -> Mapping[str, str]:
        return {"flowyml": "yes"}

    def pause_we_set(self, dag_id: str) -> bool | None:
        """Whether FlowyML paused the DAG when it last did one or the other; None where the audit log does not tell.

        The log may have been cleaned since, and not everybody may read it.
        """
        try:
            log = self.transport.get(f"{self.api}/eventLogs", dag_id=dag_id, limit=_PAGE, **self._pauses)
        except AuthenticationError:
            return None
        for entry in log["event_logs"]:
            asked = _call_of(entry)
            if self._mark.keys() <= asked.keys():
                return bool(asked.get("is_paused"))
        return None

    def was_paused_by_hand(self, dag_id: str) -> bool:
        """Whether a DAG that is paused was paused after it was made: by someone, or by FlowyML on request.

        A new DAG is paused until it is unpaused for the first time, unless Airflow's settings say otherwise. The audit
        log tells of every change; where it may not be read, or names no DAG, a DAG that has had runs was unpaused once.
        """
        with suppress(AuthenticationError):
            log = self.transport.get(f"{self.api}/eventLogs", dag_id=dag_id, limit=1, **self._any_pause)
            if log["event_logs"]:
                return True
        return bool(self.runs([dag_id], 1))

    _any_pause: Mapping[str, Any] = {"included_events": ["patch_dag", "cli_dag_pause", "cli_dag_unpause"]}

    @property
    def _pauses(self) -> Mapping[str, Any]:
        """What the audit log is asked for: calls that pause or unpause, the newest first."""
        return {"event": "patch_dag", "order_by": "-event_log_id"}

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """The tasks of a DAG as it is now."""
        found: list[dict[str, Any]] = self.transport.get(self._dag(dag_id, "tasks"))["tasks"]
        return found

    def setting(self, section: str, option: str, default: float) -> float:
        """A number among Airflow's settings; the default where Airflow does not show them, which it does on request.

        Source: Airflow, ``[api] expose_config``, on 2 ``[webserver] expose_config``.
        """
        with suppress(AuthenticationError, NotThereError, LookupError, ValueError):
            answer = self.transport.get(f"{self.api}/config/section/{section}/option/{option}")
            return float(answer["sections"][0]["options"][0]["value"])
        return default

    @property
    def reads_new_files_within(self) -> float:
        """Seconds that Airflow takes at most until it begins to read a new or changed file of its DAGs folder."""
        found, again = (self.setting(section, option, default) for section, option, default in self._rhythm)
        return found + again

    @property
    def shows_changes_within(self) -> float:
        """Seconds until its API has the tasks, parameters and schedule of a file that it has read for the first time.

        It may have to read the file once more: what it changed in its database a moment ago it leaves as it is.
        """
        return sum(self.setting(section, option, default) for section, option, default in self._changes)

    _changes: Sequence[tuple[str, str, float]] = (
        ("core", "min_serialized_dag_update_interval", 30),
        ("dag_processor", "min_file_process_interval", 30),
    )

    # How often it looks for files, and how often it reads one again; source: Airflow's configuration reference.
    _rhythm: Sequence[tuple[str, str, float]] = (
        ("dag_processor", "refresh_interval", 300),
        ("dag_processor", "min_file_process_interval", 30),
    )

    def has_pool(self, name: str) -> bool:
        """Whether a pool exists; True where the user may not ask."""
        return self._has("pools", name)

    def has_connection(self, name: str) -> bool:
        """Whether a connection is in Airflow's database; True where the user may not ask."""
        return self._has("connections", name)

    def has_variable(self, name: str) -> bool:
        """Whether a variable is in Airflow's database; True where the user may not ask."""
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
        """The import error of a DAG file in ``dags_folder``, if there is one."""
        pages = self._pages(f"{self.api}/importErrors", "import_errors", order_by="-import_error_id")
        return next((error for error in pages if self._is_file(str(error["filename"]), filename)), None)

    def _is_file(self, path: str, filename: str) -> bool:
        """Whether Airflow means our file, and not one of the same name elsewhere.

        It tells the path below the root of a bundle, which is ``dags_folder`` or a folder above it.
        """
        return f"/{self.dags_folder.rstrip('/')}/{filename}".endswith(f"/{path}")

    # Runs.

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], *, is_dated: bool = False) -> dict[str, Any]:
        """Start a run. Raises ``ConflictError`` when the run id is taken, which it is after a repeated call too.

        ``is_dated`` gives it a logical date, now, by the clock of this machine, as Airflow's page does: Airflow 3 has
        no ``{{ ds }}`` without one.
        """
        body = {"dag_run_id": run_id, "conf": dict(conf), **self._date(datetime.now(UTC) if is_dated else None)}
        made: dict[str, Any] = self._once_written(self._dag(dag_id, "dagRuns"), body)
        return made

    def _once_written(self, path: str, body: Mapping[str, Any], **options: Any) -> Any:
        """The answer to a POST. On SQLite, Airflow answers 500 while another process writes, and has changed nothing:
        such a call is repeated for half a minute.
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
        """Make a run of a date, and not of now. Raises ``ConflictError`` where the id or the date has one."""
        body = {
            "dag_run_id": run_id, "conf": {}, "logical_date": logical.isoformat(),
            "data_interval_start": start.isoformat(), "data_interval_end": end.isoformat(),
        }  # fmt: skip
        self.transport.call("POST", self._dag(dag_id, "dagRuns"), json=body)

    def set_success(self, dag_id: str, run_id: str) -> None:
        """Mark a run as one that ended well."""
        self.transport.call("PATCH", self._run(dag_id, run_id), json={"state": "success"})

    integers: range | None = SIXTY_FOUR_BITS
    """Those that it carries in the parameters of a run; None for all."""

    def _date(self, logical: datetime | None) -> Mapping[str, Any]:
        return {"logical_date": logical.isoformat() if logical else None}

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run. Raises ``NotThereError``."""
        found: dict[str, Any] = self.transport.get(self._run(dag_id, run_id))
        return found

    def runs(
        self, dag_ids: Sequence[str] | None, limit: int | None, between: tuple[datetime, datetime] | None = None
    ) -> list[dict[str, Any]]:
        """Runs of these DAGs, or of all, the last made first; ``between`` two logical dates, both included."""
        body: dict[str, Any] = {"order_by": self._newest, **({"dag_ids": list(dag_ids)} if dag_ids else {})}
        if between:
            body |= dict(zip(self._dates, (moment.isoformat() for moment in between), strict=True))

        def fetch(size: int, offset: int) -> tuple[list[dict[str, Any]], int]:
            asked = {**body, "page_limit": size, "page_offset": offset}
            page = self.transport.call("POST", f"{self.api}/dags/~/dagRuns/list", json=asked)
            return page["dag_runs"], page["total_entries"] if page["dag_runs"] else 0

        # One that is made meanwhile moves the others on, and the last one of a page is also the first of the next.
        return list({(run["dag_id"], run["dag_run_id"]): run for run in paged(fetch, _PAGE, limit)}.values())

    def unfinished(self, dag_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Runs of these DAGs that have not ended; a few where there are many."""
        body = {"dag_ids": list(dag_ids), "states": ["queued", "running"], "page_limit": 3}
        found: list[dict[str, Any]] = self.transport.call("POST", f"{self.api}/dags/~/dagRuns/list", json=body)[
            "dag_runs"
        ]
        return found

    _dates = ("logical_date_gte", "logical_date_lte")
    _newest = "-id"  # a backfill makes runs for dates that have passed

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run, without items that Airflow removed. Raises ``NotThereError``."""
        return [task for task in with_display_names(self._task_instances(dag_id, run_id)) if not _is_removed_item(task)]

    def _task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """A task gets a new id, and with it the last place in the list, when it runs again.

        If that happens between two pages, it is listed twice, and another is not: then the list is read again.
        """
        path, most = self._run(dag_id, run_id, "taskInstances"), _READ_AGAIN
        while True:
            read = list(self._pages(path, "task_instances", order_by="id"))
            found = {(task["task_id"], task.get("map_index", -1)): task for task in read}
            if len(found) == len(read) or not most:
                return list(found.values())
            most -= 1

    def note(self, dag_id: str, run_id: str, note: str) -> None:
        """Write a note on a run."""
        self.transport.call("PATCH", self._run(dag_id, run_id), json={"note": note})

    def notes_written(self, dag_id: str) -> dict[str, list[str]]:
        """Notes that were written on runs of a DAG, the newest first, by run id, as the audit log tells.

        None where the log was cleaned or may not be read; the newest 100 at most.
        """
        try:
            log = self.transport.get(f"{self.api}/eventLogs", dag_id=dag_id, limit=_PAGE, **self._note_events)
        except AuthenticationError:
            return {}
        notes: dict[str, list[str]] = {}
        for entry in log["event_logs"]:
            note = _call_of(entry).get("note")
            if isinstance(note, str) and entry.get("run_id"):
                notes.setdefault(entry["run_id"], []).append(note)
        return notes

    _note_events: Mapping[str, Any] = {"event": "patch_dag_run", "order_by": "-event_log_id"}

    def marked_failed(self, dag_id: str, run_id: str) -> list[Mark]:
        """Read from the audit log who marked a run, or tasks of it, as failed: the newest first.

        Empty where the log was cleaned or may not be read. Only the newest 100 entries are read.
        """
        asked = {"dag_id": dag_id, "run_id": run_id, "limit": _PAGE, **self._mark_events}
        try:
            log = self.transport.get(f"{self.api}/eventLogs", **asked)
        except AuthenticationError:
            return []
        return [mark for entry in log["event_logs"] for mark in _marks(entry)]

    _mark_events: Mapping[str, Any] = {
        "included_events": [
            "patch_dag_run", "patch_task_instance", "bulk_task_instances", "patch_task_group_instances"
        ],
        "order_by": "-event_log_id",
    }  # fmt: skip

    def fail(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Mark a run as failed, which ends its tasks. Gives the run as it is then."""
        found: dict[str, Any] = self.transport.call("PATCH", self._run(dag_id, run_id), json={"state": "failed"})
        return found

    def clear(self, dag_id: str, run_id: str, failed_only: bool) -> int:
        """Let the tasks of a run run again; gives how many."""
        body = {"dag_run_id": run_id, "only_failed": failed_only, "dry_run": False, "reset_dag_runs": True}
        return len(self._cleared(dag_id, body)["task_instances"])

    def clear_tasks(self, dag_id: str, run_id: str, wanted: Mapping[str, Collection[int] | None]) -> None:
        """Let these tasks of an ended run run again: those of some map indexes, or with None all."""
        marks: list[Any] = []
        for task, indexes in wanted.items():
            marks += [task] if indexes is None else [[task, index] for index in sorted(indexes)]
        self._clear(dag_id, run_id, marks, only_failed=False, reset_dag_runs=True)

    def _clear(self, dag_id: str, run_id: str, tasks: Sequence[Any], **options: bool) -> None:
        self._cleared(dag_id, {"dag_run_id": run_id, "task_ids": list(tasks), "dry_run": False, **options})

    def _cleared(self, dag_id: str, body: Mapping[str, Any]) -> Any:
        """What was cleared. A second call would stop what runs again since the first, whose answer was lost."""
        try:
            return self._once_written(self._dag(dag_id, "clearTaskInstances"), body, again=False)
        except EngineUnreachableError as error:
            raise EngineUnreachableError(
                f"{error} The request may have arrived and cleared tasks: look at the run before you repeat this."
            ) from error

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """A value that a task left. Raises ``NotThereError``, and ``KeptElsewhereError`` if Airflow stores the value
        outside its database and does not give it.
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
            f"Airflow's XCom backend stores {key!r} of task {task_id!r} at {shown(value)}, and the API does not read "
            f"it there. In Airflow, {self._to_read}"
        )

    # What FlowyML passes on is smaller, also as escaped JSON.
    _to_read = (
        "set [common.io] xcom_objectstorage_threshold to 1000000: later runs then have no output of FlowyML's steps "
        "there."
    )

    @property
    def _as_json(self) -> Mapping[str, Any]:
        return {}

    def returned(self, dag_id: str, run_id: str, key: str = "return_value") -> list[tuple[str, int]]:
        """The tasks of a run that left a return value, or another one, and their map index: -1 for those without."""
        path = self._run(dag_id, run_id, "taskInstances", "~", "xcomEntries")
        entries = self._pages(path, "xcom_entries", xcom_key=key)
        return list(dict.fromkeys((entry["task_id"], entry.get("map_index", -1)) for entry in entries))

    def log(self, dag_id: str, run_id: str, task: Mapping[str, Any], attempt: int) -> list[LogEvent]:
        """What an attempt wrote so far."""
        path = self._run(dag_id, run_id, "taskInstances", task["task_id"], "logs", str(attempt))
        try:
            answer = self.transport.get(path, full_content=True, map_index=task.get("map_index", -1))
        except NotThereError:
            return []
        return self._events(answer["content"])

    def _events(self, content: Any) -> list[LogEvent]:
        return log_events(content or ())

    def api_client(self) -> ApiClient:
        """Airflow's own client with a new token. Raises ``MissingExtraError``."""
        try:
            from airflow_client.client import ApiClient, Configuration  # takes seconds to import
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{error.name!r} is not installed: pip install 'flowyml[airflow]'") from error
        login, tls = self.transport.login, self.transport.tls
        token = self._log_in() if login.username and login.password else login.token.get()
        settings = Configuration(
            self.transport.url, access_token=token, ssl_ca_cert=tls.authorities, verify_ssl=bool(tls.verify)
        )
        settings.cert_file, settings.key_file = tls.certificate or (None, None)
        return ApiClient(settings)

    # Backfills.

    def backfill(self, dag_id: str, start: datetime, end: datetime, conf: Mapping[str, Any], **options: Any) -> int:
        """Make the runs of a date range. Raises ``ConflictError`` while another backfill of the DAG is active."""
        body = {
            "dag_id": dag_id, "from_date": start.isoformat(), "to_date": end.isoformat(), "dag_run_conf": dict(conf),
            **options,
        }  # fmt: skip
        return int(self.transport.call("POST", f"{self.api}/backfills", json=body, again=False)["id"])

    # What is in which place.

    def health(self) -> dict[str, str]:
        """Each component's own word."""
        parts = self.transport.get(self._health_page)
        return {name: part["status"] for name, part in parts.items() if isinstance(part, dict) and part.get("status")}

    _health_page = "/api/v2/monitor/health"

    def run_url(self, dag_id: str, run_id: str) -> str:
        """The page of a run in the UI."""
        return f"{self.transport.connection.url}/dags/{quoted(dag_id)}/runs/{quoted(run_id)}"

    def dag_url(self, dag_id: str) -> str:
        """The page of a DAG in the UI."""
        return f"{self.transport.connection.url}/dags/{quoted(dag_id)}"

    def _dag(self, dag_id: str, *parts: str) -> str:
        return "/".join((f"{self.api}/dags", *map(quoted, (dag_id, *parts))))

    def _run(self, dag_id: str, run_id: str, *parts: str) -> str:
        return self._dag(dag_id, "dagRuns", run_id, *parts)


def with_display_names(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Airflow 3 gives an item that never began the id of its task as the name that is shown; another item has it."""
    names = {task["task_id"]: task["task_display_name"] for task in tasks if _has_display_name(task)}
    return [
        {**task, "task_display_name": names[task["task_id"]]} if task["task_id"] in names else task for task in tasks
    ]


def _is_removed_item(task: Mapping[str, Any]) -> bool:
    """Whether an item is none any more: its run was cleared, and the list has become shorter."""
    return bool(task["state"] == "removed" and task.get("map_index", -1) >= 0)


def _has_display_name(task: Mapping[str, Any]) -> bool:
    return task.get("task_display_name") not in (None, "", task["task_id"])


def usable_id(name: str) -> bool:
    """Whether a path with this id means this id: ``..`` and ``~`` would mean something else."""
    return bool(name) and name not in (".", "..", "~")


def quoted(part: str) -> str:
    if not usable_id(part) and part != "~":
        raise EngineError(f"{part!r} cannot be an id in Airflow.")
    return quote(part, safe="~")


def _call_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the call that an entry of the audit log records; empty where they are not JSON."""
    try:
        fields = json.loads(entry.get("extra") or "{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _marks(entry: Mapping[str, Any]) -> Iterator[Mark]:
    """What an entry of the audit log says was marked as failed; Airflow 2 has an event for just that."""
    call = _call_of(entry)
    actions = call.get("actions")
    changed: list[Any] = [each for action in actions or () for each in action.get("entities") or ()]
    for change in changed or [{"task_id": entry.get("task_id"), **call}]:
        state = change.get("new_state") or change.get("state")
        if state == "failed" or (entry["event"] in ("failed", "dagrun_failed") and call.get("confirmed") != "false"):
            yield Mark(change.get("task_id"), entry.get("owner") or "unknown", entry["when"])
