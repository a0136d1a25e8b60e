"""Read Airflow's audit log of a run: the note of its cancellation, and who marked it as failed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.cancel_notes import had_ended, was_cancelled, was_withdrawn
from flowyml_airflow.client import AirflowClient, Mark
from flowyml_airflow.status import DAG_RUN, moment

__all__ = ["AuditLog"]

_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)


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
        return next(filter(was_cancelled, takewhile(lambda each: not was_withdrawn(each), before)), run)

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
