"""Cancel a run: Airflow marks it as failed, and a note says that it was cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from flowyml.core.errors import EngineError, EngineUnreachableError, ServerTroubleError
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.outcomes import cancelled_note, was_cancelled, withdrawn_note
from flowyml_airflow.stalled import is_missing
from flowyml_airflow.status import DAG_RUN, TASK_INSTANCE

__all__ = ["cancel"]


def cancel(client: AirflowClient, dag_run: Mapping[str, Any]) -> bool:
    """Cancel a run if it has not ended. The note is written first, so that no reader takes the run for a failed one."""
    if not _is_active(dag_run):
        return False
    dag, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
    tasks = client.task_instances(dag, run_id)
    client.note(dag, run_id, cancelled_note(dag_run, tasks))
    try:
        ended = client.fail(dag, run_id)
    except ServerTroubleError as error:
        if dropped := _dropped(client, dag, tasks):
            _withdraw(client, dag, run_id)
            raise EngineError(
                f"Airflow 2 does not stop run '{dag}/{run_id}', since its DAG lacks {dropped} now. Cancel the run once "
                f"it has started, or deploy a pipeline with these steps first."
            ) from error
        raise  # Airflow may still stop the run; if the run completes, the note does not count
    except EngineUnreachableError:
        raise  # as above
    except EngineError:
        _withdraw(client, dag, run_id)
        raise
    if _is_active(ended) and not client.stops_what_is_gone and is_missing(client, dag):
        _withdraw(client, dag, run_id)
        raise EngineError(
            f"The file of DAG {dag!r} is gone, and Airflow 2 cannot stop a run without it. Deploy the pipeline again, "
            f"then cancel the run."
        )
    if not was_cancelled(ended):  # Airflow 2 has no `queued_at`, and the run has started meanwhile
        client.note(dag, run_id, cancelled_note(ended, tasks))
    return True


def _is_active(dag_run: Mapping[str, Any]) -> bool:
    status = DAG_RUN.get(dag_run["state"])
    return status is not None and not status.is_terminal


def _withdraw(client: AirflowClient, dag: str, run_id: str) -> None:
    """Change the note of a run that Airflow refused to stop, unless an earlier try of the same call has ended it."""
    with suppress(EngineError):
        now = client.run(dag, run_id)
        if _is_active(now):
            client.note(dag, run_id, withdrawn_note(now))


def _dropped(client: AirflowClient, dag: str, tasks: Iterable[Mapping[str, Any]]) -> str:
    """Say which tasks of a run are missing in its DAG now: Airflow then answers 500 to a call that stops the run.

    A scheduler removes such tasks from a run that has started, but not from a queued run.
    """
    if client.stops_what_is_gone:
        return ""
    statuses = ((task["task_id"], TASK_INSTANCE.get(task["state"])) for task in tasks)
    unfinished = {task for task, status in statuses if not (status and status.is_terminal)}
    try:
        known = {task["task_id"] for task in client.tasks(dag)}
    except EngineError:
        return ""
    return ", ".join(map(repr, sorted(unfinished - known)))
