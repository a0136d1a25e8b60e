"""A fake of KFP's v2beta1 API: for tests, since the real server needs a Kubernetes, a database and an object store.

Its answers are made of the official client's own models, and it takes only what those models have. It executes runs
through KFP's official local runner, keeps state, fires recurring runs, pages its lists, and can be made to fail. It
refuses what the sources of KFP and Argo show that a real one refuses; each such rule names its source.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kfp_server_api
import uvicorn
import yaml
from croniter import croniter
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from kfp_server_api import ApiClient

from flowyml_kubeflow import KubeflowLocalOrchestrator, flow_names, names
from flowyml_kubeflow.attempts import printed
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.kfp_process import for_kfp_local
from tests.engines import kubeflow_ir, kubeflow_turns

Json = dict[str, Any]
CODES = {400: 3, 401: 16, 404: 5, 409: 6, 500: 13}


class Refused(Exception):
    """An answer that is an error, as grpc-gateway words it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    """Fail the next calls that fit: ``before`` anything is done, or after, when only the answer is lost."""

    method: str
    path: str
    status: int = 500
    before: bool = True
    seconds: float = 0
    times: int = 1


@dataclass
class State:
    """All that the fake remembers."""

    folder: Path
    token: str | None = None
    users: dict[str, set[str]] = field(default_factory=dict)  # tokens and their namespaces, where KFP has several users
    login: bool = False  # whether a proxy in front shows a login page to whom has no token
    login_headers: dict[str, str] = field(default_factory=dict)  # of the last who came to the login page
    below: str = ""  # the path at which a dashboard in front has the API
    is_ui: bool = False  # whether ml-pipeline-ui is in front
    is_ready: bool = True  # whether the API server behind it answers
    version: str = "2.17.0"
    reports_canceling: bool = True  # whether KFP's agent sees a workflow between its termination and its end
    cached: set[str] = field(default_factory=set)  # tasks that KFP takes from its cache
    page: int = 3
    lags: list[float] = field(default_factory=list)  # of the next runs, how long each takes until it can be seen
    pods_start_after: float = 0  # seconds; on a cluster it takes several until the first pod runs
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    recurring: dict[str, Any] = field(default_factory=dict)
    ahead: timedelta = timedelta()  # how far the clock of the scheduler is ahead
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


def make_app(state: State) -> FastAPI:
    app = FastAPI()
    runs = _Runs(state)
    app.state.schedules = _Schedules(state, runs)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return _refusal(error.status, str(error))

    @app.middleware("http")
    async def misfortune(request: Request, call_next: Callable[..., Any]) -> Response:
        if not request.url.path.startswith(state.below):
            return _refusal(404, "Not Found")
        path = request.scope["path"] = request.url.path.removeprefix(state.below)
        if in_front := _in_front(state, request, path):
            return in_front
        fault = state.fault(request.method, path)
        if fault and fault.before:
            await asyncio.sleep(fault.seconds)
            return _refusal(fault.status, "Internal Server Error: made to fail before.")
        answer: Response = await call_next(request)
        if fault:
            await asyncio.sleep(fault.seconds)
            return _refusal(fault.status, "Internal Server Error: made to fail after.")
        return answer

    @app.get("/apis/v2beta1/healthz")
    def healthz() -> Any:
        """ml-pipeline-ui has one of its own. Sources: apiserver/main.go, frontend/server/handlers/healthz.ts."""
        if state.is_ui:
            found = {"apiServerCommitHash": "fake", "apiServerTagName": state.version, "multi_user": bool(state.users)}
            stats = {"apiServerMultiUser": bool(state.users), "pipelineStore": "database"} | found
            return {**(stats if state.is_ready else {}), "apiServerReady": state.is_ready, "buildDate": "fake"}
        return {
            "commit_sha": "fake", "tag_name": state.version, "multi_user": bool(state.users),
            "pipeline_store": "database",
        }  # fmt: skip

    _pipelines(app, state)
    _experiments(app, state)
    _run_routes(app, state, runs)
    _ui_artifacts(app, state, runs)
    _recurring_runs(app, state, runs)
    return app


def _in_front(state: State, request: Request, path: str) -> Response | None:
    """What answers instead of the API."""
    if not _is_served(state, path):
        return HTMLResponse(f"<pre>Cannot GET {path}</pre>", 404)
    state.calls.append((request.method, path))
    known = _is_signed_in(request, state.token) if not state.users else _user(request) in state.users
    if path == "/login":
        state.login_headers = dict(request.headers)
        return HTMLResponse("<html>Log in</html>")
    if state.login and not known:
        return RedirectResponse("/login", 302)
    if not known and not path.endswith("healthz"):
        return _refusal(401, "Request header error: there is no user identity header.")
    return None


def _is_served(state: State, path: str) -> bool:
    """ml-pipeline-ui passes on v2beta1 only, and has a path of its own for logs. Source: frontend/server/app.ts."""
    ui = path.startswith(("/k8s/", "/artifacts/"))
    return path.startswith(("/apis/v2beta1/", "/login")) or state.is_ui == ui


def _user(request: Request) -> str:
    return str(request.headers.get("authorization", "")).removeprefix("Bearer ")


