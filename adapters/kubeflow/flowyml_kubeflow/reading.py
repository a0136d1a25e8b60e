"""What KFP knows of a run, in FlowyML's records: state, steps, errors, logs, outputs.

A run's steps are among the nodes of the Argo workflow that KFP makes of a pipeline. KFP's API gives a task detail for
each node: for a step its driver, a node of the step's name, below that a node ``executor``, which is the pod or
holds the attempts, and whatever comes next. A detail says its display name and the ids of its children, but neither
its own id nor its pod. Sources: ``Workflow.NodeStatuses`` and ``toApiPipelineTaskDetail`` of KFP's API server.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from flowyml.artifacts import is_reference, open_store
from flowyml.artifacts.store import Store, Written, passing_file
from flowyml.core.errors import ArtifactError, EngineError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.orchestrators.log_following import Look, log_lines
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import RESULT, leveled
from flowyml_kubeflow.client import Client, NotFoundError, equals
from flowyml_kubeflow.deploy import Pipelines, facts, origin_of
from flowyml_kubeflow.parameters import output_name
from flowyml_kubeflow.spec import documents
from flowyml_kubeflow.status import status_of, step_status_of

__all__ = ["Pod", "Runs", "Tasks", "UiStore", "node_id"]

Json = dict[str, Any]

_PAGE = 200  # runs, the most that KFP gives at once; source: KFP, list_request_util.go
_HOOKS = (names.START_TASK, names.END_TASK)
_EXECUTOR = "executor"  # the task in which a step's container runs; source: KFP, argocompiler/container.go
_IMPL = "system-container-impl"  # its template
_FNV_PRIME, _WORD = 0x01000193, 0xFFFFFFFF  # of FNV-1a with 32 bits
_SOURCES = {"minio": "minio", "s3": "s3", "gs": "gcs"}  # source: KFP, frontend/server/handlers/artifacts.ts


class Runs:
    """The runs of a KFP. ``artifacts`` is the store that the steps write to, if it is not KFP's own."""

    def __init__(self, pipelines: Pipelines, artifacts: str | None) -> None:
        self.pipelines = pipelines
        self.client: Client = pipelines.client
        self.artifacts = artifacts
        self.terminated: set[str] = set()
        """The runs that were stopped here, or seen being stopped: see ``status``."""
        self._pod_names: dict[str, str] = {}

    def get(self, job_id: str) -> Run:
        return self._run(self.fetch(job_id), whole=True)

    def fetch(self, job_id: str) -> Any:
        """The official client's model of a run. Raises ``RunNotFoundError``."""
        try:
            uuid.UUID(job_id)
            return self.client.read("run_service_get_run", job_id)
        except (ValueError, NotFoundError) as error:
            raise RunNotFoundError(f"KFP at {self.client.connection.where} has no run {job_id!r}.") from error

    def named(self, run_id: str) -> list[Any]:
        """All runs of that name as the official client's models, the oldest first."""
        found = self.client.pages(
            "run_service_list_runs", "runs", filter=equals(display_name=run_id), **self.client.connection.scope
        )
        runs = [run for run in found if run.display_name == run_id]
        return sorted(runs, key=lambda run: (run.created_at, run.run_id))

    def record(self, run: Any) -> Run:
        """The record of a run, with where its code comes from."""
        version = self.pipelines.version_of(run)
        code = facts(version.description).get("code")
        return replace(self._run(run), origin=origin_of(version), code_digest=code)

    def _run(self, run: Any, *, whole: bool = False) -> Run:
        status = self.status(run)
        error = (self._error(run) if whole else _message(run)) if status.is_failed else None
        started = [item.state for item in run.state_history or () if item.state == "RUNNING"]
        return Run(
            job_id=str(run.run_id), run_id=run.display_name, pipeline=self.pipelines.pipeline_of(run),
            status=status, raw_status=run.state or "RUNTIME_STATE_UNSPECIFIED", created_at=_utc(run.created_at),
            started_at=_utc(run.scheduled_at or run.created_at) if started or status.is_terminal else None,
            ended_at=_utc(run.finished_at) if status.is_terminal else None, error=error,
            url=self.client.connection.page(f"runs/details/{run.run_id}"),
            parameters=self.pipelines.parameters_of(run), revision=facts(run.description).get("revision"),
        )  # fmt: skip

    def status(self, run: Any) -> ExecutionStatus:
        """KFP says FAILED of a run that it has terminated. The state before that one shows it, but may be missing: it
        is in the history only if KFP's agent saw the workflow in between (source: ``RunStore.TerminateRun``)."""
        if run.state == "CANCELING":
            self.terminated.add(str(run.run_id))
        states = [item.state for item in run.state_history or () if item.state != run.state]
        return status_of(run.state, [*states, "CANCELING"] if run.run_id in self.terminated else states)

    def _error(self, run: Any) -> str | None:
        """In the words of the first step that failed, if its log is still there."""
        tasks = Tasks(run, self.pipelines.spec_of(run))
        failed = [task for task in tasks.steps if tasks.state(task) == "FAILED" and tasks.pods(task)]
        for task in sorted(failed, key=lambda task: str(tasks.ended(task))):
            failure = self._result(run, tasks, task).get("failure")
            message = failure["message"] if failure else "failed; its log is gone"
            return f"step {tasks.steps[task]!r}: {message}"
        return _message(run)

    def newest(self, pipeline: str | None, limit: int) -> list[Run]:
        size = min(limit, _PAGE) if pipeline is None else _PAGE
        every = self.client.pages(
            "run_service_list_runs", "runs", sort_by="created_at desc", page_size=size, **self.client.connection.scope
        )  # fmt: skip
        wanted = (run for run in every if pipeline is None or self.pipelines.pipeline_of(run) == pipeline)
        return [self._run(run) for run in islice(wanted, limit)]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        run = self.fetch(job_id)
        status, tasks = self.status(run), Tasks(run, self.pipelines.spec_of(run))
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
            ):  # it was stopped before it could publish a failure
                step_status, error = ExecutionStatus.CANCELLED, None
        return StepRun(
            name=tasks.steps[task], status=step_status, raw_status=state or "PENDING",
            attempt=(pods[-1].attempt if pods else 1) if begun else 0,
            started_at=_utc(tasks.started(task)) if begun else None,
            ended_at=_utc(tasks.ended(task)) if begun else None, error=error,
        )  # fmt: skip

    def outputs(self, job_id: str) -> Outputs:
        run = self.fetch(job_id)
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
        """The lines of a run, pod by pod; with ``follow`` until it has ended."""
        seen: dict[str, int] = {}
        return log_lines(lambda: self._new_lines(job_id, seen, follow=follow), follow=follow)

    def _new_lines(self, job_id: str, seen: dict[str, int], *, follow: bool) -> Look:
        run = self.fetch(job_id)
        grows = follow and not self.status(run).is_terminal
        tasks = Tasks(run, self.pipelines.spec_of(run))
        for task, step in tasks.logged.items():
            for pod in tasks.pods(task):
                printed = self._log(job_id, pod, grows=grows) or ()
                lines = [line for line in printed if not line.startswith(RESULT)]
                fresh = map(leveled, lines[seen.get(pod.node, 0) :])
                yield from (LogLine(line, step, level) for level, line in fresh)
                seen[pod.node] = max(seen.get(pod.node, 0), len(lines))
        return not grows


