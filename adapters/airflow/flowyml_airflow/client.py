"""Every call to Airflow 3, through ``/api/v2``. ``client_v1`` says what is different on Airflow 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flowyml.core.errors import AuthenticationError, EngineError, MissingExtraError
from flowyml_airflow.auth import Credentials, Token
from flowyml_airflow.transport import NotThereError, Transport, refusal

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

__all__ = ["AirflowClient", "LogEvent", "moment", "usable_id"]

_PAGE = 100


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line of the log of an attempt. ``source`` tells who wrote it, ``error`` is that of a failed attempt.

    ``may_grow`` is true where nothing tells whether the line was written to its end.
    """

    message: str
    level: str = "INFO"
    time: datetime | None = None
    source: str = ""
    error: Mapping[str, Any] | None = None
    may_grow: bool = False


class AirflowClient:
    """Plain JSON in and out; ids are quoted here. ``version`` is that of the server."""

    api = "/api/v2"
    can_backfill = True

    def __init__(self, transport: Transport, version: str) -> None:
        self.transport = transport
        self.version = version
        transport.credentials = self._credentials()

    def _credentials(self) -> Credentials:
        return Token(self.transport.connection, self._log_in)

    def _log_in(self) -> str:
        who = self.transport.connection
        try:
            answer = self.transport.call(
                "POST", "/auth/token", json={"username": who.username, "password": who.password}, anonymous=True
            )
        except AuthenticationError as error:
            raise (refusal(who, 401) if "page" not in str(error) else error) from None
        return str(answer["access_token"])

    # DAGs.

    def dag(self, dag_id: str) -> dict[str, Any]:
        """A DAG with its details. Raises ``NotThereError``."""
        found: dict[str, Any] = self.transport.get(self._dag(dag_id, "details"))
        return found

    def dags(self, tag: str) -> Iterator[dict[str, Any]]:
        """All DAGs with a tag that still have a file."""
        offset = 0
        while True:
            page = self.transport.get(f"{self.api}/dags", tags=tag, limit=_PAGE, offset=offset, **self._alive)
            yield from page["dags"]
            offset += _PAGE
            if offset >= page["total_entries"]:
                return

    @property
    def _alive(self) -> Mapping[str, Any]:
        return {"exclude_stale": True}

    def source(self, dag: Mapping[str, Any], version: int | None = None) -> str:
        """The text of a DAG's file, as Airflow has parsed it."""
        content: str = self.transport.get(f"{self.api}/dagSources/{_quoted(dag['dag_id'])}", version_number=version)[
            "content"
        ]
        return content

    def pause(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause. The mark in the query, which Airflow keeps in its audit log, tells that FlowyML did it."""
        self.transport.call("PATCH", self._dag(dag_id), params=self._mark, json={"is_paused": paused})

    @property
    def _mark(self) -> Mapping[str, str]:
        return {"flowyml": "yes"}

    def paused_by_others(self, dag_id: str) -> bool:
        """Whether the last one who paused or unpaused the DAG was not FlowyML."""
        log = self.transport.get(
            f"{self.api}/eventLogs", dag_id=dag_id, event="patch_dag", order_by="-event_log_id", limit=1
        )
        return any('"flowyml"' not in (entry.get("extra") or "") for entry in log["event_logs"])

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """The tasks of a DAG as it is now."""
        found: list[dict[str, Any]] = self.transport.get(self._dag(dag_id, "tasks"))["tasks"]
        return found

    def import_error(self, filename: str) -> dict[str, Any] | None:
        """The import error of a DAG file, if there is one."""
        found = self.transport.get(f"{self.api}/importErrors", limit=_PAGE, order_by="-import_error_id")
        for error in found["import_errors"]:
            if error["filename"] == filename or str(error["filename"]).endswith(f"/{filename}"):
                return dict(error)
        return None

    # Runs.

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run. Raises ``ConflictError`` when the run id is taken, which it is after a repeated call too."""
        body = {"dag_run_id": run_id, "conf": dict(conf), **self._no_date}
        made: dict[str, Any] = self.transport.call("POST", self._dag(dag_id, "dagRuns"), json=body)
        return made

    @property
    def _no_date(self) -> Mapping[str, Any]:
        return {"logical_date": None}

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run. Raises ``NotThereError``."""
        found: dict[str, Any] = self.transport.get(self._run(dag_id, run_id))
        return found

    def runs(self, dag_ids: Sequence[str] | None, limit: int) -> list[dict[str, Any]]:
        """Runs of these DAGs, or of all, newest first."""
        body = {"order_by": self._newest, "page_limit": limit, **({"dag_ids": list(dag_ids)} if dag_ids else {})}
        found: list[dict[str, Any]] = self.transport.call("POST", f"{self.api}/dags/~/dagRuns/list", json=body)[
            "dag_runs"
        ]
        return found

    _newest = "-run_after"

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run. Raises ``NotThereError``."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.transport.get(
                self._run(dag_id, run_id, "taskInstances"), limit=_PAGE, offset=len(found), **self._stable
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    @property
    def _stable(self) -> Mapping[str, Any]:
        return {"order_by": "id"}

    def note(self, dag_id: str, run_id: str, note: str) -> None:
        """Write a note on a run."""
        self.transport.call("PATCH", self._run(dag_id, run_id), json={"note": note})

    def fail(self, dag_id: str, run_id: str) -> None:
        """Mark a run as failed, which ends its tasks."""
        self.transport.call("PATCH", self._run(dag_id, run_id), json={"state": "failed"})

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """A value that a task left. Raises ``NotThereError``."""
        path = self._run(dag_id, run_id, "taskInstances", task_id, "xcomEntries", key)
        return self.transport.get(path, **self._as_json)["value"]

    @property
    def _as_json(self) -> Mapping[str, Any]:
        return {}

    def returned(self, dag_id: str, run_id: str) -> list[str]:
        """The tasks of a run that left a return value."""
        found = self.transport.get(self._run(dag_id, run_id, "taskInstances", "~", "xcomEntries"), limit=_PAGE)
        return [entry["task_id"] for entry in found["xcom_entries"] if entry["key"] == "return_value"]

    def log(self, dag_id: str, run_id: str, task: Mapping[str, Any], attempt: int) -> list[LogEvent]:
        """What an attempt wrote so far."""
        path = self._run(dag_id, run_id, "taskInstances", task["task_id"], "logs", str(attempt))
        try:
            answer = self.transport.get(path, full_content=True, map_index=task.get("map_index", -1))
        except NotThereError:
            return []
        return [_event(item) for item in answer["content"] or () if not _is_torn(item)]

    def api_client(self) -> ApiClient:
        """Airflow's own client with a new token. Raises ``MissingExtraError``."""
        try:
            from airflow_client.client import ApiClient, Configuration  # takes seconds to import
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{error.name!r} is not installed: pip install 'flowyml[airflow]'") from error
        who, verify = self.transport.connection, self.transport.verify
        token = self._log_in() if who.username and who.password else who.token
        authorities = verify if isinstance(verify, str) else None
        return ApiClient(Configuration(who.url, access_token=token, ssl_ca_cert=authorities, verify_ssl=bool(verify)))

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
        return f"{self.transport.connection.url}/dags/{_quoted(dag_id)}/runs/{_quoted(run_id)}"

    def dag_url(self, dag_id: str) -> str:
        """The page of a DAG in the UI."""
        return f"{self.transport.connection.url}/dags/{_quoted(dag_id)}"

    def _dag(self, dag_id: str, *parts: str) -> str:
        return "/".join((f"{self.api}/dags", *map(_quoted, (dag_id, *parts))))

    def _run(self, dag_id: str, run_id: str, *parts: str) -> str:
        return self._dag(dag_id, "dagRuns", run_id, *parts)


def moment(text: str | None) -> datetime | None:
    """A time as Airflow writes it."""
    return datetime.fromisoformat(text) if text else None


def usable_id(name: str) -> bool:
    """Whether a path with this id means this id: ``..`` and ``~`` would mean something else."""
    return bool(name) and name not in (".", "..", "~")


def _quoted(part: str) -> str:
    if not usable_id(part) and part != "~":
        raise EngineError(f"{part!r} is no id of Airflow's.")
    return quote(part, safe="~")


def _is_torn(item: Any) -> bool:
    """Whether a worker is still writing this line: what is no whole JSON, Airflow hands on as if it were text.

    Source: Airflow, ``file_task_handler._log_stream_to_parsed_log_stream``.
    """
    return isinstance(item, dict) and not item.get("timestamp") and str(item.get("event", "")).startswith("{")


def _event(item: Any) -> LogEvent:
    if not isinstance(item, dict):
        return LogEvent(str(item))
    source = ":".join(str(item[part]) for part in ("logger", "filename") if item.get(part))
    detail = item.get("error_detail") or [None]
    return LogEvent(
        str(item.get("event", "")),
        str(item.get("level") or "info").upper(),
        moment(item.get("timestamp")),
        source,
        detail[0],
    )
