"""Another attempt of a run that has ended: the same flow run, scheduled again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from flowyml.core.errors import RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_prefect.automations import DETACHED_TAG
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.deployer import PrefectDeployer
from flowyml_prefect.pruning import PRUNED
from flowyml_prefect.reader import PrefectReader
from flowyml_prefect.records import FlowRun
from flowyml_prefect.server import one_writer
from flowyml_prefect.status import status_of, step_status_of
from flowyml_prefect.step_runs import AWAITED, RETRIED, RETRY, TASK_RUNS

__all__ = ["schedule_again"]


def schedule_again(
    reader: PrefectReader, deployer: PrefectDeployer, run_id: str, steps: Sequence[str] | None
) -> str | None:
    """Schedule a run again; return the entrypoint of its flow if a process on this machine has to execute it.

    Only one process of this user does this at a time: the second of two requests for a run finds it active. Raises
    ``RetryRefusedError``.
    """
    with one_writer():
        run = reader.client.run(run_id)
        _check_may_run_again(run)
        pooled = DETACHED_TAG not in run.tags
        entrypoint = deployer.entrypoint_of(reader.record(run), run.version or "", pooled=pooled)
        own_end = run.state_type == "FAILED" and run.state_name != "TimedOut"  # else some are never recorded
        awaited = run.labels.get(TASK_RUNS, 0) if own_end else 0
        _end_what_was_at_work(reader.client, run)
        now = datetime.now(UTC).isoformat()
        reader.client.label_run(run.id, {RETRY: json.dumps(steps), RETRIED: now, TASK_RUNS: 0, AWAITED: awaited})
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retried by FlowyML."}
        reader.client.set_state(run.id, state, force=True)
    return None if pooled else entrypoint


def _check_may_run_again(run: FlowRun) -> None:
    if run.labels.get(PRUNED):
        raise RetryRefusedError(f"Run {run.name!r} cannot be retried: `flowyml prune` is removing it.")
    status = status_of(run.state_type, run.state_name)
    if not status.is_terminal:
        raise RetryRefusedError(f"Run {run.name!r} is {status}: it is already being retried.")


def _end_what_was_at_work(client: PrefectClient, run: FlowRun) -> None:
    """End task runs of a process that was killed: they would count as running in the next attempt too."""
    kind, name = ("CRASHED", "Crashed") if run.state_type == "CRASHED" else ("CANCELLED", "Cancelled")
    state = {"type": kind, "name": name, "message": "The process of its run has ended."}
    for task in client.task_runs(run.id):
        if step_status_of(task.state_type, task.state_name) is ExecutionStatus.RUNNING:
            client.set_task_state(task.id, state)