class UiStore(Store):
    """What one run wrote: KFP puts the run's id into the path of each artifact, and another run's are not read."""

    def __init__(self, client: Client, run_id: str, *, size: int = 0) -> None:
        super().__init__(f"{client.connection.where}/artifacts")
        self.client = client
        self.run_id = run_id
        self.size = size

    def holds(self, url: str) -> bool:
        parts = urlsplit(url)
        steps = parts.path.split("/")[1:]
        leads_down = all(step not in ("", ".", "..") for step in steps) and "\\" not in url
        plain = not (parts.query or parts.fragment or parts.username)
        return parts.scheme in _SOURCES and bool(parts.netloc) and plain and leads_down and self.run_id in steps[:-1]

    def write(self, key: str, produce: Callable[..., None]) -> Written:
        raise ArtifactError("KFP's UI takes no artifacts.")

    @contextmanager
    def fetch(self, written: Written, *, once: bool = False) -> Iterator[Path]:
        """As any store does; no more is loaded than was written."""
        with Store.fetch(UiStore(self.client, self.run_id, size=written.size), written) as path:
            yield path

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        parts = urlsplit(url)
        page = f"/artifacts/{_SOURCES[parts.scheme]}/{parts.netloc}{quote(parts.path)}"
        with passing_file() as (path, file):
            try:
                self.client.download(page, file.write, self.size)
            except EngineError as error:
                raise ArtifactError(f"KFP's UI does not give {url}: {error}") from error
            yield path