def _check_namespace(state: State, request: Request, namespace: str | None, kind: str) -> None:
    """Where KFP has several users, each is asked for the namespace of what is wanted, and whether it is theirs.

    Source: apiserver/server/experiment_server.go, ``canAccessExperiment``; run_server.go, ``canAccessRun``; and so on.
    """
    if not state.users:
        return
    if not namespace:
        raise Refused(400, f"Invalid input error: {kind} cannot have an empty namespace in multi-user mode")
    if namespace not in state.users[_user(request)]:
        raise Refused(403, f"PermissionDenied: User is not authorized to access {kind} in namespace {namespace}")


def _is_signed_in(request: Request, token: str | None) -> bool:
    given = (request.headers.get("authorization"), request.headers.get("cookie"))
    return token is None or given[0] == f"Bearer {token}" or given[1] == f"session={token}"


def _pipelines(app: FastAPI, state: State) -> None:  # noqa: C901  # one route after another
    @app.post("/apis/v2beta1/pipelines")
    async def create(request: Request) -> Any:
        body = _body("V2beta1Pipeline", await request.json())
        if body.namespace:  # without one it is shared; source: pipeline_server.go, canAccessPipeline
            _check_namespace(state, request, body.namespace, "a pipeline")
        with state.lock:
            if any((item.name, item.namespace) == (body.name, body.namespace) for item in state.pipelines.values()):
                raise Refused(409, f"Already exist error: the pipeline name {body.name} already exists")
            body.pipeline_id, body.created_at = str(uuid.uuid4()), _now()
            state.pipelines[body.pipeline_id] = body
        return _plain(body)

    @app.get("/apis/v2beta1/pipelines/names/{name}")
    def by_name(name: str, request: Request, namespace: str = "") -> Any:
        if namespace:
            _check_namespace(state, request, namespace, "a pipeline")
        wanted = (name, namespace if state.users else None)  # resource_manager.go, ReplaceNamespace
        found = [item for item in state.pipelines.values()
                 if (item.name, (item.namespace or "") if state.users else None) == wanted]  # fmt: skip
        return _plain(_only(found, f"Pipeline {name}"))

    @app.post("/apis/v2beta1/pipelines/upload_version")
    async def upload_version(uploadfile: UploadFile, pipelineid: str, name: str, description: str = "") -> Any:
        documents = [item for item in yaml.load_all(await uploadfile.read(), yaml.CSafeLoader) if item]
        release = tuple(map(int, state.version.split(".")[:2]))
        if found := kubeflow_ir.faults(
            documents, kfp=(release[0], release[1])
        ):  # a real one finds most of them when a run is created
            raise Refused(400, f"Invalid input error: {found}")
        spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        with state.lock:
            if any(item.name == name and item.pipeline_id == pipelineid for item in state.versions.values()):
                raise Refused(409, f"Already exist error: the pipeline version name {name} already exists")
            version = kfp_server_api.V2beta1PipelineVersion(
                pipeline_id=pipelineid, pipeline_version_id=str(uuid.uuid4()), name=name, display_name=name,
                created_at=_now(), pipeline_spec=spec, description=description,
            )  # fmt: skip
            state.versions[version.pipeline_version_id] = version
        return _plain(version)

    @app.get("/apis/v2beta1/pipelines/{pipeline_id}")
    def one(pipeline_id: str) -> Any:
        return _plain(_known(state.pipelines, pipeline_id, "Pipeline"))

    @app.get("/apis/v2beta1/pipelines/{pipeline_id}/versions")
    def versions(pipeline_id: str, request: Request) -> Any:
        mine = [item for item in state.versions.values() if item.pipeline_id == pipeline_id]
        return _listed(state, "V2beta1ListPipelineVersionsResponse", "pipeline_versions", mine, request)

    @app.get("/apis/v2beta1/pipelines/{pipeline_id}/versions/{version_id}")
    def version(pipeline_id: str, version_id: str) -> Any:
        return _plain(_known(state.versions, version_id, "PipelineVersion"))


def _experiments(app: FastAPI, state: State) -> None:
    @app.post("/apis/v2beta1/experiments")
    async def create(request: Request) -> Any:
        body = _body("V2beta1Experiment", await request.json())
        _check_namespace(state, request, body.namespace, "an experiment")
        with state.lock:
            named = (body.display_name, body.namespace)
            if any((item.display_name, item.namespace) == named for item in state.experiments.values()):
                raise Refused(409, f"Already exist error: the experiment name {body.display_name} already exists")
            body.experiment_id, body.created_at = str(uuid.uuid4()), _now()
            state.experiments[body.experiment_id] = body
        return _plain(body)

    @app.get("/apis/v2beta1/experiments")
    def listed(request: Request) -> Any:
        namespace = request.query_params.get("namespace")
        _check_namespace(state, request, namespace, "an experiment")
        found = [item for item in state.experiments.values() if not state.users or item.namespace == namespace]
        return _listed(state, "V2beta1ListExperimentsResponse", "experiments", found, request)


