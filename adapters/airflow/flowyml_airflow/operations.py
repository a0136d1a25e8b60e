"""Operations on any DAG in Airflow: trigger it, run its tasks again, backfill it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

from flowyml.core.errors import RetryRefusedError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Run
from flowyml.orchestrators.submission import new_run_id
from flowyml_airflow.backfills import backfill
from flowyml_airflow.client import AirflowClient, ConflictError, usable_id
from flowyml_airflow.deployed_dag import Deployed
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.names import RUN_ID_KEY, airflow_run_id, dag_id
from flowyml_airflow.pausing import check_runnable
from flowyml_airflow.reader import AirflowReader
from flowyml_airflow.retrying import to_clear
from flowyml_airflow.step_runs import map_index

__all__ = ["Operations"]


@dataclass(frozen=True)
class Operations:
    """Runs are Airflow's records of them. ``unpause`` says whether the user wants paused DAGs to be unpaused."""

    client: AirflowClient
    deployer: AirflowDeployer
    reader: AirflowReader
    unpause: bool | None = None

    def trigger(self, name: str, run_id: str | None, parameters: Mapping[str, Any]) -> str:
        """Start a run of a pipeline or DAG, unless a run of this id exists; return its job id."""
        found, values = self._shown(name), dict(parameters)
        found.check_parameters(values)
        run_id = run_id or new_run_id(found.facts.get("pipeline", name))
        dag, dag_run_id = found.dag["dag_id"], airflow_run_id(run_id)
        found.check_has_tasks()
        check_runnable(found, run_id, self.unpause)
        if found.dag["is_paused"]:
            self.client.pause(dag, False)
        conf = values if dag_run_id == run_id else {**values, RUN_ID_KEY: run_id}
        with suppress(ConflictError):
            self.client.trigger(dag, dag_run_id, conf, is_dated=found.needs_date)
        return f"{dag}/{dag_run_id}"

    def run_again(self, found: Mapping[str, Any], steps: Sequence[str] | None) -> None:
        """Clear the tasks that failed or were stopped, and those after them; or ``steps`` and all after them."""
        dag, run_id = found["dag_id"], found["dag_run_id"]
        self._check_same_code(found)
        tasks = self.client.task_instances(dag, run_id)
        graph = {task["task_id"]: task["downstream_task_ids"] for task in self.client.tasks(dag)}
        status = self.reader.record(found, whole=False).status
        stopped = status in (ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT)
        marked = to_clear(tasks, graph, self.reader.facts(found), steps=steps, was_stopped=stopped)
        if not marked:
            raise RetryRefusedError(
                f"Run '{dag}/{run_id}' has no task that failed or was stopped: there is nothing to clear."
            )
        of_task: dict[str, set[int]] = {}
        for task, index in marked:
            of_task.setdefault(task, set()).add(index)
        every = {task: {map_index(each) for each in tasks if each["task_id"] == task} for task in of_task}
        wanted = {task: None if indexes == every[task] else indexes for task, indexes in of_task.items()}
        try:
            self.client.clear_tasks(dag, run_id, wanted)
        except ConflictError as error:  # its database refuses the second of two that change the same rows
            raise RetryRefusedError(
                f"Run '{dag}/{run_id}' was changed at the same moment, as by another retry. Look at it by "
                f"`{self.client.command('status', f'{dag}/{run_id}')}`, and retry it again if it still has failed."
            ) from error

    def _check_same_code(self, found: Mapping[str, Any]) -> None:
        """Refuse a run that would continue with other code: a task runs the code that is there when it starts.

        In a DAG bundle with versions, such as one from git, Airflow uses the version of the run.
        """
        code = None if found.get("bundle_version") else self.reader.identified(found).code_digest
        deployed = self.deployer.found(found["dag_id"]) if code else None
        now = deployed.facts.get("code") if deployed else None
        if now not in (None, code):
            job_id = f"{found['dag_id']}/{found['dag_run_id']}"
            raise RetryRefusedError(
                f"The DAG of run {job_id!r} has new code (version {str(code)[:8]}, now {str(now)[:8]}), and a retry "
                f"would run that. Deploy the run's own code again, or start a new run. To run the failed tasks with "
                f"the new code: `{self.client.command('clear', job_id)}`."
            )

    def clear(self, found: Mapping[str, Any], failed_only: bool) -> None:
        """Clear the tasks that failed and those that waited for them, or all tasks."""
        dag, run_id = found["dag_id"], found["dag_run_id"]
        if not self.client.clear(dag, run_id, failed_only):
            raise RetryRefusedError(
                f"Run '{dag}/{run_id}' has no {'failed tasks' if failed_only else 'tasks'} to run again."
                + (" failed_only=False, or --all, runs all of them." if failed_only else "")
            )

    def backfill(
        self, name: str, start: date, end: date, parameters: Mapping[str, Any], **options: Any
    ) -> Sequence[Run]:
        """Create the runs of a range of dates; return the created ones, by date."""
        made = backfill(self._shown(name), start, end, parameters, **options)
        return [self.reader.record(run, whole=False) for run in made]

    def _shown(self, name: str) -> Deployed:
        """Return the DAG of a pipeline, or the DAG of this id, once Airflow shows its file's structure."""
        found = self.dag_of(name)
        return self.deployer.shown(found, found.structure)

    def dag_of(self, pipeline: str) -> Deployed:
        """Return the DAG of a pipeline, or the DAG of this id. Raises ``RunNotFoundError``."""
        for candidate in (dag_id(pipeline), pipeline):
            if usable_id(candidate) and (found := self.deployer.found(candidate)):
                return found
        raise RunNotFoundError(
            f"Airflow at {self.client.transport.connection.url} has no DAG of {pipeline!r}. Deploy it first."
        )