@dataclass(frozen=True)
class Pod:
    """One attempt of a step: Argo's id of its node, what the pod may be called, the likeliest first, and its number."""

    node: str
    names: tuple[str, ...]
    attempt: int


class Tasks:
    """The steps of a run by their tasks, at any depth of the pipeline."""

    def __init__(self, run: Any, version: Mapping[str, Any]) -> None:
        pipeline, platform = documents(version)
        details = list((run.run_details.task_details or ()) if run.run_details else ())
        steps = dict(_step_tasks(pipeline, pipeline["root"]["dag"]))
        self.steps = {task: names.step_shown(str(item["taskInfo"]["name"]), task) for task, item in steps.items()}
        hooks = {name: task for dag in _dags(pipeline) for name, task in dag["tasks"].items() if name in _HOOKS}
        self._tasks = {**steps, **hooks}
        self.logged = {name: "" for name in _HOOKS[:1] if name in hooks} | self.steps
        self.logged |= {name: "" for name in _HOOKS[1:] if name in hooks}
        """The tasks whose pods run a user's code, in order, with the step's name or nothing."""
        self._pipeline = pipeline
        self._executors = _executors(pipeline, platform)
        self._by_name = {item.display_name: item for item in details if item.display_name in self._tasks}
        self._skipped = [item for item in details if item.display_name == _EXECUTOR and item.state == "SKIPPED"]
        self._nodes = {child for item in details for child in _children(item)}

    def state(self, task: str) -> str | None:
        return self._by_name[task].state if task in self._by_name else None

    def started(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return (item.start_time or item.create_time) if item else None

    def ended(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return item.end_time if item and status_of(item.state).is_terminal else None

    def pods(self, task: str) -> list[Pod]:
        """The attempts of a step, the first attempt first."""
        below = _children(self._by_name[task]) if task in self._by_name else []
        if self.is_cached(task):
            return []
        return [
            Pod(node, self._names(task, node), attempt)
            for child in below
            for attempt, node in self._attempts(task, child)
        ]

    def _attempts(self, task: str, executor: str) -> list[tuple[int, str]]:
        """With a retry policy, Argo puts the attempts below the executor; else the executor is the one attempt.

        When a run is retried, KFP deletes the failed attempts of a step that succeeded, so the first may be missing.
        Source: KFP, ``GenerateRetryExecution``.
        """
        most = self._tasks[task].get("retryPolicy", {}).get("maxRetryCount", -1) + 1
        nodes = [(number + 1, node_id(f"({number})", after=executor)) for number in range(most)]
        return [item for item in nodes if item[1] in self._nodes] or [(1, executor)]

    def _names(self, task: str, node: str) -> tuple[str, ...]:
        """``WORKFLOW-TEMPLATE-HASH``. Source: KFP, ``RetrievePodName``; the last is that of Argo before 3.4."""
        workflow, _, number = node.rpartition("-")
        return *(f"{workflow}-{template}-{number}" for template in self._templates(task)), node

    def _templates(self, task: str) -> Iterator[str]:
        """What KFP may call the template of a step, which differs by its release: newest and most special first.

        Source: KFP, ``addContainerExecutorTemplate``.
        """
        retries = (f"retry-{_IMPL}", _IMPL) if "retryPolicy" in self._tasks[task] else (_IMPL,)
        metadata = self._executors.get(self._tasks[task]["componentRef"]["name"], {}).get("podMetadata")
        if metadata is not None:
            counts = f"{len(metadata.get('annotations', ()))}-{len(metadata.get('labels', ()))}"
            yield from (f"metadata-{counts}-{template}" for template in retries)
        yield from retries

    def is_cached(self, task: str) -> bool:
        """Whether KFP took the step's outputs from its cache, so that no pod ran: its executor was skipped."""
        caches = self._tasks[task].get("cachingOptions", {}).get("enableCache", False)
        item = self._by_name.get(task)
        if not caches or item is None or item.state != "SUCCEEDED":
            return False
        return any(item.start_time <= skipped.start_time <= item.end_time for skipped in self._skipped)

    def outputs(self) -> dict[str, list[str]]:
        """The steps that give outputs of the pipeline, with their names."""
        found: dict[str, list[str]] = {}
        definitions = self._pipeline["root"].get("outputDefinitions", {}).get("parameters", {})
        for dag in _dags(self._pipeline):
            for port, selector in dag.get("outputs", {}).get("parameters", {}).items():
                producer = selector["valueFromParameter"]["producerSubtask"]
                if producer in self.steps:
                    found.setdefault(producer, []).append(output_name(port, definitions.get(port, {})))
        return found


def node_id(name: str, *, after: str) -> str:
    """The id of the node whose name goes on with ``name`` after that of another node.

    Argo's ids are the workflow's name and the FNV-1a hash of the node's; such a hash can be continued. Source: Argo,
    ``Workflow.NodeID``.

    >>> node_id("(0)", after="dag-diamond-xfww2-1522144194")  # as in an example of Argo's
    'dag-diamond-xfww2-2043927737'
    """
    workflow, _, number = after.rpartition("-")
    value = int(number)
    for byte in name.encode():
        value = ((value ^ byte) * _FNV_PRIME) & _WORD
    return f"{workflow}-{value}"


def _children(item: Any) -> list[str]:
    return [child.pod_name for child in item.child_tasks or () if child.pod_name]


def _executors(pipeline: Mapping[str, Any], platform: Mapping[str, Any]) -> dict[str, Json]:
    """What the file asks Kubernetes for, by component."""
    asked = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    labels = {name: item.get("executorLabel") for name, item in pipeline.get("components", {}).items()}
    return {name: asked[label] for name, label in labels.items() if label in asked}


def _dags(pipeline: Mapping[str, Any]) -> Iterator[Json]:
    components = pipeline.get("components", {}).values()
    return (item["dag"] for item in (pipeline["root"], *components) if "dag" in item)


def _step_tasks(pipeline: Mapping[str, Any], dag: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """The tasks of steps, in topological order: KFP hands the file back with its entries in any order."""
    tasks = dag["tasks"]
    order = TopologicalSorter({name: sorted(item.get("dependentTasks", ())) for name, item in sorted(tasks.items())})
    for name in order.static_order():
        component = pipeline["components"].get(tasks[name]["componentRef"]["name"], {})
        if "dag" in component:
            yield from _step_tasks(pipeline, component["dag"])
        elif names.STEP in tasks[name].get("inputs", {}).get("parameters", {}):
            yield name, tasks[name]


def _lost(tasks: Tasks, task: str) -> str:
    step = tasks.steps[task]
    if tasks.is_cached(task):
        return f"KFP took step {step!r} from its cache, so no pod ran and no log holds it. Run it with cache=False."
    return f"KFP no longer has the log of step {step!r}, in which it stands."


def _message(run: Any) -> str | None:
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