def _run_routes(app: FastAPI, state: State, runs: _Runs) -> None:  # noqa: C901  # the same
    def found(run_id: str, request: Request) -> Any:
        run = _known(state.runs, run_id, "Run")
        _check_namespace(state, request, _namespace_of(state, run), "a run")
        return run

    @app.post("/apis/v2beta1/runs")
    async def create(request: Request) -> Any:
        body = _body("V2beta1Run", await request.json())
        _check_namespace(state, request, _namespace_of(state, body), "a run")
        _check_lengths(body)
        return _plain(await asyncio.to_thread(runs.create, body))

    @app.get("/apis/v2beta1/runs")
    def listed(request: Request) -> Any:
        theirs = _in_namespace(state, request, state.runs, "a run")
        return _listed(state, "V2beta1ListRunsResponse", "runs", theirs, request, shown=runs.refreshed)

    @app.get("/apis/v2beta1/runs/{run_id}")
    def one(run_id: str, request: Request) -> Any:
        return _plain(runs.refreshed(found(run_id, request)))

    @app.delete("/apis/v2beta1/runs/{run_id}")
    def delete(run_id: str, request: Request) -> Any:
        runs.stop(found(run_id, request))
        state.runs.pop(run_id)
        return {}

    @app.post("/apis/v2beta1/runs/{run_and_verb}")
    def act(run_and_verb: str, request: Request) -> Any:
        run_id, _, verb = run_and_verb.partition(":")
        run = found(run_id, request)
        if verb == "terminate":
            runs.terminate(run)
        elif verb == "retry":
            runs.retry(run)
        else:
            raise Refused(404, f"Method {verb} not found")
        return {}

    @app.get("/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log")
    def log(run_id: str, node_id: str, request: Request) -> Any:
        found(run_id, request)
        return PlainTextResponse(runs.log(run_id, node_id))

    @app.get("/k8s/pod/logs")
    def pod_log(podname: str, request: Request, runid: str = "", podnamespace: str = "") -> Any:
        _check_namespace(state, request, podnamespace, "a pod")
        return PlainTextResponse(runs.log(runid, podname))


def _recurring_runs(app: FastAPI, state: State, runs: _Runs) -> None:
    def found(recurring_run_id: str, request: Request) -> Any:
        item = _known(state.recurring, recurring_run_id, "Job")
        _check_namespace(state, request, _namespace_of(state, item), "a recurring run")
        return item

    @app.post("/apis/v2beta1/recurringruns")
    async def create(request: Request) -> Any:
        body = _body("V2beta1RecurringRun", await request.json())
        _check_namespace(state, request, _namespace_of(state, body), "a recurring run")
        _check_lengths(body)
        if body.trigger.cron_schedule and len(body.trigger.cron_schedule.cron.split()) != 6:
            # The real server takes five fields too, and reads them one place off: the trap that is tested for.
            raise Refused(400, "Invalid input error: a cron expression has six fields here")
        runs.check(body)
        body.recurring_run_id, body.created_at = str(uuid.uuid4()), _now()
        body.status = "ENABLED" if body.mode == "ENABLE" else "DISABLED"
        state.recurring[body.recurring_run_id] = body
        return _plain(body)

    @app.get("/apis/v2beta1/recurringruns")
    def listed(request: Request) -> Any:
        items = _in_namespace(state, request, state.recurring, "a recurring run")
        return _listed(
            state, "V2beta1ListRecurringRunsResponse", "recurringRuns", items, request, name="recurring_runs"
        )

    @app.get("/apis/v2beta1/recurringruns/{recurring_run_id}")
    def one(recurring_run_id: str, request: Request) -> Any:
        return _plain(found(recurring_run_id, request))

    @app.delete("/apis/v2beta1/recurringruns/{recurring_run_id}")
    def delete(recurring_run_id: str, request: Request, propagation_policy: str = "") -> Any:
        found(recurring_run_id, request)
        state.recurring.pop(recurring_run_id)
        if propagation_policy != "ORPHAN" or state.version < "2.16":
            # It owns the workflows of its runs, so Kubernetes deletes them too. Source: common/util/workflow.go,
            # SetOwnerReferences; KFP issues 7421 and 12573.
            for run in [run for run in state.runs.values() if run.recurring_run_id == recurring_run_id]:
                runs.stop(run)
        return {}

    @app.post("/apis/v2beta1/recurringruns/{run_and_verb}")
    def act(run_and_verb: str, request: Request) -> Any:
        recurring_run_id, _, verb = run_and_verb.partition(":")
        item = found(recurring_run_id, request)
        item.status = {"enable": "ENABLED", "disable": "DISABLED"}[verb]
        item.mode = verb.upper()
        return {}


def _namespace_of(state: State, item: Any) -> str | None:
    """That of its experiment."""
    namespace: str | None = _known(state.experiments, item.experiment_id, "Experiment").namespace
    return namespace


def _in_namespace(state: State, request: Request, items: dict[str, Any], kind: str) -> list[Any]:
    namespace = request.query_params.get("namespace")
    _check_namespace(state, request, namespace, kind)
    return [item for item in list(items.values()) if not state.users or _namespace_of(state, item) == namespace]


