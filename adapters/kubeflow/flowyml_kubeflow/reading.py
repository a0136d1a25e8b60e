"""Runs and schedules on a Kubeflow Pipelines, over its API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from flowyml.artifacts import is_reference, open_store
from flowyml.core.errors import ArtifactError, EngineError, EngineUnreachableError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.core.tls import Tls
from flowyml.orchestrators.base import Deployment, Health, check_same_run
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml.plan.bundle import Bundle
from flowyml_kubeflow.attempts import RESULT, leveled
from flowyml_kubeflow.client import Client, NotFoundError
from flowyml_kubeflow.connection import SignIn
from flowyml_kubeflow.deploy import Pipelines, arguments, facts, one_at_a_time, origin_of
from flowyml_kubeflow.difference import difference
from flowyml_kubeflow.idempotency import RunsByName
from flowyml_kubeflow.recurring import RecurringRuns
from flowyml_kubeflow.status import status_of, step_status_of
from flowyml_kubeflow.tasks import Pod, Tasks
from flowyml_kubeflow.ui_store import UiStore

__all__ = ["Cluster"]

Json = dict[str, Any]

_FOLLOW = 1.0
_PAGE = 200  # runs, the most that KFP gives at once; source: KFP, list_request_util.go


class Cluster:
    """What ``KubeflowOrchestrator`` does with a URL."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str | None,
        sign_in: SignIn,
        tls: Tls,
        service_account: str | None,
        experiment: str,
        artifacts: str | None,
        form: str | None,
        timeout: float,
        retry_policy: OrchestratorRetryPolicy | None,
    ) -> None:
        self.client = Client(url, namespace=namespace, sign_in=sign_in, tls=tls, timeout=timeout)
        self.artifacts = artifacts
        self.pipelines = Pipelines(self.client, experiment, form, artifacts, service_account)
        self.recurring = RecurringRuns(self.pipelines)
        self._terminated: set[str] = set()
        self._pod_names: dict[str, str] = {}

    # Runs.

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        values = arguments(bundle.plan, parameters)
        with one_at_a_time(run_id):
            return RunsByName(self.pipelines).submitted(
                run_id, bundle.plan.name, bundle.revision,
                make=lambda: self._new_run(bundle, run_id, values),
                check=lambda found: self._check_same(found, bundle, parameters),
            )  # fmt: skip

    def _check_same(self, found: Any, bundle: Bundle, parameters: Mapping[str, Any]) -> None:
        version = self.pipelines.version_of(found)
        code = facts(version.description).get("code")
        run = replace(self._run(found), origin=origin_of(version), code_digest=code)
        check_same_run(run, bundle.plan.name, parameters, origin=bundle.origin, code_digest=bundle.code_digest)

    def deploy(self, bundle: Bundle, *, force: bool) -> Deployment:
        """A new version, which the pipeline's schedule runs from now on."""
        made = self.pipelines.deploy(bundle, force=force)
        self.recurring.move(bundle, force=force)
        return made

    def diff(self, bundle: Bundle) -> str:
        newest = self.pipelines.newest(bundle.plan)
        changes = difference(newest.pipeline_spec if newest else None, self.pipelines.compiled(bundle))
        return f"{changes}{self.recurring.moved(bundle.plan)}" if changes else ""

    def _new_run(self, bundle: Bundle, run_id: str, values: Json) -> Any:
        return self.pipelines.model("V2beta1Run")(
            display_name=run_id, experiment_id=self.pipelines.experiment_id(),
            pipeline_version_reference=self.pipelines.deployed(bundle)[0],
            runtime_config=self.pipelines.model("V2beta1RuntimeConfig")(parameters=values),
            service_account=self.pipelines.service_account,
        )  # fmt: skip

    def get_run(self, job_id: str) -> Run:
        return self._run(self._fetched(job_id), whole=True)

    def _fetched(self, job_id: str) -> Any:
        try:
            uuid.UUID(job_id)
            return self.client.read(lambda api: api._run_api.run_service_get_run(job_id, **self.client.limits))
        except (ValueError, NotFoundError) as error:
            raise RunNotFoundError(f"KFP at {self.client.where} knows no run {job_id!r}.") from error

    def _run(self, run: Any, *, whole: bool = False) -> Run:
        status = self._status(run)
        error = (self._error(run) if whole else _told(run)) if status.is_failed else None
        started = [item.state for item in run.state_history or () if item.state == "RUNNING"]
        return Run(
            job_id=str(run.run_id), run_id=run.display_name, pipeline=self.pipelines.pipeline_of(run),
            status=status, raw_status=run.state or "RUNTIME_STATE_UNSPECIFIED", created_at=_utc(run.created_at),
            started_at=_utc(run.scheduled_at or run.created_at) if started or status.is_terminal else None,
            ended_at=_utc(run.finished_at) if status.is_terminal else None, error=error,
            url=self.client.page(f"runs/details/{run.run_id}"),
            parameters=self._parameters(run), revision=facts(run.description).get("revision"),
        )  # fmt: skip

    def _parameters(self, run: Any) -> Json:
        given: Json = (run.runtime_config.parameters or {}) if run.runtime_config else {}
        return self.pipelines.told_parameters(run, given)

    def _status(self, run: Any) -> ExecutionStatus:
        """KFP says FAILED of a run that it has terminated. The state before that one tells, but it may be missing: it
        is in the history only if KFP's agent saw the workflow in between (source: ``RunStore.TerminateRun``)."""
        if run.state == "CANCELING":
            self._terminated.add(str(run.run_id))
        states = [item.state for item in run.state_history or () if item.state != run.state]
        return status_of(run.state, [*states, "CANCELING"] if run.run_id in self._terminated else states)

    def _error(self, run: Any) -> str | None:
        """In the words of the first step that failed, if its log is still there."""
        tasks = Tasks(run, self.pipelines.spec_of(run))
        failed = [task for task in tasks.steps if tasks.state(task) == "FAILED" and tasks.pods(task)]
        for task in sorted(failed, key=lambda task: str(tasks.ended(task))):
            failure = self._result(run, tasks, task).get("failure")
            said = failure["message"] if failure else "failed; its log is gone"
            return f"step {tasks.steps[task]!r}: {said}"
        return _told(run)

    def runs(self, pipeline: str | None, limit: int) -> list[Run]:
        size = min(limit, _PAGE) if pipeline is None else _PAGE
        every = self.client.pages(
            lambda api: api._run_api.run_service_list_runs, "runs",
            sort_by="created_at desc", page_size=size, **self.pipelines.scope,
        )  # fmt: skip
        wanted = (run for run in every if pipeline is None or self.pipelines.pipeline_of(run) == pipeline)
        return [self._run(run) for run in islice(wanted, limit)]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        run = self._fetched(job_id)
        status, tasks = self._status(run), Tasks(run, self.pipelines.spec_of(run))
        return tuple(self._step_run(run, status, tasks, task) for task in tasks.steps)

    def _step_run(self, run: Any, status: ExecutionStatus, tasks: Tasks, task: str) -> StepRun:
        state, pods = tasks.state(task), tasks.pods(task)
        begun = bool(pods) or state in ("RUNNING", "SUCCEEDED")
        step_status = step_status_of(state if begun else None, status)
        error = None
        if step_status.is_failed:
            failure = self._result(run, tasks, task).get("failure") or {}
            error = failure.get("message") or "failed; its log is gone"
            if failure.get("kind") == "StepTimeoutError":
                step_status = ExecutionStatus.TIMEOUT
            elif (
                not failure and status is ExecutionStatus.CANCELLED
            ):  # it was stopped before it could tell of a failure
                step_status, error = ExecutionStatus.CANCELLED, None
        return StepRun(
            name=tasks.steps[task], status=step_status, raw_status=state or "PENDING",
            attempt=max(len(pods), 1) if begun else 0, started_at=_utc(tasks.started(task)) if begun else None,
            ended_at=_utc(tasks.ended(task)) if begun else None, error=error,
        )  # fmt: skip

    def outputs(self, job_id: str) -> Outputs:
        run = self._fetched(job_id)
        tasks = Tasks(run, self.pipelines.spec_of(run))
        packed: Json = {}
        lost: dict[str, str] = {}
        for task, wanted in tasks.outputs().items():
            found = self._result(run, tasks, task).get("outputs", {})
            packed.update(found)
            if not found:
                lost.update({name: f"Output {name!r}: {_lost(tasks, task)}" for name in wanted})
        stores = open_store(self.artifacts), UiStore(self.client, job_id)
        return read_outputs(job_id, packed, *stores, lost=lost, explain=_unreadable)

    def _result(self, run: Any, tasks: Tasks, task: str) -> Json:
        """What the last attempt of a step that left anything left in its log."""
        for pod in reversed(tasks.pods(task)):
            for line in reversed(self._log(str(run.run_id), pod) or ()):
                if line.startswith(RESULT):
                    result: Json = json.loads(line.removeprefix(RESULT))
                    return result
        return {}

    def _log(self, job_id: str, pod: Pod, *, grows: bool = False) -> list[str] | None:
        """The log of a pod, by the first of its possible names that KFP knows."""
        for name in [self._pod_names[pod.node]] if pod.node in self._pod_names else pod.names:
            if (lines := self.client.log(job_id, name, grows=grows)) is not None:
                self._pod_names[pod.node] = name
                return lines
        return None

    def logs(self, job_id: str, follow: bool) -> Iterator[LogLine]:
        seen: dict[str, int] = {}
        while True:
            run = self._fetched(job_id)
            grows = follow and not self._status(run).is_terminal
            tasks = Tasks(run, self.pipelines.spec_of(run))
            for task, step in tasks.steps.items():
                for pod in tasks.pods(task):
                    told = self._log(job_id, pod, grows=grows) or ()
                    lines = [line for line in told if not line.startswith(RESULT)]
                    fresh = map(leveled, lines[seen.get(pod.node, 0) :])
                    yield from (LogLine(line, step, level) for level, line in fresh)
                    seen[pod.node] = max(seen.get(pod.node, 0), len(lines))
            if not grows:
                return
            time.sleep(_FOLLOW)

    def cancel(self, job_id: str) -> bool:
        """KFP refuses to terminate a run that has ended meanwhile, or is being terminated already."""
        if self._status(self._fetched(job_id)).is_terminal:
            return False
        try:
            self._terminate(job_id)
        except EngineError:
            run = self._fetched(job_id)
            if self._status(run).is_terminal:
                return self._status(run) is ExecutionStatus.CANCELLED
            if run.state != "CANCELING":
                self._terminate(job_id)
        self._terminated.add(job_id)
        return True

    def _terminate(self, job_id: str) -> None:
        self.client.write(lambda api: api._run_api.run_service_terminate_run(job_id, **self.client.limits))

    def retry_run(self, job_id: str) -> None:
        run = self._fetched(job_id)
        if not self._status(run).is_terminal or run.state == "SUCCEEDED":
            raise EngineError(f"Run {job_id!r} is {run.state}; only a run that failed or was stopped can be retried.")
        self.client.write(lambda api: api._run_api.run_service_retry_run(job_id, **self.client.limits))
        self._terminated.discard(job_id)

    def health(self) -> Health:
        try:
            page = self.client.site(self.client.host).get("/apis/v2beta1/healthz")
        except EngineUnreachableError as error:
            return Health(reachable=False, url=self.client.where, detail=str(error))
        if not isinstance(answer := page.json(), Mapping):
            told = f"Not KFP, but something else or a login answered: {page}. Check the URL and the token."
            return Health(reachable=False, url=self.client.where, detail=told)
        facts = {"multi_user": bool(answer.get("multi_user"))}
        return Health(reachable=True, version=answer.get("tag_name"), url=self.client.where, facts=facts)


def _lost(tasks: Tasks, task: str) -> str:
    step = tasks.steps[task]
    if tasks.is_cached(task):
        return f"KFP took step {step!r} from its cache, so no pod ran and no log holds it. Run it with cache=False."
    return f"KFP no longer has the log of step {step!r}, in which it stands."


def _told(run: Any) -> str | None:
    return run.error.message if run.error else None


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.timestamp() <= 0:  # KFP writes 1970 for what has not happened
        return None
    return moment.astimezone(UTC)


def _unreadable(name: str, packed: Any, error: ArtifactError) -> str:
    where = packed["$artifact"]["url"] if is_reference(packed) else "?"
    return (
        f"Output {name!r} stands in KFP's own store at {where}, which cannot be read from here: "
        f"{str(error).rstrip('.')}. Give the URL of KFP's UI, which reads it; or give the steps a store that you can "
        f"read too, kubeflow={{'env': {{'FLOWYML_ARTIFACTS': 's3://…'}}}}, and name it here: artifacts='s3://…'."
    )
