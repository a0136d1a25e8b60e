"""Runs and schedules on a Kubeflow Pipelines, over its API."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from flowyml.artifacts import is_reference, open_store, unpack
from flowyml.core.errors import (
    ArtifactError,
    EngineError,
    EngineUnreachableError,
    RunNotFoundError,
    ScheduleNotFoundError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.home import home
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.base import Deployment, Health
from flowyml.orchestrators.probe import Site
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow import names, spec
from flowyml_kubeflow.attempts import RESULT
from flowyml_kubeflow.client import AmbiguousError, Client, NotFoundError, equals
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.options import pipeline_options
from flowyml_kubeflow.schedule import kfp_cron, kfp_interval
from flowyml_kubeflow.status import status_of, step_status_of
from flowyml_kubeflow.values import argument

__all__ = ["Cluster"]

Json = dict[str, Any]

_ABOUT = "FlowyML: "
_LOOKS = (0.1, 0.5, 1.0, 2.0)  # seconds between looks for what a lost answer may have made
_FOLLOW = 1.0
_PLANNED = 5


class Cluster:
    """What ``KubeflowOrchestrator`` does with a URL."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str | None,
        token: str | None,
        credentials: Any,
        experiment: str,
        artifacts: str | None,
        form: str | None,
        timeout: float,
        retry_policy: OrchestratorRetryPolicy | None,
    ) -> None:
        self.client = Client(url, namespace=namespace, token=token, credentials=credentials, timeout=timeout)
        self.namespace = namespace
        self.experiment = experiment
        self.artifacts = artifacts
        self.form = form
        self._experiments: dict[str, str] = {}
        self._specs: dict[tuple[str, str], Json] = {}

    # Runs.

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any]) -> str:
        """Create the run unless there is one of that name; a lost answer is looked for before anything is repeated."""
        arguments = _arguments(bundle.plan, parameters)
        with _one_at_a_time(run_id):
            if found := self._named(run_id):
                return found
            version = self._deployed(bundle)[0]
            body = self._model("V2beta1Run")(
                display_name=run_id, experiment_id=self._experiment_id(),
                description=_about({"pipeline": bundle.plan.name}), pipeline_version_reference=version,
                runtime_config=self._model("V2beta1RuntimeConfig")(parameters=arguments),
            )  # fmt: skip
            created = self._created(run_id, body)
            return self._only(run_id, created)

    def _created(self, run_id: str, body: Any) -> str:
        for pause in (*_LOOKS, None):
            try:
                made = self.client.write(lambda api: api._run_api.run_service_create_run(body, **self.client.limits))
                return str(made.run_id)
            except AmbiguousError:
                if pause is None:
                    raise
                time.sleep(pause)
                if found := self._named(run_id):
                    return found
        raise AssertionError

    def _only(self, run_id: str, created: str) -> str:
        """Two machines may have created it in the same moment: both find both, and keep the older."""
        runs = self._all_named(run_id)
        kept = str(runs[0].run_id) if runs else created
        if kept != created:
            with contextlib.suppress(EngineError):
                self.client.write(lambda api: api._run_api.run_service_terminate_run(created, **self.client.limits))
                self.client.write(lambda api: api._run_api.run_service_delete_run(created, **self.client.limits))
        return kept

    def _named(self, run_id: str) -> str | None:
        found = self._all_named(run_id)
        return str(found[0].run_id) if found else None

    def _all_named(self, run_id: str) -> list[Any]:
        runs = self.client.pages(
            lambda api: api._run_api.run_service_list_runs, "runs", filter=equals(display_name=run_id), **self._scope()
        )
        return sorted((run for run in runs if run.display_name == run_id), key=lambda run: (run.created_at, run.run_id))

    def get_run(self, job_id: str) -> Run:
        return self._run(self._fetched(job_id), whole=True)

    def _fetched(self, job_id: str) -> Any:
        try:
            uuid.UUID(job_id)
            return self.client.read(lambda api: api._run_api.run_service_get_run(job_id, **self.client.limits))
        except (ValueError, NotFoundError) as error:
            raise RunNotFoundError(f"KFP at {self.client.url} knows no run {job_id!r}.") from error

    def _run(self, run: Any, *, whole: bool = False) -> Run:
        status = status_of(run.state)
        error = (self._error(run) if whole else _told(run)) if status.is_failed else None
        started = [item.state for item in run.state_history or () if item.state == "RUNNING"]
        return Run(
            job_id=str(run.run_id), run_id=run.display_name, pipeline=_read(run.description).get("pipeline", ""),
            status=status, raw_status=run.state or "RUNTIME_STATE_UNSPECIFIED", created_at=_utc(run.created_at),
            started_at=_utc(run.scheduled_at or run.created_at) if started or status.is_terminal else None,
            ended_at=_utc(run.finished_at) if status.is_terminal else None, error=error,
            url=f"{self.client.host}/#/runs/details/{run.run_id}",
            parameters=(run.runtime_config.parameters or {}) if run.runtime_config else {},
        )  # fmt: skip

    def _error(self, run: Any) -> str | None:
        """In the words of the first step that failed, if its log is still there."""
        tasks = _Tasks(run, self._spec(run))
        failed = [task for task in tasks.steps if tasks.state(task) == "FAILED" and tasks.pods(task)]
        for task in sorted(failed, key=lambda task: str(tasks.ended(task))):
            failure = self._result(run, tasks, task).get("failure")
            said = failure["message"] if failure else "failed; its log is gone"
            return f"step {tasks.steps[task]!r}: {said}"
        return _told(run)

    def runs(self, pipeline: str | None, limit: int) -> list[Run]:
        if pipeline is None:
            answer = self.client.read(
                lambda api: api._run_api.run_service_list_runs(
                    page_size=limit, sort_by="created_at desc", **self._scope(), **self.client.limits
                )
            )
            return [self._run(run) for run in answer.runs or ()]
        found: list[Run] = []
        for run in self.client.pages(
            lambda api: api._run_api.run_service_list_runs, "runs", sort_by="created_at desc", **self._scope()
        ):
            if _read(run.description).get("pipeline") == pipeline:
                found.append(self._run(run))
            if len(found) >= limit:
                break
        return found

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        run = self._fetched(job_id)
        status, tasks = status_of(run.state), _Tasks(run, self._spec(run))
        return tuple(self._step_run(run, status, tasks, task) for task in tasks.steps)

    def _step_run(self, run: Any, status: ExecutionStatus, tasks: _Tasks, task: str) -> StepRun:
        state, pods = tasks.state(task), tasks.pods(task)
        begun = bool(pods) or state in ("RUNNING", "SUCCEEDED")
        step_status = step_status_of(state if begun else None, status)
        error = None
        if step_status.is_failed:
            failure = self._result(run, tasks, task).get("failure") or {}
            error = failure.get("message") or "failed; its log is gone"
            if failure.get("kind") == "StepTimeoutError":
                step_status = ExecutionStatus.TIMEOUT
        return StepRun(
            name=tasks.steps[task], status=step_status, raw_status=state or "PENDING",
            attempt=max(len(pods), 1) if begun else 0, started_at=_utc(tasks.started(task)) if begun else None,
            ended_at=_utc(tasks.ended(task)) if begun else None, error=error,
        )  # fmt: skip

    def outputs(self, job_id: str) -> Outputs:
        run = self._fetched(job_id)
        tasks = _Tasks(run, self._spec(run))
        values: Json = {}
        missing: dict[str, str] = {}
        for task, wanted in tasks.outputs().items():
            found = self._result(run, tasks, task).get("outputs", {})
            for name, packed in found.items():
                self._keep(name, packed, values, missing)
            if not found:
                lost = f"KFP no longer has the log of step {tasks.steps[task]!r}, in which it stands."
                missing.update({port: f"Output {port!r}: {lost}" for port in wanted})
        return Outputs(values, not_kept=missing)

    def _keep(self, name: str, packed: Any, values: Json, missing: dict[str, str]) -> None:
        try:
            values[name] = unpack(packed, open_store(self.artifacts))
        except ArtifactError as error:
            where = packed["$artifact"]["url"] if is_reference(packed) else "?"
            missing[name] = (
                f"Output {name!r} stands in KFP's own store at {where}, which cannot be read from here: {error}. "
                f"Give the steps a store that you can read too: kubeflow={{'env': {{'FLOWYML_ARTIFACTS': 's3://…'}}}}."
            )

    def _result(self, run: Any, tasks: _Tasks, task: str) -> Json:
        """What the last attempt of a step left in its log."""
        for pod in reversed(tasks.pods(task)):
            for line in reversed(self.client.log(str(run.run_id), pod) or ()):
                if line.startswith(RESULT):
                    result: Json = json.loads(line.removeprefix(RESULT))
                    return result
        return {}

    def logs(self, job_id: str, follow: bool) -> Iterator[LogLine]:
        seen: dict[str, int] = {}
        while True:
            run = self._fetched(job_id)
            tasks = _Tasks(run, self._spec(run))
            for task, step in tasks.steps.items():
                for pod in tasks.pods(task):
                    lines = [line for line in self.client.log(job_id, pod) or () if not line.startswith(RESULT)]
                    yield from (LogLine(line, step) for line in lines[seen.get(pod, 0) :])
                    seen[pod] = max(seen.get(pod, 0), len(lines))
            if not follow or status_of(run.state).is_terminal:
                return
            time.sleep(_FOLLOW)

    def cancel(self, job_id: str) -> bool:
        if status_of(self._fetched(job_id).state).is_terminal:
            return False
        try:
            self.client.write(lambda api: api._run_api.run_service_terminate_run(job_id, **self.client.limits))
        except EngineError:
            return self._was_stopped(job_id)
        return True

    def _was_stopped(self, job_id: str) -> bool:
        """After an error: it had ended by itself, or it is being stopped all the same; else the error stands."""
        run = self._fetched(job_id)
        if status_of(run.state).is_terminal:
            return bool(run.state == "CANCELED")
        self.client.write(lambda api: api._run_api.run_service_terminate_run(job_id, **self.client.limits))
        return True

    def retry_run(self, job_id: str) -> None:
        run = self._fetched(job_id)
        if not status_of(run.state).is_terminal or run.state == "SUCCEEDED":
            raise EngineError(f"Run {job_id!r} is {run.state}; only a run that failed or was stopped can be retried.")
        self.client.write(lambda api: api._run_api.run_service_retry_run(job_id, **self.client.limits))

    def health(self) -> Health:
        try:
            answer = Site(self.client.host).get("/apis/v2beta1/healthz").json()
        except EngineUnreachableError as error:
            return Health(reachable=False, url=self.client.url, detail=str(error))
        if not isinstance(answer, Mapping):
            return Health(reachable=False, url=self.client.url, detail="There is something else at this address.")
        facts = {"multi_user": bool(answer.get("multi_user"))}
        return Health(reachable=True, version=answer.get("tag_name"), url=self.client.url, facts=facts)

    # Pipelines.

    def deploy(self, bundle: Bundle) -> Deployment:
        version, digest, changed = self._deployed(bundle)
        url = f"{self.client.host}/#/pipelines/details/{version.pipeline_id}/version/{version.pipeline_version_id}"
        return Deployment(name=bundle.plan.name, digest=digest, changed=changed, url=url)

    def _deployed(self, bundle: Bundle) -> tuple[Any, str, bool]:
        """The version of the pipeline that is these very bytes, uploaded when KFP has it not."""
        store = pipeline_options(bundle.plan).get("bundle_store")
        compiled = compile_pipeline(bundle, form=self.form)
        spec.validate(compiled)
        if warning := spec.size_warning(compiled):
            warnings.warn(warning, UserWarning, stacklevel=6)
        if store and compiled.bundle_url:
            _put(compiled.bundle, compiled.bundle_url)
        text = spec.text(compiled)
        digest = hashlib.sha256(text.encode()).hexdigest()
        pipeline = self._pipeline_id(bundle.plan)
        found = self._version(pipeline, digest[:16])
        made = found or self._uploaded(pipeline, digest[:16], text)
        return self._reference(pipeline, made), digest, found is None

    def _reference(self, pipeline: str, version: str) -> Any:
        return self._model("V2beta1PipelineVersionReference")(pipeline_id=pipeline, pipeline_version_id=version)

    def _pipeline_id(self, plan: Plan) -> str:
        name = names.pipeline(plan.name)
        if found := self._pipeline_named(name):
            return found
        body = self._model("V2beta1Pipeline")(
            name=name, display_name=name, description=_about({"pipeline": plan.name}), namespace=self.namespace
        )
        try:
            made = self.client.write(lambda api: api._pipelines_api.pipeline_service_create_pipeline(body, **self.client.limits))
            return str(made.pipeline_id)
        except EngineError:
            if found := self._pipeline_named(name):  # another process was faster, or the answer was lost
                return found
            raise

    def _pipeline_named(self, name: str) -> str | None:
        scope = {"namespace": self.namespace} if self.namespace else {}
        try:
            found = self.client.read(
                lambda api: api._pipelines_api.pipeline_service_get_pipeline_by_name(name, **scope, **self.client.limits)
            )
        except NotFoundError:
            return None
        return str(found.pipeline_id)

    def _version(self, pipeline: str, name: str) -> str | None:
        answer = self.client.read(
            lambda api: api._pipelines_api.pipeline_service_list_pipeline_versions(
                pipeline, page_size=10, filter=equals(name=name), **self.client.limits
            )
        )
        return next((str(item.pipeline_version_id) for item in answer.pipeline_versions or () if item.name == name), None)

    def _uploaded(self, pipeline: str, name: str, text: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(text, "utf-8")
            try:
                made = self.client.write(
                    lambda api: api._upload_api.upload_pipeline_version(
                        str(path), name=name, pipelineid=pipeline, **self.client.limits
                    )
                )
                return str(made.pipeline_version_id)
            except EngineError:
                if found := self._version(pipeline, name):
                    return found
                raise

    def _spec(self, run: Any) -> Json:
        """The pipeline of a run, as KFP keeps it."""
        if run.pipeline_spec:
            return _pipeline_spec(run.pipeline_spec)
        reference = run.pipeline_version_reference
        key = (reference.pipeline_id, reference.pipeline_version_id)
        if key not in self._specs:
            version = self.client.read(
                lambda api: api._pipelines_api.pipeline_service_get_pipeline_version(*key, **self.client.limits)
            )
            self._specs[key] = _pipeline_spec(version.pipeline_spec)
        return self._specs[key]

    def _experiment_id(self) -> str:
        if self.experiment not in self._experiments:
            self._experiments[self.experiment] = self._experiment_named() or self._new_experiment()
        return self._experiments[self.experiment]

    def _experiment_named(self) -> str | None:
        scope = {"namespace": self.namespace} if self.namespace else {}
        found = self.client.pages(
            lambda api: api._experiment_api.experiment_service_list_experiments, "experiments",
            filter=equals(display_name=self.experiment), **scope,
        )  # fmt: skip
        return next((str(item.experiment_id) for item in found if item.display_name == self.experiment), None)

    def _new_experiment(self) -> str:
        body = self._model("V2beta1Experiment")(display_name=self.experiment, namespace=self.namespace)
        try:
            made = self.client.write(
                lambda api: api._experiment_api.experiment_service_create_experiment(body, **self.client.limits)
            )
            return str(made.experiment_id)
        except EngineError:
            if found := self._experiment_named():
                return found
            raise

    # Schedules.

    def create_schedule(self, bundle: Bundle, schedule: Schedule) -> ScheduleInfo:
        """KFP cannot change a recurring run. So a new one is made, asleep, the old one deleted, the new one woken."""
        plan = bundle.plan
        body = self._recurring_run(plan, schedule, self._deployed(bundle)[0])
        name = names.pipeline(plan.name)
        with _one_at_a_time(f"schedule {name}"):
            older = self._recurring(name)
            made = self._new_recurring(body, {item.recurring_run_id for item in older})
            for item in older:
                self._delete(item.recurring_run_id)
            self._switch(made, on=True)
        return self._info(self._one_recurring(name))

    def _new_recurring(self, body: Any, known: set[str]) -> str:
        try:
            made = self.client.write(
                lambda api: api._recurring_run_api.recurring_run_service_create_recurring_run(body, **self.client.limits)
            )
            return str(made.recurring_run_id)
        except AmbiguousError:
            fresh = [item.recurring_run_id for item in self._recurring(body.display_name)]
            if new := [item for item in fresh if item not in known]:
                return str(new[0])
            raise

    def _recurring_run(self, plan: Plan, schedule: Schedule, version: Any) -> Any:
        kind = "V2beta1CronSchedule" if schedule.cron else "V2beta1PeriodicSchedule"
        rule = {"cron": kfp_cron(schedule)} if schedule.cron else {"interval_second": str(kfp_interval(schedule))}
        when = self._model(kind)(start_time=schedule.start, end_time=schedule.end, **rule)
        trigger = {"cron_schedule" if schedule.cron else "periodic_schedule": when}
        return self._model("V2beta1RecurringRun")(
            display_name=names.pipeline(plan.name), experiment_id=self._experiment_id(), mode="DISABLE",
            description=_about({"pipeline": plan.name, "schedule": schedule.to_dict()}), pipeline_version_reference=version,
            runtime_config=self._model("V2beta1RuntimeConfig")(parameters=_arguments(plan, schedule.parameters)),
            trigger=self._model("V2beta1Trigger")(**trigger), no_catchup=not schedule.catch_up,
            max_concurrency=str(pipeline_options(plan).get("max_concurrency", 1)),
        )  # fmt: skip

    def schedules(self, pipeline: str | None) -> list[ScheduleInfo]:
        found = [self._info(item) for item in self._recurring(None)]
        return [info for info in found if pipeline is None or info.pipeline == pipeline]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._switch(self._one_recurring(schedule_id).recurring_run_id, on=False)
        return self._info(self._one_recurring(schedule_id))

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._switch(self._one_recurring(schedule_id).recurring_run_id, on=True)
        return self._info(self._one_recurring(schedule_id))

    def delete_schedule(self, schedule_id: str) -> None:
        self._one_recurring(schedule_id)
        for item in self._recurring(schedule_id):
            self._delete(item.recurring_run_id)

    def _delete(self, recurring_run_id: str) -> None:
        with contextlib.suppress(NotFoundError):
            self.client.read(
                lambda api: api._recurring_run_api.recurring_run_service_delete_recurring_run(
                    recurring_run_id, **self.client.limits
                )
            )

    def _switch(self, recurring_run_id: str, *, on: bool) -> None:
        """The same twice is the same, so a lost answer hurts nobody."""
        verb = "enable" if on else "disable"
        self.client.read(
            lambda api: getattr(api._recurring_run_api, f"recurring_run_service_{verb}_recurring_run")(
                recurring_run_id, **self.client.limits
            )
        )

    def _recurring(self, name: str | None) -> list[Any]:
        """Those that FlowyML made, newest first."""
        wanted = {"filter": equals(display_name=name)} if name else {}
        found = self.client.pages(
            lambda api: api._recurring_run_api.recurring_run_service_list_recurring_runs, "recurring_runs",
            **wanted, **({"namespace": self.namespace} if self.namespace else {}),
        )  # fmt: skip
        ours = [item for item in found if "schedule" in _read(item.description) and name in (None, item.display_name)]
        return sorted(ours, key=lambda item: item.created_at, reverse=True)

    def _one_recurring(self, name: str) -> Any:
        if found := self._recurring(name) if name else []:
            return found[0]
        raise ScheduleNotFoundError(f"KFP at {self.client.url} has no schedule {name!r}.")

    def _info(self, item: Any) -> ScheduleInfo:
        about = _read(item.description)
        schedule = Schedule.from_dict(about["schedule"])
        paused = item.status == "DISABLED"
        planned = () if paused else tuple(schedule.next_times(_PLANNED))
        return ScheduleInfo(
            schedule_id=item.display_name, pipeline=about["pipeline"], schedule=schedule, paused=paused, next_runs=planned
        )

    def _scope(self) -> Json:
        return {"namespace": self.namespace} if self.namespace else {}

    def _model(self, name: str) -> Any:
        import kfp_server_api

        return getattr(kfp_server_api, name)


class _Tasks:
    """The tasks of a run by the name that the pipeline's file gives them: KFP tells of drivers and pods too."""

    def __init__(self, run: Any, pipeline: Mapping[str, Any]) -> None:
        self._details = list((run.run_details.task_details or ()) if run.run_details else ())
        self._pipeline = pipeline
        self.steps = dict(_steps(pipeline))
        self._by_name = {item.display_name: item for item in self._details if item.display_name in self.steps}
        self._by_id = {item.task_id: item for item in self._details}

    def state(self, task: str) -> str | None:
        return self._by_name[task].state if task in self._by_name else None

    def started(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return (item.start_time or item.create_time) if item else None

    def ended(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return item.end_time if item and status_of(item.state).is_terminal else None

    def pods(self, task: str) -> list[str]:
        """The pods in which the attempts of a step ran, the first attempt first."""
        found: list[str] = []
        self._collect(self._by_name.get(task), found)
        return found

    def _collect(self, item: Any, found: list[str]) -> None:
        if item is None:
            return
        children = item.child_tasks or ()
        if not children and item.pod_name:
            found.append(item.pod_name)
        for child in children:
            if child.task_id in self._by_id:
                self._collect(self._by_id[child.task_id], found)
            elif child.pod_name:
                found.append(child.pod_name)

    def outputs(self) -> dict[str, list[str]]:
        """Which steps give outputs of the pipeline, by port."""
        dag = _inner(self._pipeline)
        found: dict[str, list[str]] = {}
        for port, selector in dag.get("outputs", {}).get("parameters", {}).items():
            found.setdefault(selector["valueFromParameter"]["producerSubtask"], []).append(port)
        return found


def _inner(pipeline: Mapping[str, Any]) -> Json:
    """The DAG that holds the steps."""
    root: Json = pipeline["root"]["dag"]
    if names.STEPS_TASK in root["tasks"]:
        inner: Json = pipeline["components"][f"comp-{names.STEPS_TASK}"]["dag"]
        return inner
    return root


def _steps(pipeline: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tasks and their steps in topological order: KFP hands the file back with its entries in any order."""
    tasks = _inner(pipeline)["tasks"]
    order = TopologicalSorter({name: sorted(item.get("dependentTasks", ())) for name, item in sorted(tasks.items())})
    for name in order.static_order():
        constant = tasks.get(name, {}).get("inputs", {}).get("parameters", {}).get(names.STEP)
        if constant:
            yield name, constant["runtimeValue"]["constant"]


def _pipeline_spec(document: Mapping[str, Any]) -> Json:
    """KFP gives the one document, or both below their names."""
    return dict(document.get("pipeline_spec") or document)


def _arguments(plan: Plan, parameters: Mapping[str, Any]) -> Json:
    by_name = {item.name: item for item in plan.parameters}
    return {names.port(name): argument(value, by_name[name]) for name, value in parameters.items()}


def _about(facts: Mapping[str, Any]) -> str:
    """A description that people and FlowyML can read: KFP has no better place for the names of users."""
    return _ABOUT + json.dumps(facts, ensure_ascii=False)


def _read(description: str | None) -> Json:
    if not description or not description.startswith(_ABOUT):
        return {}
    try:
        facts: Json = json.loads(description.removeprefix(_ABOUT))
    except ValueError:
        return {}
    return facts


def _told(run: Any) -> str | None:
    return run.error.message if run.error else None


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.timestamp() <= 0:  # KFP writes 1970 for what has not happened
        return None
    return moment.astimezone(UTC)


def _put(bundle: Bundle, url: str) -> None:
    """The bundle into the store; its name holds its digest, so what is there is the same."""
    import fsspec

    with fsspec.open(url, "wb") as file:
        file.write(bundle.data)


@contextlib.contextmanager
def _one_at_a_time(what: str) -> Iterator[None]:
    """On this machine, nobody else creates the same thing meanwhile."""
    folder = home() / "kubeflow" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub("[^0-9a-f]", "", hashlib.sha256(what.encode()).hexdigest())[:32]
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
