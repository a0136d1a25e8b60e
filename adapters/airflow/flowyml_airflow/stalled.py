"""Explain runs that do not progress, or ran nothing, when Airflow's state does not show it.

If the DAG of a run is paused or has lost its file, Airflow 3 starts none of its tasks, never ends the run, and reports
nothing. If the file is gone, Airflow 2 does the same, or fails a task that it was about to start, and cannot stop such
a run. A run that is dated before the start of its DAG, or after its end, completes without tasks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flowyml_airflow.client import AirflowClient, NotThereError
from flowyml_airflow.deployed_dag import Deployed, has_schedule
from flowyml_airflow.status import moment

__all__ = ["RunWarnings", "is_gone", "is_missing", "why_nothing_ran", "why_stalled"]

logger = logging.getLogger("flowyml.airflow")
YOUNG = timedelta(seconds=60)  # a younger run is not checked, so a short run costs no more calls
_EVERY = 30  # seconds


def is_gone(dag: Mapping[str, Any]) -> bool:
    """Return whether a DAG no longer has a file that defines it: ``is_stale``, on Airflow 2 not ``is_active``."""
    return bool(dag.get("is_stale")) or dag.get("is_active") is False


def is_missing(client: AirflowClient, dag: str) -> bool:
    """Return whether Airflow does not know a DAG id, or its DAG ``is_gone``."""
    try:
        return is_gone(client.dag(dag))
    except NotThereError:
        return True


def why_stalled(client: AirflowClient, dag_run: Mapping[str, Any]) -> str:
    """Say why the tasks of an unfinished run cannot start, and what to do; empty if no reason is known."""
    dag_id, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
    try:
        dag = client.dag(dag_id)
    except NotThereError:
        dag = {"is_stale": True}
    if is_gone(dag):
        cancel = client.command("cancel", f"{dag_id}/{run_id}")
        also = ", or" if client.stops_what_is_gone else "; after that, you can also"
        return (
            f"Airflow has lost DAG {dag_id!r}: its file is gone, or defines other DAGs now. The tasks of run "
            f"{run_id!r} cannot start until the file is back. Deploy the pipeline again{also} cancel the run: {cancel}"
        )
    if dag["is_paused"]:
        is_ours = Deployed(dag, client).is_ours and has_schedule(dag)
        by = f", or by `{client.command('schedule resume', dag_id)}`" if is_ours else ""
        return (
            f"DAG {dag_id!r} is paused, so no more tasks of run {run_id!r} start. Unpause it in Airflow, on the page "
            f"{client.dag_url(dag_id)}{by}."
        )
    return ""


def why_nothing_ran(client: AirflowClient, dag_run: Mapping[str, Any]) -> str:
    """Say why a run without tasks completed, and what to do; empty if no reason is known."""
    date = moment(dag_run.get("logical_date"))
    if date is None:
        return ""
    with suppress(NotThereError):
        if why := Deployed(client.dag(dag_run["dag_id"]), client).why_no_tasks(date):
            return f"Run {dag_run['dag_run_id']!r} completed without running any step. {why}"
    return ""


@dataclass
class RunWarnings:
    """Logs problems that the state of a run does not show, once each. The status stays Airflow's."""

    _next_check: dict[tuple[str, str], float] = field(default_factory=dict)
    _said: dict[tuple[str, str], str] = field(default_factory=dict)
    _ended: set[tuple[str, str]] = field(default_factory=set)

    def warn_if_stalled(self, client: AirflowClient, dag_run: Mapping[str, Any]) -> None:
        """Log why an unfinished run does not progress. Airflow is asked only from time to time."""
        key = (dag_run["dag_id"], dag_run["dag_run_id"])
        began = moment(dag_run.get("queued_at") or dag_run.get("run_after") or dag_run.get("start_date"))
        if (began and datetime.now(UTC) - began < YOUNG) or time.monotonic() < self._next_check.get(key, 0):
            return
        self._next_check[key] = time.monotonic() + _EVERY
        self._say(key, why_stalled(client, dag_run))

    def warn_if_nothing_ran(self, client: AirflowClient, dag_run: Mapping[str, Any]) -> None:
        """Log why a completed run has no tasks. Only a run that a user started, with a date, can have none."""
        key = (dag_run["dag_id"], dag_run["dag_run_id"])
        if dag_run.get("run_type") == "manual" and dag_run.get("logical_date") and key not in self._ended:
            self._ended.add(key)
            tasks = client.task_instances(*key)
            self._say(key, "" if tasks else why_nothing_ran(client, dag_run))

    def _say(self, key: tuple[str, str], why: str) -> None:
        if why and self._said.get(key) != why:
            logger.warning("%s", why)
        self._said[key] = why
