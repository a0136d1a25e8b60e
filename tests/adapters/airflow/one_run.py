"""A client of an Airflow with one run, for what a real one does not do on demand. A test overrides what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from flowyml.core.following import command_line
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.audit_log import Mark
from flowyml_airflow.client import NotThereError
from flowyml_airflow.log_events import LogEvent

__all__ = ["JOB", "WHEN", "OneRun", "orchestrator_of"]

JOB, WHEN = "d/r", "2026-01-01T00:00:00Z"


class OneRun:
    """The run ``r`` of the DAG ``d``, which is in progress. It has no tasks, nobody touched it, and nothing is kept."""

    can_backfill = stops_what_is_gone = True
    may_run_after_end = False
    command = staticmethod(command_line)

    def __init__(self, **about: Any) -> None:
        self.found: dict[str, Any] = {
            "dag_id": "d", "dag_run_id": "r", "dag_display_name": "d", "state": "running", "note": None,
            "queued_at": WHEN, "run_after": WHEN, "start_date": WHEN, "end_date": None, **about,
        }  # fmt: skip

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        return dict(self.found)

    def dag(self, dag: str) -> dict[str, Any]:
        return {"dag_id": dag}

    def source(self, dag: Any, version: int | None = None) -> str:
        return ""

    def tasks(self, dag: str) -> list[dict[str, Any]]:
        return []

    def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        return []

    def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
        raise NotThereError(404, "gone")

    def log(self, dag: str, run_id: str, task: Any, attempt: int) -> Sequence[LogEvent]:
        return []

    def notes_written(self, dag: str) -> dict[str, list[str]]:
        return {}

    def marked_failed(self, dag: str, run_id: str) -> list[Mark]:
        return []

    def why_ended(self, run: Any, task: Any) -> str:
        return ""

    def run_url(self, dag: str, run_id: str) -> str:
        return "http://airflow"


def orchestrator_of(client: Any) -> AirflowOrchestrator:
    """An orchestrator whose calls go to that client."""
    orchestrator = AirflowOrchestrator("http://127.0.0.1:1")
    orchestrator._client = cast("Any", client)
    return orchestrator