class _Runs:
    """Executes runs through KFP's official local runner, whose files it reads back."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.local = KubeflowLocalOrchestrator(folder=state.folder)
        self._kept: dict[tuple[str, str], _Kept] = {}

    def create(self, body: Any, at: datetime | None = None) -> Any:
        """A run, or with a time one of a recurring run."""
        body.run_id, body.created_at = str(uuid.uuid4()), _now()
        body.scheduled_at = at
        body.state, body.storage_state = "PENDING", "AVAILABLE"
        self.check(body)
        self._write(body, self._spec(body))
        self._start(self._folder(body))
        time.sleep(self.state.lags.pop(0) if self.state.lags else 0)
        self.state.runs[body.run_id] = body
        return body

    def _start(self, folder: RunFolder) -> None:
        """As soon as a cluster would, unless the run is stopped before."""

        def start() -> None:
            if not folder.is_cancelled():
                self.local._start(folder)

        if not self.state.pods_start_after:
            start()
            return
        timer = threading.Timer(self.state.pods_start_after, start)
        timer.daemon = True
        timer.start()

    def refreshed(self, run: Any) -> Any:
        folder = self._folder(run)
        found = self.local.get_run(folder.path.name)
        # Argo has no word for a workflow that was terminated but Failed, and so has KFP.
        run.state = "FAILED" if found.raw_status == "CANCELED" else found.raw_status
        run.finished_at = found.ended_at
        if run.recurring_run_id is None:
            run.scheduled_at = found.started_at or run.created_at
        begun = [
            "PENDING",
            *(["RUNNING"] if found.started_at else []),
            *(["CANCELING"] if folder.is_cancelled() and self.state.reports_canceling else []),
        ]
        begun += [run.state] if found.ended_at else []
        run.state_history = [kfp_server_api.V2beta1RuntimeStatus(state=state) for state in begun]
        if run.state == "FAILED" and not folder.is_cancelled():
            run.error = kfp_server_api.GoogleRpcStatus(code=13, message="The run failed.")
        run.run_details = kfp_server_api.V2beta1RunDetails(task_details=self._workflow(run, folder).details())
        return run

    def stop(self, run: Any) -> None:
        self.local.cancel(self._folder(run).path.name)

    def terminate(self, run: Any) -> None:
        if self.refreshed(run).state not in ("PENDING", "RUNNING", "PAUSED"):
            raise Refused(400, f"Invalid input error: Failed to terminate a run {run.run_id}. Row not found")
        self.stop(run)

    def retry(self, run: Any) -> None:
        if self.refreshed(run).state != "FAILED":
            raise Refused(400, "Failed precondition: only failed runs can be retried")
        folder = self._folder(run)
        for task in folder.steps():
            self._kept[run.run_id, task] = kept = self._kept_of(run, task).after(folder.attempts(task))
            if task == names.END_TASK and kept.has_succeeded:
                local = json.loads(folder.pipeline.read_text("utf-8"))
                for dag in [local["root"], *local["components"].values()]:
                    dag.get("dag", {}).get("tasks", {}).pop(task, None)
                folder.pipeline.write_text(json.dumps(local, ensure_ascii=False), "utf-8")
        self.local.retry_run(folder.path.name)
        run.error = None

    def _kept_of(self, run: Any, task: str) -> _Kept:
        return self._kept.get((run.run_id, task), _Kept())

    def log(self, run_id: str, pod: str) -> str:
        run = self.state.runs[run_id]
        folder = self._folder(run)
        if pod not in (pods := self._workflow(run, folder).pods):
            raise Refused(500, f"Failed to read logs for run {run_id}: pods {pod!r} not found")
        task, attempt = pods[pod]
        if isinstance(attempt, kubeflow_turns.Chunk):
            return self._as_of_cluster(run, folder, attempt.log())
        lines = folder.lines(task, "log.jsonl")
        text = "".join(f"{_in_a_pod(line)}\n" for line in lines if line["attempt"] == attempt)
        return self._as_of_cluster(run, folder, text)

    def _as_of_cluster(self, run: Any, folder: RunFolder, text: str) -> str:
        if not self.state.is_ui:  # a test beside the API reads the folder of the run as KFP's own store
            return text
        # With the paths of a cluster. Source: v2/metadata/client.go, GenerateOutputURI
        root = f"minio://mlpipeline/v2/artifacts/{self._spec(run)['pipelineInfo']['name']}/{run.run_id}"
        return text.replace(f'"url":"{folder.path.as_uri()}', f'"url":"{root}')

    def _workflow(self, run: Any, folder: RunFolder) -> _Workflow:
        spec, platform = self._spec(run), self._version(run).get("platform_spec", {})
        workflow = _Workflow(f"{spec['pipelineInfo']['name']}-{run.run_id[:5]}", run.run_id, spec, platform)
        is_over = bool(folder.result())
        if kubeflow_turns.has_flow(spec):
            for path, task in kubeflow_turns.tasks_of(spec, spec["root"]["dag"], f"{workflow.name}.root"):
                for chunk in kubeflow_turns.chunks_of(folder, path, task, is_over=is_over):
                    workflow.add_turns(chunk)
            return workflow
        begun = {step.name: step for step in self.local.step_runs(folder.path.name)}
        for path in [*workflow.steps, *workflow.hooks]:
            task = path.rpartition(".")[2]
            attempts, kept = folder.attempts(task), self._kept_of(run, task)
            if not attempts:
                continue
            is_step = path in workflow.steps
            step = begun[_steps("", workflow.steps[path])[""]] if is_step else _Hook.of(attempts[-1], is_over=is_over)
            pods = kept.pods(attempt["attempt"] for attempt in attempts)
            if pods:
                workflow.add(path, step, pods, is_cached=task in self.state.cached)
            elif not is_over and is_step:
                workflow.add_again(path, step)
        return workflow

    def _version(self, run: Any) -> Json:
        version = run.pipeline_version_reference.pipeline_version_id
        return dict(_known(self.state.versions, version, "PipelineVersion").pipeline_spec)

    def _spec(self, run: Any) -> Json:
        version = self._version(run)
        return dict(version.get("pipeline_spec", version))

    def check(self, run: Any) -> None:
        """Source: KFP, ``V2Spec.validatePipelineJobInputs``."""
        wanted = self._spec(run)["root"].get("inputDefinitions", {}).get("parameters", {})
        given = (run.runtime_config.parameters if run.runtime_config else None) or {}
        for name, item in wanted.items():
            if name not in given:
                if not item.get("isOptional") and item.get("defaultValue") is None:
                    raise Refused(400, f"parameter {name} is not optional, yet has neither default value nor user's")
            elif not _FITS[item["parameterType"]](given[name]):
                raise Refused(400, f"input parameter {name} requires type {item['parameterType']}")
        if unknown := given.keys() - wanted.keys():
            raise Refused(400, f"parameter(s) provided are not required by pipeline: {sorted(unknown)}")

    def _write(self, run: Any, spec: Json) -> None:
        folder = self._folder(run)
        folder.path.mkdir(parents=True)
        # Of a recurring run's, KFP compiles the workflow without a display name. Source: template/v2_template.go.
        display = "" if run.recurring_run_id else run.display_name
        text = json.dumps(_as_dags_end(_as_argo_retries(spec), self.state.cached)).replace(
            "{{$.pipeline_job_resource_name}}", json.dumps(run.display_name)[1:-1]
        )
        local = for_kfp_local(json.loads(text), display, runner="subprocess")
        for dag in [local["root"], *local["components"].values()]:
            if task := dag.get("dag", {}).get("tasks", {}).get(names.START_TASK):
                task["cachingOptions"] = {"enableCache": True}  # kept in a retry, as the steps are
        folder.pipeline.write_text(json.dumps(local, ensure_ascii=False), "utf-8")  # YAML joins no surrogates
        folder.write("parameters.json", {})
        wanted = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        defaults = {name: item["defaultValue"] for name, item in wanted.items() if "defaultValue" in item}
        tasks = _step_tasks(spec)
        folder.write("request.json", {
            "job_id": folder.path.name, "run_id": display or run.display_name, "pipeline": "", "created": time.time(),
            "runner": "subprocess", "options": {}, "timeout_seconds": None, "hooks": False, "parameters": {},
            "flow": kubeflow_turns.has_flow(spec), "loops": {}, "cleans_up": False,
            "arguments": {**defaults, **(run.runtime_config.parameters or {})},
            "steps": {step: name for task, item in tasks.items() for step, name in _steps(task, item).items()},
            "attempts": {task: item.get("retryPolicy", {}).get("maxRetryCount", 0) + 1 for task, item in tasks.items()},
            "outputs": {},
        })  # fmt: skip

    def _folder(self, run: Any) -> RunFolder:
        return RunFolder(self.state.folder / f"run-{run.run_id}")


_FITS: dict[str, Callable[[Any], bool]] = {
    "STRING": lambda value: isinstance(value, str),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "NUMBER_INTEGER": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "NUMBER_DOUBLE": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "LIST": lambda value: isinstance(value, list),
    "STRUCT": lambda value: isinstance(value, dict),
}


@dataclass(frozen=True)
class _Hook:
    """A hook of the pipeline that ran, as a step ran."""

    started_at: datetime
    ended_at: datetime | None
    raw_status: str

    @classmethod
    def of(cls, attempt: Json, *, is_over: bool) -> _Hook:
        """Its launcher writes down that it ended, unless it is killed."""
        ended = attempt.get("ended")
        moments = [datetime.fromtimestamp(moment, UTC) if moment else None for moment in (attempt["started"], ended)]
        state = "SUCCEEDED" if ended else "FAILED" if is_over else "RUNNING"
        return cls(moments[0] or _now(), moments[1], state)


@dataclass(frozen=True)
class _Kept:
    """What of a task outlives a retry of its run, by the numbers of its attempts in the journal.

    A task that succeeded is kept, a hook's too, without its attempts that failed; one that failed begins anew. Pods
    that failed are deleted, and their logs with them. Source: KFP, common/util/workflow.go, ``GenerateRetryExecution``
    (which drops only nodes called after the workflow with ``.onExit``, and the end hook's is not); ``RetryRun``.
    """

    has_succeeded: bool = False
    before: int = 0  # attempts of earlier tries of the run, which no node remembers
    deleted: frozenset[int] = frozenset()

    def after(self, attempts: list[Json]) -> _Kept:
        """What the next retry keeps."""
        if "ended" not in attempts[-1] or attempts[-1].get("failure"):
            return _Kept(before=attempts[-1]["attempt"])
        failed = {item["attempt"] for item in attempts if item.get("failure")}
        return _Kept(True, self.before, self.deleted | failed)

    def pods(self, numbers: Iterable[int]) -> dict[int, int]:
        """Argo's number of each attempt that still has a node, from 0, with its number in the journal."""
        return {
            number - self.before - 1: number
            for number in numbers
            if number > self.before and number not in self.deleted
        }


class _Workflow:
    """The nodes of the Argo workflow that KFP makes of a run, as far as its API tells of them.

    It tells each node's display name and the ids of its children, and neither the node's own id nor its pod.
    Sources: KFP's argocompiler, ``Workflow.NodeStatuses``, ``toModelTasks`` and ``toApiPipelineTaskDetail``.
    """

    def __init__(self, name: str, run_id: str, spec: Json, platform: Json) -> None:
        self.name = name
        self.run_id = run_id
        self.spec = spec
        self.kubernetes = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        found = dict(_below(spec, spec["root"]["dag"], f"{name}.root"))
        self.hooks = [path for path in found if path.endswith((names.START_TASK, names.END_TASK))]
        self.tasks = found
        self.steps = {path: task for path, task in found.items() if path not in self.hooks}
        self.pods: dict[str, tuple[str, Any]] = {}
        self._nodes: dict[str, Json] = {}

    def add_again(self, path: str, step: Any) -> None:
        """A step of a run that is retried, until it begins: its node, a DAG, runs again, with nothing below it yet."""
        self._add(f"{path}-driver", "SUCCEEDED", step, [path])
        self._add(path, "RUNNING", step, [])

    def add(self, path: str, step: Any, attempts: dict[int, int], *, is_cached: bool) -> None:
        """The driver of a step, its node, and below that its executor with the attempts, by Argo's numbers of them."""
        state = "FAILED" if step.raw_status in ("TIMEOUT", "CANCELED") else step.raw_status
        dag, _, task = path.rpartition(".")
        after = [f"{dag}.{other}-driver" for other in self._after(path)]
        self._add(f"{path}-driver", "SUCCEEDED", step, [path])
        self._add(path, state, step, [f"{path}.executor"])
        if is_cached:
            self._add(f"{path}.executor", "SKIPPED", step, after)
        elif "retryPolicy" in self.tasks[path]:
            pods = [f"{path}.executor({number})" for number in attempts]
            self._add(f"{path}.executor", state, step, pods)
            for pod, attempt in zip(pods, attempts.values(), strict=True):
                is_last = pod == pods[-1]
                self._pod(pod, task, attempt, state if is_last else "FAILED", step, after if is_last else [])
        else:
            self._pod(f"{path}.executor", task, [*attempts.values()][-1], state, step, after)

    def add_turns(self, chunk: kubeflow_turns.Chunk) -> None:
        """The driver, node and pods of a step in a pipeline with control flow, of each chunk of items in a loop."""
        self._add(f"{chunk.path}-driver", "SUCCEEDED", chunk, [chunk.path])
        self._add(chunk.path, chunk.state, chunk, [f"{chunk.path}.executor"])
        self._add(f"{chunk.path}.executor", chunk.state, chunk, [])
        self.pods[f"{self.name}-system-container-impl-{_fnv(f'{chunk.path}.executor')}"] = (chunk.task, chunk)

    def _after(self, path: str) -> list[str]:
        dag, _, task = path.rpartition(".")
        siblings = {other.rpartition(".")[2]: item for other, item in self.steps.items() if other.startswith(f"{dag}.")}
        return [name for name, item in siblings.items() if task in item.get("dependentTasks", ())]

    def _pod(self, path: str, task: str, attempt: int, state: str, step: Any, children: list[str]) -> None:
        self._add(path, state, step, children)
        component = self.tasks[path.rpartition(".")[0]]["componentRef"]["name"]
        template = "system-container-impl"
        if "retryPolicy" in self.tasks[path.rpartition(".")[0]]:
            template = f"retry-{template}"
        label = self.spec["components"][component]["executorLabel"]
        metadata = self.kubernetes.get("executors", {}).get(label, {}).get("podMetadata")
        if metadata is not None:
            counts = f"{len(metadata.get('annotations', {}))}-{len(metadata.get('labels', {}))}"
            template = f"metadata-{counts}-{template}"
        self.pods[f"{self.name}-{template}-{_fnv(path)}"] = (task, attempt)

    def _add(self, path: str, state: str, step: Any, children: list[str]) -> None:
        self._nodes[path] = {
            "display_name": path.rpartition(".")[2], "state": state, "start_time": step.started_at,
            "end_time": step.ended_at or datetime.fromtimestamp(0, UTC), "create_time": step.started_at,
            "child_tasks": [
                kfp_server_api.PipelineTaskDetailChildTask(pod_name=f"{self.name}-{_fnv(child)}") for child in children
            ],
        }  # fmt: skip

    def details(self) -> list[Any]:
        made = [
            kfp_server_api.V2beta1PipelineTaskDetail(run_id=self.run_id, task_id=str(uuid.uuid4()), **node)
            for node in self._nodes.values()
        ]
        return sorted(made, key=lambda detail: str(detail.task_id))


def _below(spec: Json, dag: Json, path: str) -> Iterator[tuple[str, Json]]:
    """The tasks of steps and of hooks by the names of their nodes, at any depth.

    The end hook is a hook of Argo's as well, whose node is called after the task that it follows, with ``.onExit``; its
    own nodes are below that. Sources: KFP, argocompiler/dag.go; Argo, ``runOnExitNode``.
    """
    for name, task in dag["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _below(spec, component["dag"], f"{path}.{name}")
        elif name == names.END_TASK:
            yield f"{path}.{names.STEPS_TASK}.onExit.{name}", task
        elif name == names.START_TASK or names.STEP in task.get("inputs", {}).get("parameters", {}):
            yield f"{path}.{name}", task


def _fnv(name: str) -> int:
    """Argo's hash of a node's name: FNV-1a with 32 bits."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) % 2**32
    return value


def _ui_artifacts(app: FastAPI, state: State, runs: _Runs) -> None:
    @app.get("/artifacts/{source}/{bucket}/{key:path}")
    def artifact(source: str, bucket: str, key: str, request: Request, namespace: str = "") -> Any:
        """Source: frontend/server/app.ts and handlers/artifacts.ts, which ask for the namespace where users sign in."""
        _check_namespace(state, request, namespace, "an artifact")
        *_, run_id, inside = key.removeprefix("v2/artifacts/").split("/", 2)
        if source != "minio" or bucket != "mlpipeline" or run_id not in state.runs:
            raise Refused(500, f"Failed to get object in bucket {bucket}")
        return Response(
            (runs._folder(state.runs[run_id]).path / inside).read_bytes(), 200, {}, "application/octet-stream"
        )


class _Schedules:
    """Fires recurring runs. As KFP does, with as little as a name and the version of the pipeline."""

    def __init__(self, state: State, runs: _Runs) -> None:
        self.state = state
        self.runs = runs
        self._fired: dict[str, datetime] = {}

    def fire(self) -> None:
        """All that is due. Source: crd/controller/scheduledworkflow/util, scheduled_workflow.go."""
        now = (datetime.now(UTC) + self.state.ahead).replace(microsecond=0)
        for item in list(self.state.recurring.values()):
            while item.status == "ENABLED" and (due := self._next(item, now)) and due <= now:
                earlier = [run for run in self.state.runs.values() if run.recurring_run_id == item.recurring_run_id]
                if sum(not self.runs.refreshed(run).finished_at for run in earlier) >= int(item.max_concurrency):
                    break  # until one has ended
                self._fired[item.recurring_run_id] = due
                self._create(item, len(earlier) + 1, due)

    def _next(self, item: Any, now: datetime) -> datetime | None:
        """The next time, whether it has passed or not; without catching up, at once what was missed. Source: there,
        cron_schedule.go and periodic_schedule.go."""
        when = item.trigger.cron_schedule or item.trigger.periodic_schedule
        last = self._fired.get(item.recurring_run_id) or when.start_time or item.created_at
        following = _times(item.trigger, max(last, when.start_time or last))
        first, second = next(following), next(following)
        if item.no_catchup and now >= second:
            first = (
                now if item.trigger.periodic_schedule else max(_until(now, itertools.chain([first, second], following)))
            )
        return first if when.end_time is None or first <= when.end_time else None

    def _create(self, item: Any, number: int, at: datetime) -> None:
        self.runs.create(
            kfp_server_api.V2beta1Run(
                display_name=f"{item.display_name}-{number}", recurring_run_id=item.recurring_run_id,
                experiment_id=item.experiment_id, pipeline_version_reference=item.pipeline_version_reference,
                runtime_config=item.runtime_config,
            ), at,
        )  # fmt: skip


def _until(now: datetime, times: Iterator[datetime]) -> Iterator[datetime]:
    return itertools.takewhile(lambda time: time <= now, times)


def _times(trigger: Any, after: datetime) -> Iterator[datetime]:
    """Strictly later than a time; an interval later, for an interval."""
    if trigger.cron_schedule:
        found = croniter(trigger.cron_schedule.cron, after, second_at_beginning=True)
        return iter(lambda: found.get_next(datetime), None)
    every = timedelta(seconds=int(trigger.periodic_schedule.interval_second))
    return (after + number * every for number in itertools.count(1))


def _as_argo_retries(spec: Json) -> Json:
    """The pipeline with as many retries as Argo would make. Source: Argo, operator.go, processNodeRetries; KFP,
    argocompiler/container.go."""
    spec = json.loads(json.dumps(spec))
    for dag in [spec["root"], *spec["components"].values()]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            if policy := task.get("retryPolicy"):
                factor = policy.get("backoffFactor", 2.0)
                if factor != int(factor):
                    raise Refused(500, f"strconv.Atoi: parsing {factor!r}: invalid syntax")
                seconds = [float(policy.get(name, "0s")[:-1]) for name in ("backoffDuration", "backoffMaxDuration")]
                waits = itertools.accumulate(seconds[0] * factor**number for number in range(policy["maxRetryCount"]))
                policy["maxRetryCount"] = sum(wait < seconds[1] for wait in waits)
    return dict(spec)


def _in_a_pod(line: Json) -> str:
    """A line of the local runner's journal as the launcher prints it in a pod."""
    if line["stream"] == "result":
        return str(line["line"])
    level = line.get("level", "INFO")
    return printed(line["line"] if level == "INFO" else f"{level}: {line['line']}")


def _as_dags_end(spec: Json, cached: set[str]) -> Json:
    """The pipeline with the status that a hook gets of a DAG whose last tasks come from the cache: only a launcher
    has the tasks of its DAG counted, so that it stays RUNNING. Source: KFP, v2/component/launcher_v2.go."""
    for dag in [spec["root"], *spec["components"].values()]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            for source in task.get("inputs", {}).get("parameters", {}).values():
                producer = dag["dag"]["tasks"].get(source.get("taskFinalStatus", {}).get("producerTask"), {})
                inner = spec["components"].get(producer.get("componentRef", {}).get("name"), {}).get("dag", {})
                followed = {name for item in inner.get("tasks", {}).values() for name in item.get("dependentTasks", ())}
                ends = inner.get("tasks", {}).keys() - followed
                if ends and ends <= cached:
                    source.clear()
                    source["runtimeValue"] = {"constant": {"state": "RUNNING"}}
    return spec


def _step_tasks(spec: Json) -> Json:
    dags = [spec["root"], *spec["components"].values()]
    tasks = {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}
    wanted = {names.STEP, flow_names.STEPS}
    return {name: task for name, task in tasks.items() if wanted & task.get("inputs", {}).get("parameters", {}).keys()}


def _steps(name: str, task: Json) -> dict[str, str]:
    """The steps of a task, by what the task of each is called."""
    given = task["inputs"]["parameters"]
    if names.STEP in given:
        return {name: given[names.STEP]["runtimeValue"]["constant"]}
    found: dict[str, str] = json.loads(given[flow_names.STEPS]["runtimeValue"]["constant"])
    return found


def _body(model: str, body: Json) -> Any:
    """A request's body as the official model. What the model does not have is refused, as the real server does."""
    known = set(getattr(kfp_server_api, model).attribute_map.values())
    if unknown := body.keys() - known:
        raise Refused(400, f"proto: unknown field {min(unknown)!r}")
    return ApiClient()._ApiClient__deserialize(body, model)  # the client reads no dict otherwise


def _check_lengths(body: Any) -> None:
    """Columns of KFP's database without a size of their own. Source: model/run.go, model/job.go; on MySQL they are
    VARCHAR(255), and MySQL refuses what is longer."""
    for name in ("display_name", "description"):
        if len(getattr(body, name) or "") > 255:
            raise Refused(500, f"Error 1406 (22001): Data too long for column {name!r} at row 1")


def _plain(model: Any) -> Any:
    return ApiClient().sanitize_for_serialization(model)


def _listed(
    state: State, model: str, key: str, items: list[Any], request: Request, name: str | None = None,
    shown: Callable[[Any], Any] = lambda item: item,
) -> Any:  # fmt: skip
    """One page; ``shown`` brings what stands on it up to date."""
    query = request.query_params
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", ()):
        if predicate["operation"] != "EQUALS":
            raise Refused(400, "the fake knows EQUALS")
        if predicate["key"] not in _FILTERS:
            raise Refused(400, f"no support for filtering on unrecognized field {predicate['key']!r}")
        items = [item for item in items if getattr(item, predicate["key"]) == predicate["string_value"]]
    newest_first = query.get("sort_by", "").endswith("desc")
    items = sorted(items, key=lambda item: item.created_at, reverse=newest_first)
    start = int(query.get("page_token") or 0)
    end = start + min(int(query.get("page_size") or 10), state.page)  # KFP itself gives 200 at most
    if int(query.get("page_size") or 10) < 100:  # a caller that wants few gets them in one page
        end = start + int(query.get("page_size") or 10)
    more = {"next_page_token": str(end)} if end < len(items) else {}
    page = [shown(item) for item in items[start:end]]
    answer = getattr(kfp_server_api, model)(**{name or key: page, "total_size": len(items), **more})
    return _plain(answer)


# Source: model/run.go, runAPIToModelFieldMap, and its siblings.
_FILTERS = {"display_name", "name", "recurring_run_id"}


def _known(items: dict[str, Any], key: str, kind: str) -> Any:
    if key not in items:
        raise Refused(404, f"ResourceNotFoundError: {kind} {key} not found.")
    return items[key]


def _only(found: list[Any], what: str) -> Any:
    if not found:
        raise Refused(404, f"ResourceNotFoundError: {what} not found.")
    return found[0]


def _refusal(status: int, message: str) -> JSONResponse:
    body = {"error": message, "code": CODES.get(status, 2), "message": message, "details": []}
    return JSONResponse(body, status_code=status)


def _now() -> datetime:
    """To the second, as KFP keeps its times."""
    return datetime.now(UTC).replace(microsecond=0)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, State]]:
    """The fake on a free port of this machine, in a thread of this process."""
    state = State(folder)
    app = make_app(state)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    scheduler = threading.Thread(target=_every_moment, args=(app.state.schedules.fire, server), daemon=True)
    scheduler.start()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", state
    finally:
        server.should_exit = True
        thread.join(10)
        scheduler.join(10)


def _every_moment(call: Callable[[], None], server: uvicorn.Server) -> None:
    while not server.should_exit:
        call()
        time.sleep(0.2)
