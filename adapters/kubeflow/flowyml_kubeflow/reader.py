"""Read runs from KFP as FlowyML's records.

``RunDetails`` has the steps of a run, their errors, logs and outputs; ``tasks`` finds the steps and their pods in the
answers of KFP's API.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice, pairwise
from operator import attrgetter
from typing import Any

from flowyml.artifacts import is_reference, open_store
from flowyml.core.errors import ArtifactError, EngineError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.orchestrators.http import NotFoundError
from flowyml.orchestrators.log_following import Poll, log_lines
from flowyml.orchestrators.reader import RunReader
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml_kubeflow.client import Client, equals
from flowyml_kubeflow.deployer import Pipelines, facts, origin_of
from flowyml_kubeflow.run_details import PodLogs, RunDetails, error_of_workflow, message_of, utc
from flowyml_kubeflow.status import status_of
from flowyml_kubeflow.tasks import Tasks
from flowyml_kubeflow.ui_store import UiStore
from flowyml_kubeflow.workflow import Workflow

__all__ = ["KubeflowReader"]

_PAGE = 200  # runs, KFP's limit for a page; source: KFP, list_request_util.go


class KubeflowReader(RunReader):
    """Reads the runs of a KFP. ``artifacts`` is the store that the steps write to, if it is not KFP's own."""

    def __init__(self, pipelines: Pipelines, artifacts: str | None) -> None:
        self.pipelines = pipelines
        self.client: Client = pipelines.client
        self.artifacts = artifacts
        self._stopped: dict[str, datetime | None] = {}
        """Runs that were stopped here, or seen being stopped, with the time when KFP began them: see ``status``."""
        self.pod_logs = PodLogs(self.client)

    def get_run(self, job_id: str) -> Run:
        return self._run(self.fetch(job_id), whole=True)

    def fetch(self, job_id: str) -> Any:
        """Return the official client's model of a run. Raises ``RunNotFoundError``."""
        missing = RunNotFoundError(f"KFP at {self.client.connection.where} has no run {job_id!r}.")
        try:
            uuid.UUID(job_id)
        except ValueError:
            raise missing from None
        try:
            run = self.client.call("run_service_get_run", job_id)
        except NotFoundError as error:
            raise missing from error
        if run.run_id != job_id:
            raise EngineError(f"KFP at {self.client.connection.where} sent run {run.run_id!r} for run {job_id!r}.")
        return run

    def named(self, run_id: str) -> list[Any]:
        """Return all runs of that name as the official client's models, oldest first."""
        listed = self.client.pages(
            "run_service_list_runs", "runs", filter=equals(display_name=run_id), **self.client.connection.scope
        )
        runs = [run for run in listed if run.display_name == run_id]
        return sorted(runs, key=lambda run: (run.created_at, run.run_id))

    def record(self, run: Any) -> Run:
        """Return the record of a run, with the origin of its code."""
        version = self.pipelines.version_of(run)
        code = facts(version.description).get("code") if version else None
        return replace(self._run(run), origin=origin_of(version), code_digest=code)

    def _run(self, run: Any, *, whole: bool = False) -> Run:
        status = self.status(run)
        error = WAS_CANCELLED if status is ExecutionStatus.CANCELLED else None
        url = self.client.connection.page(f"runs/details/{run.run_id}")
        if status.is_failed:
            error = (self._error(run) or f"KFP gives no reason. See {url}") if whole else message_of(run)
        started = [item.update_time for item in run.state_history or () if item.state == "RUNNING"]
        return Run(
            job_id=str(run.run_id), run_id=run.display_name, pipeline=self.pipelines.pipeline_of(run),
            status=status, raw_status=run.state or "RUNTIME_STATE_UNSPECIFIED", created_at=utc(run.created_at),
            started_at=utc(started[0] if started else run.created_at) if started or status.is_terminal else None,
            ended_at=utc(run.finished_at) if status.is_terminal else None, error=error,
            url=url, parameters=self.pipelines.parameters_of(run), revision=facts(run.description).get("revision"),
        )  # fmt: skip

    def status(self, run: Any) -> ExecutionStatus:
        """Return the status of a run. For a run that it has terminated, KFP reports FAILED.

        The state before that one shows it, but may be missing: it is in the history only if KFP's agent saw the
        workflow in between (source: ``RunStore.TerminateRun``).
        """
        if run.state == "CANCELING":
            self.note_stopped(run)
        states = [item.state for item in run.state_history or () if item.state != run.state]
        is_stopped = run.run_id in self._stopped and self._stopped[run.run_id] == _begun(run)
        return status_of(run.state, [*states, "CANCELING"] if is_stopped else states)

    def note_stopped(self, run: Any) -> None:
        """Note that the run is being stopped; that counts for every retry until KFP begins the run again."""
        self._stopped[str(run.run_id)] = _begun(run)

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return Runs.listed(self._newest(pipeline, limit), self._run, attrgetter("run_id"))

    def scheduled_runs(self, pipeline: str, limit: int) -> dict[datetime, Run]:
        """Return the newest runs of recurring runs, by their scheduled times; also if the schedule is gone."""
        runs = self._newest(pipeline, limit, of_schedules=True)
        return {time: self._run(run) for run in runs if (time := utc(run.scheduled_at))}

    def _newest(self, pipeline: str | None, limit: int, *, of_schedules: bool = False) -> Iterator[Any]:
        size = min(limit, _PAGE) if pipeline is None else _PAGE
        every = self.client.pages(
            "run_service_list_runs", "runs", sort_by="created_at desc", page_size=size, **self.client.connection.scope
        )  # fmt: skip
        some = (run for run in every if run.recurring_run_id or not of_schedules)
        runs = (run for run in some if pipeline is None or self.pipelines.pipeline_of(run) == pipeline)
        return islice(runs, limit)

    def failed_at_its_end(self, job_id: str) -> bool:
        """Return whether the last task of a run with control flow failed, since a step failed in a successful pod."""
        return self._details(self.fetch(job_id)).failed_at_its_end

    def _details(self, run: Any) -> RunDetails:
        """Return the details of a run.

        Raises ``NotFoundError`` if the version of its pipeline was deleted, ``EngineError`` if it has another form.
        """
        version, run_of_v1 = self.pipelines.spec_of(run), self.client.run_of_v1(str(run.run_id))
        try:
            tasks = Tasks(run, version, Workflow.of(run_of_v1) if run_of_v1 else None)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise EngineError(
                f"The pipeline of run {run.run_id!r} at KFP has a form that FlowyML does not write: {error!r:.200}. "
                f"Another program, or a newer FlowyML, compiled it."
            ) from error
        return RunDetails(run, self.status(run), tasks, self.pod_logs)

    def _error(self, run: Any) -> str | None:
        try:
            return self._details(run).error()
        except NotFoundError:
            job_id = str(run.run_id)
            run_of_v1 = self.client.run_of_v1(job_id)
            workflow = Workflow.of(run_of_v1) if run_of_v1 else None
            return error_of_workflow(job_id, workflow, self.pod_logs) or message_of(run)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        """Return the steps; empty for a run whose version of the pipeline was deleted, which alone has its steps."""
        run = self.fetch(job_id)
        try:
            return tuple(self._details(run).step_runs())
        except NotFoundError:
            return ()

    def outputs(self, job_id: str) -> Outputs:
        packed, lost = self._details(self.fetch(job_id)).outputs()
        stores = open_store(self.artifacts), UiStore(self.client, job_id)
        return read_outputs(job_id, packed, *stores, lost=lost, explain=_unreadable)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        """Return the artifacts of steps in the pods' logs, as long as KFP has the logs."""
        return self._details(self.fetch(job_id)).artifacts()

    def why_no_lines(self, job_id: str) -> str:
        """Say that the logs are gone, of a run that has ended and of whose pods KFP has none."""
        details = self._details(self.fetch(job_id))
        if not details.status.is_terminal or not details.has_lost_logs():
            return ""
        return (
            f"The logs of this run are gone: KFP at {self.client.connection.where} has none of its pods' logs. KFP "
            "deletes pods an hour to a day after the end of a run. By the URL of KFP's UI, logs that KFP stored stay "
            "readable."
        )

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Return the lines of a run, pod by pod; with ``follow`` until it has ended."""
        seen: dict[str, int] = {}

        def poll() -> Poll:
            details = self._details(self.fetch(job_id))
            grows = follow and not details.status.is_terminal
            yield from details.new_lines(seen, grows=grows)
            return not grows

        return log_lines(poll, follow=follow)


def _begun(run: Any) -> datetime | None:
    """Return the time when KFP began a run or, after a retry, began it again.

    In a retry some releases begin its history again, and others continue it after FAILED. Source: KFP,
    ``ResourceManager.RetryRun``.
    """
    history = list(run.state_history or ())
    begins = history[:1]
    begins += [item for before, item in pairwise(history) if before.state == "FAILED" and item.state != "FAILED"]
    times: list[datetime | None] = [item.update_time for item in begins]
    return times[-1] if times else None


def _unreadable(name: str, packed: Any, error: ArtifactError) -> str:
    where = packed["$artifact"]["url"] if is_reference(packed) else "?"
    return (
        f"Output {name!r} is in KFP's own store, at {where}. Set url=… to KFP's UI, which can read it; or let the "
        f"steps write to a store that you can read too, kubeflow={{'env': {{'FLOWYML_ARTIFACTS': 's3://…'}}}}, and "
        f"pass that store here: artifacts='s3://…'. (It was not read: {error})"
    )
