"""Read Airflow's audit log: who paused a DAG, the note of a run's cancellation, and who marked it as failed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from flowyml.core.errors import AuthenticationError, EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.web import parsed
from flowyml_airflow.outcomes import had_ended, was_cancelled, was_withdrawn
from flowyml_airflow.status import DAG_RUN, moment
from flowyml_airflow.transport import Transport

if TYPE_CHECKING:
    from flowyml_airflow.client import AirflowClient

__all__ = ["AuditLog", "AuditLogCalls", "Mark"]

_PAGE = 100
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)


class Mark(NamedTuple):
    """A task that a user marked as failed; without a ``task``, a run or a group of tasks."""

    task: str | None
    user: str
    time: str


class AuditLogCalls(ABC):
    """The calls of a client that read the audit log, which may have been cleaned, or be closed to the user.

    They read the newest 100 entries.
    """

    api: str
    transport: Transport

    @abstractmethod
    def runs(self, dag_ids: Sequence[str] | None, limit: int | None) -> list[dict[str, Any]]:
        """Return runs of these DAGs, newest first."""

    def _entries(self, dag_id: str, limit: int = _PAGE, **query: Any) -> list[dict[str, Any]] | None:
        """Return entries about a DAG; None if the user may not read them."""
        try:
            log = self.transport.get(f"{self.api}/eventLogs", dag_id=dag_id, limit=limit, **query)
        except AuthenticationError:
            return None
        return list(log["event_logs"])

    def pause_we_set(self, dag_id: str) -> bool | None:
        """Return whether FlowyML paused (True) or unpaused (False) the DAG last; None if the audit log lacks it."""
        calls = map(_call_of, self._entries(dag_id, **self._pauses) or ())
        return next((bool(call.get("is_paused")) for call in calls if self._mark.keys() <= call.keys()), None)

    _mark: Mapping[str, str] = {"flowyml": "yes"}
    """The query of a call of ours that pauses a DAG, which stands in the audit log."""
    _pauses: Mapping[str, Any] = {"event": "patch_dag", "order_by": "-event_log_id"}

    def was_paused_by_hand(self, dag_id: str) -> bool:
        """Return whether a paused DAG was paused after Airflow had created it, by a user or by FlowyML on request.

        A new DAG is paused until it is unpaused for the first time, unless Airflow's settings say otherwise. The audit
        log has every change; without an entry, a DAG that has had runs was unpaused before.
        """
        return bool(self._entries(dag_id, limit=1, **self._any_pause)) or bool(self.runs([dag_id], 1))

    _any_pause: Mapping[str, Any] = {"included_events": ["patch_dag", "cli_dag_pause", "cli_dag_unpause"]}

    def notes_written(self, dag_id: str) -> dict[str, list[str]]:
        """Return the notes on runs of a DAG: by run id, newest first."""
        notes: dict[str, list[str]] = {}
        for entry in self._entries(dag_id, **self._note_events) or ():
            note = _call_of(entry).get("note")
            if isinstance(note, str) and entry.get("run_id"):
                notes.setdefault(entry["run_id"], []).append(note)
        return notes

    _note_events: Mapping[str, Any] = {"event": "patch_dag_run", "order_by": "-event_log_id"}

    def marked_failed(self, dag_id: str, run_id: str) -> list[Mark]:
        """Return who marked a run, or tasks of it, as failed, newest first."""
        entries = self._entries(dag_id, run_id=run_id, **self._mark_events) or ()
        return [mark for entry in entries for mark in _marks(entry)]

    _mark_events: Mapping[str, Any] = {
        "included_events": [
            "patch_dag_run", "patch_task_instance", "bulk_task_instances", "patch_task_group_instances"
        ],
        "order_by": "-event_log_id",
    }  # fmt: skip

    def why_ended(self, run: Mapping[str, Any], task: Mapping[str, Any]) -> str:
        """Return why Airflow's scheduler ended the last attempt of a task; empty if the audit log has no reason.

        It writes one for a task whose worker is gone, and for one that a worker reports as ended before it has run.
        """
        which = {"run_id": run["dag_run_id"], "task_id": task["task_id"], "try_number": task["try_number"]}
        index = task.get("map_index", -1)
        item = {"map_index": index} if index >= 0 else {}  # Airflow 2.11 takes 0 for all of them
        entries = self._entries(run["dag_id"], **which, **item, **self._end_events) or ()
        reasons = (entry.get("extra") for entry in entries if index in (-1, entry.get("map_index")))
        return str(next(reasons, "") or "")

    _end_events: Mapping[str, Any] = {
        "included_events": ["heartbeat timeout", "state mismatch", "stuck in queued tries exceeded"],
        "order_by": "-event_log_id",
    }


class AuditLog:
    """Reads the audit log through a client, once for each run."""

    def __init__(self, client: AirflowClient) -> None:
        self._client = client
        self._notes: dict[str, dict[str, list[str]]] = {}  # by DAG
        self._marks: dict[tuple[str, str], list[Mark]] = {}

    def noted(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the run with FlowyML's note of its cancellation, even if a user has written another note since."""
        succeeded = run["state"] == "success"
        if not (succeeded and run.get("note")) and DAG_RUN.get(run["state"]) is not ExecutionStatus.FAILED:
            return run
        noted = run if was_cancelled(run) else self._noted_before(run)
        went_on = succeeded and was_cancelled(noted) and not self._was_stopped(noted)
        return {**run, "note": None} if went_on else noted

    def _noted_before(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        dag = run["dag_id"]
        if dag not in self._notes:
            self._notes[dag] = self._client.notes_written(dag)
        notes, stands = self._notes[dag].get(run["dag_run_id"], []), run.get("note") or ""
        if stands in notes:  # the log also has notes that Airflow did not write, since it was in trouble
            notes = notes[notes.index(stands) :]
        elif not stands:
            return run
        before = ({**run, "note": note} for note in notes)
        return next(filter(was_cancelled, takewhile(lambda entry: not was_withdrawn(entry), before)), run)

    def was_failed(self, run: Mapping[str, Any]) -> bool:
        """Return whether a run with teardowns was marked as failed, although it ended as a success.

        Airflow lets the teardowns of such a run go on, and then goes by them.
        """
        return bool(self.marked(run)) and self._was_stopped(run)

    def _was_stopped(self, run: Mapping[str, Any]) -> bool:
        """Return whether tasks were stopped with their run; if not, the cancelling process died before."""
        return any(
            task["state"] in ("failed", "skipped") and not had_ended(task["task_id"], task["state"], run)
            for task in self._client.task_instances(run["dag_id"], run["dag_run_id"])
        )

    def marked(self, run: Mapping[str, Any], task: Mapping[str, Any] | None = None) -> str:
        """Say who marked a run, or a task of it, as failed since it was queued; empty if the audit log lacks it."""
        key = run["dag_id"], run["dag_run_id"]
        if key not in self._marks:
            self._marks[key] = self._client.marked_failed(*key)
        if not self._marks[key]:
            return ""
        began = moment(run.get("queued_at") or run["start_date"]) or _EARLIEST
        ended = _LATEST
        if task is not None:  # one that had ended before, or begins after it, ended by itself
            began = max(began, moment(task["start_date"]) or _EARLIEST)
            ended = moment(task["end_date"]) or _LATEST
        for mark in self._marks[key]:
            is_meant = mark.task is None or (task is not None and mark.task == task["task_id"])
            if is_meant and began <= (moment(mark.time) or _EARLIEST) <= ended:
                return f"marked as failed in Airflow by user {mark.user!r}, at {mark.time}"
        return ""


def _call_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the call that an entry of the audit log records; empty if they are not JSON."""
    try:
        fields = parsed((entry.get("extra") or "{}").encode())
    except (ValueError, AttributeError, EngineError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _marks(entry: Mapping[str, Any]) -> Iterator[Mark]:
    """Yield what was marked as failed, by an entry of the audit log. Airflow 2 has an event for just that.

    It writes that event without a call, too, for each task that fails by itself.
    """
    call = _call_of(entry)
    actions = call.get("actions")
    changed: list[Any] = [entity for action in actions or () for entity in action.get("entities") or ()]
    for change in changed or [{"task_id": entry.get("task_id"), **call}]:
        state = change.get("new_state") or change.get("state")
        is_asked_for = entry["event"] in ("failed", "dagrun_failed") and call and call.get("confirmed") != "false"
        if state == "failed" or is_asked_for:
            yield Mark(change.get("task_id"), entry.get("owner") or "unknown", entry["when"])
