"""The DAGs of an Airflow, FlowyML's and others, with the outcome of their last runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flowyml.orchestrators.workflows import Workflow
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.names import TAG
from flowyml_airflow.status import DAG_RUN, moment

__all__ = ["cron_or_words", "workflows"]

_PRESETS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *", "@yearly": "0 0 1 1 *", "@midnight": "0 0 * * *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_NONE = ("", "None", "Never, external triggers only")


def workflows(client: AirflowClient, last: int) -> list[Workflow]:
    """Return all DAGs that have a file, by id; the newest ``last`` runs of each are counted."""
    found = [_workflow(client, dag, client.runs([dag["dag_id"]], last) if last else []) for dag in client.dags()]
    return sorted(found, key=lambda workflow: workflow.name)


def cron_or_words(dag: Mapping[str, Any]) -> str | None:
    """Return the schedule of a DAG: a cron expression if possible, otherwise Airflow's own words.

    None without a schedule.
    """
    said: Any = dag.get("timetable_summary")
    interval = dag.get("schedule_interval")  # on 2
    if isinstance(interval, dict):
        said = _of_interval(interval) or dag.get("timetable_description")
    if said is None or said in _NONE:
        return None
    return _PRESETS.get(str(said), str(said))


def _of_interval(interval: Mapping[str, Any]) -> Any:
    """Airflow 2's schedule in Airflow 3's words: version 2 does not describe a schedule without a cron expression."""
    parts = {name: value for name, value in interval.items() if name != "__type" and value}
    match interval.get("__type"):
        case "CronExpression":
            return interval.get("value")
        case "TimeDelta":
            return str(timedelta(**parts))
        case "RelativeDelta":
            return f"relativedelta({', '.join(f'{name}={value}' for name, value in parts.items())})"
    return None


def _workflow(client: AirflowClient, dag: Mapping[str, Any], runs: list[dict[str, Any]]) -> Workflow:
    tags = tuple(tag["name"] for tag in dag.get("tags") or ())
    return Workflow(
        name=dag["dag_id"],
        schedule=cron_or_words(dag),
        is_paused=bool(dag.get("is_paused")),
        owners=tuple(dag.get("owners") or ()),
        tags=tags,
        file=str(dag.get("fileloc") or ""),
        url=client.dag_url(dag["dag_id"]),
        is_flowymls=TAG in tags,
        runs=Counter(DAG_RUN[run["state"]] for run in runs if run["state"] in DAG_RUN),
        last_run=moment(runs[0].get("logical_date") or runs[0].get("start_date")) if runs else None,
        next_run=moment(dag.get("next_dagrun_run_after") or dag.get("next_dagrun_create_after")),
    )
