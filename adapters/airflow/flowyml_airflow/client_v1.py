"""The differences of Airflow 2.11: ``/api/v1``, basic authentication, logs as text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.core.credentials import Auth
from flowyml.core.errors import ServerTroubleError, UnsupportedFeatureError
from flowyml_airflow.client import AirflowClient, NotThereError, quoted
from flowyml_airflow.log_events import LogEvent, text_log_events

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

__all__ = ["Airflow2Client"]

_ALL = 1_000_000


class Airflow2Client(AirflowClient):
    """The same calls on the older API."""

    api = "/api/v1"
    can_backfill = False
    dates_all_runs = True
    stops_what_is_gone = False
    may_run_after_end = True
    integers: range | None = None

    def _credentials(self) -> Auth:
        return self.transport.auth

    @property
    def _alive(self) -> Mapping[str, Any]:
        return {"only_active": True}

    def dag(self, dag_id: str) -> dict[str, Any]:
        """Return a DAG. Airflow 2 answers 500 for one that it has found but not yet stored."""
        answer: dict[str, Any] = self._unless_missing(dag_id, partial(super().dag, dag_id))
        return answer

    def source(self, dag: Mapping[str, Any], version: int | None = None) -> str:
        """Return the text of the file as it is now: Airflow 2 keeps no older versions.

        Airflow 2 answers 500 if the file was deleted (``DagCodeNotFound``).
        """
        path = f"{self.api}/dagSources/{dag['file_token']}"
        return str(self._unless_missing(dag["dag_id"], partial(self.transport.get, path))["content"])

    def _unless_missing(self, dag_id: str, ask: Callable[[], Any]) -> Any:
        """Return the result of ``ask``. Read an answer 500 as "not found", unless Airflow's database is away.

        Raises:
            NotThereError: Airflow does not know the DAG, or fails twice although it can read the DAG's row.
            ServerTroubleError: Airflow cannot read the row either.
        """
        try:
            return ask()
        except ServerTroubleError:
            self.transport.get(self._dag(dag_id))
        try:
            return ask()
        except ServerTroubleError as error:
            raise NotThereError(str(error)) from error

    _mark: Mapping[str, str] = {"update_mask": "is_paused"}
    _pauses: Mapping[str, Any] = {"event": "api.patch_dag", "order_by": "-when"}
    _any_pause: Mapping[str, Any] = {"included_events": "api.patch_dag,paused,cli_dag_pause,cli_dag_unpause"}
    _rhythm: Sequence[tuple[str, str, float]] = (
        ("scheduler", "dag_dir_list_interval", 300),
        ("scheduler", "min_file_process_interval", 30),
    )

    _changes: Sequence[tuple[str, str, float]] = (
        ("core", "min_serialized_dag_update_interval", 30),
        ("core", "min_serialized_dag_fetch_interval", 10),
        ("scheduler", "min_file_process_interval", 30),
    )

    def _is_file(self, path: str, filename: str) -> bool:
        """Compare file names alone: Airflow 2 reports the path on its machine, where the folder may differ."""
        ours = f"{self.dags_folder.rpartition('://')[2].rstrip('/')}/{filename}"
        return "/".join(ours.split("/")[-2:]) == "/".join(path.split("/")[-2:])

    def _date(self, logical: datetime | None) -> Mapping[str, Any]:
        return {}  # in Airflow 2 each run has one

    _note_events: Mapping[str, Any] = {"event": "api.set_dag_run_note", "order_by": "-when"}
    _mark_events: Mapping[str, Any] = {
        "included_events": "dagrun_failed,failed,api.update_dag_run_state,ui.update_dag_run_state,"
        "api.patch_task_instance,ui.patch_task_instance,api.patch_mapped_task_instance,ui.patch_mapped_task_instance",
        "order_by": "-when",
    }
    _end_events: Mapping[str, Any] = {
        "included_events": "heartbeat timeout,state mismatch,stuck in queued tries exceeded", "order_by": "-when"
    }  # fmt: skip
    _dates = ("execution_date_gte", "execution_date_lte")

    def _task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List the tasks in one page: Airflow 2 does not sort them. Only this call has no limit.

        Empty for a run that Airflow does not know.
        """
        body = {"dag_ids": [dag_id], "dag_run_ids": [run_id], "page_limit": _ALL}
        answer = self.transport.call("POST", f"{self.api}/dags/~/dagRuns/~/taskInstances/list", json=body)
        return list(answer["task_instances"])

    def note(self, dag_id: str, run_id: str, note: str) -> None:
        self.transport.call("PATCH", self._run(dag_id, run_id, "setNote"), json={"note": note})

    def clear_tasks(self, dag_id: str, run_id: str, items_of: Mapping[str, Collection[int] | None]) -> None:
        """Clear whole tasks, or all that failed of a task: Airflow 2 clears no single item.

        The last call queues the run, so that no task starts between the two calls.
        """
        whole = [task for task, indexes in items_of.items() if indexes is None]
        parts = [task for task, indexes in items_of.items() if indexes is not None]
        if whole:
            self._clear(dag_id, run_id, whole, only_failed=False, reset_dag_runs=not parts)
        if parts:
            self._clear(dag_id, run_id, parts, only_failed=True, reset_dag_runs=True)

    _to_read = (
        f"{AirflowClient._to_read} Or set [api] enable_xcom_deserialize_support to True: the API then reads them."
    )

    @property
    def _as_json(self) -> Mapping[str, Any]:
        return {"stringify": False}

    def _events(self, content: Any) -> list[LogEvent]:
        return text_log_events(content)

    def api_client(self) -> ApiClient:
        raise UnsupportedFeatureError(
            f"apache-airflow-client does not support {self.api}, the only API of Airflow {self.version}. Call it with "
            f"any HTTP client, or upgrade to Airflow 3."
        )

    def backfill(self, dag_id: str, start: datetime, end: datetime, conf: Mapping[str, Any], **options: Any) -> int:
        command = ["airflow", "dags", "backfill", dag_id]
        command += ["--start-date", start.isoformat(), "--end-date", end.isoformat()]
        command += ["--conf", json.dumps(dict(conf))] if conf else []
        raise UnsupportedFeatureError(
            f"Airflow {self.version} has no backfills in its API. Run `{shlex.join(command)}` there, or upgrade to "
            f"Airflow 3."
        )

    _health_page = "/api/v1/health"

    def run_url(self, dag_id: str, run_id: str) -> str:
        return f"{self.transport.connection.url}/dags/{quoted(dag_id)}/grid?dag_run_id={quoted(run_id)}"

    def dag_url(self, dag_id: str) -> str:
        return f"{self.transport.connection.url}/dags/{quoted(dag_id)}/grid"
