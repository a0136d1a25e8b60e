"""A fake of KFP's v2beta1 API: for tests, since the real server needs a Kubernetes, a database and an object store.

Its answers are made of the official client's own models, and it takes only what those models have. It executes runs as
KFP and Argo do, keeps state, fires recurring runs, pages its lists, and can be made to fail. It refuses what the
sources of KFP and Argo show that a real one refuses; each such rule names its source.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kfp_server_api
import uvicorn
import yaml
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from kfp_server_api import ApiClient

from tests.engines import kubeflow_ir
from tests.engines.kubeflow_pods import Pods
from tests.engines.kubeflow_replaced import check_unicode
from tests.engines.kubeflow_runs import Runs
from tests.engines.kubeflow_schedules import Schedules
from tests.engines.kubeflow_state import CODES, Json, Refused, State, current_time, existing


def make_app(state: State) -> FastAPI:
    app = FastAPI()
    runs = Runs(state)
    app.state.runs, app.state.schedules = runs, Schedules(state, runs)

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
            found = {"apiServerCommitHash": "fake", "apiServerTagName": state.shown_version}
            found |= {"multi_user": bool(state.users)}
            stats = {"apiServerMultiUser": bool(state.users), "pipelineStore": "database"} | found
            return {**(stats if state.is_ready else {}), "apiServerReady": state.is_ready, "buildDate": "fake"}
        return {
            "commit_sha": "fake", "tag_name": state.shown_version, "multi_user": bool(state.users),
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
    """ml-pipeline-ui passes on v1beta1 and v2beta1 only, and has a path of its own for logs. Source:
    frontend/server/app.ts."""
    ui = path.startswith(("/k8s/", "/artifacts/"))
    return path.startswith(("/apis/v1beta1/", "/apis/v2beta1/", "/login")) or state.is_ui == ui


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
        asked = f"Namespace:{namespace},Verb:get,Group:pipelines.kubeflow.org,Version:v1beta1,Resource:{kind}"
        raise Refused(
            403, f"PermissionDenied: User '{_user(request)}' is not authorized with reason:  (request: "
            f"&ResourceAttributes{{{asked},Subresource:,Name:,}}): Unauthorized access",
        )  # fmt: skip


def _is_signed_in(request: Request, token: str | None) -> bool:
    given = (request.headers.get("authorization"), request.headers.get("cookie"))
    return token is None or given[0] == f"Bearer {token}" or given[1] == f"session={token}"


def _pipelines(app: FastAPI, state: State) -> None:  # one route after another
    @app.post("/apis/v2beta1/pipelines")
    async def create(request: Request) -> Any:
        body = _body("V2beta1Pipeline", await request.json())
        _check_length("Pipeline", body.name)
        if body.namespace:  # without one it is shared; source: pipeline_server.go, canAccessPipeline
            _check_namespace(state, request, body.namespace, "a pipeline")
        with state.lock:
            if any((item.name, item.namespace) == (body.name, body.namespace) for item in state.pipelines.values()):
                raise Refused(409, f"Already exist error: the pipeline name {body.name} already exists")
            body.pipeline_id, body.created_at = str(uuid.uuid4()), current_time()
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
        _check_length("PipelineVersion", name)
        documents = [item for item in yaml.load_all(await uploadfile.read(), yaml.CSafeLoader) if item]
        # A real one finds most of them when a run is created.
        if state.refuses_at_upload and (found := kubeflow_ir.faults(documents)):
            raise Refused(400, f"Invalid input error: {found}")
        spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        with state.lock:
            if any(item.name == name and item.pipeline_id == pipelineid for item in state.versions.values()):
                raise Refused(409, f"Already exist error: the pipeline version name {name} already exists")
            version = kfp_server_api.V2beta1PipelineVersion(
                pipeline_id=pipelineid, pipeline_version_id=str(uuid.uuid4()), name=name, display_name=name,
                created_at=current_time(), pipeline_spec=spec, description=description,
            )  # fmt: skip
            state.versions[version.pipeline_version_id] = version
        return _plain(version)

    @app.get("/apis/v2beta1/pipelines/{pipeline_id}")
    def one(pipeline_id: str) -> Any:
        return _plain(existing(state.pipelines, pipeline_id, "Pipeline"))

    @app.get("/apis/v2beta1/pipelines/{pipeline_id}/versions")
    def versions(pipeline_id: str, request: Request) -> Any:
        mine = [item for item in state.versions.values() if item.pipeline_id == pipeline_id]
        return _listed(state, "V2beta1ListPipelineVersionsResponse", "pipeline_versions", mine, request)

    @app.get("/apis/v2beta1/pipelines/{pipeline_id}/versions/{version_id}")
    def version(pipeline_id: str, version_id: str) -> Any:
        return _plain(existing(state.versions, version_id, "PipelineVersion"))


def _experiments(app: FastAPI, state: State) -> None:
    @app.post("/apis/v2beta1/experiments")
    async def create(request: Request) -> Any:
        body = _body("V2beta1Experiment", await request.json())
        _check_length("Experiment", body.display_name)
        _check_namespace(state, request, body.namespace, "an experiment")
        with state.lock:
            named = (body.display_name, body.namespace)
            if any((item.display_name, item.namespace) == named for item in state.experiments.values()):
                raise Refused(409, f"Already exist error: the experiment name {body.display_name} already exists")
            body.experiment_id, body.created_at = str(uuid.uuid4()), current_time()
            state.experiments[body.experiment_id] = body
        return _plain(body)

    @app.get("/apis/v2beta1/experiments")
    def listed(request: Request) -> Any:
        namespace = request.query_params.get("namespace")
        _check_namespace(state, request, namespace, "an experiment")
        found = [item for item in state.experiments.values() if not state.users or item.namespace == namespace]
        return _listed(state, "V2beta1ListExperimentsResponse", "experiments", found, request)


def _run_routes(app: FastAPI, state: State, runs: Runs) -> None:  # the same
    def found(run_id: str, request: Request) -> Any:
        run = existing(state.runs, run_id, "Run")
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
        theirs = _in_namespace(state, request, state.runs if state.lists_runs else {}, "a run")
        return _listed(state, "V2beta1ListRunsResponse", "runs", theirs, request, runs=runs)

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

    @app.get("/apis/v1beta1/runs/{run_id}")
    def one_of_v1(run_id: str, request: Request) -> Any:
        run = found(run_id, request)
        return {"run": {"id": run.run_id}, "pipeline_runtime": {"workflow_manifest": runs.manifest(run_id)}}

    @app.get("/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log")
    def log(run_id: str, node_id: str, request: Request) -> Any:
        found(run_id, request)
        try:
            return PlainTextResponse(runs.log(run_id, node_id))
        except Refused as error:  # an answer that claims to be a success, as a real server gives it
            said = f"BadRequestError: Failed to read logs for run {run_id}: {error}"
            return PlainTextResponse(json.dumps({"error_message": said}, separators=(",", ":")))

    @app.get("/k8s/pod/logs")
    def pod_log(podname: str, request: Request, runid: str = "", podnamespace: str = "") -> Any:
        _check_namespace(state, request, podnamespace, "a pod")
        return PlainTextResponse(runs.log(runid, podname))


def _recurring_runs(app: FastAPI, state: State, runs: Runs) -> None:
    def found(recurring_run_id: str, request: Request) -> Any:
        item = existing(state.recurring, recurring_run_id, "Job")
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
        body.recurring_run_id, body.created_at = str(uuid.uuid4()), current_time()
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
    namespace: str | None = existing(state.experiments, item.experiment_id, "Experiment").namespace
    return namespace


def _in_namespace(state: State, request: Request, items: dict[str, Any], kind: str) -> list[Any]:
    namespace = request.query_params.get("namespace")
    _check_namespace(state, request, namespace, kind)
    return [item for item in list(items.values()) if not state.users or _namespace_of(state, item) == namespace]


def _ui_artifacts(app: FastAPI, state: State, runs: Runs) -> None:
    @app.get("/artifacts/{source}/{bucket}/{key:path}")
    def artifact(source: str, bucket: str, key: str, request: Request, namespace: str = "") -> Any:
        """Source: frontend/server/app.ts and handlers/artifacts.ts, which ask for the namespace where users sign in."""
        _check_namespace(state, request, namespace, "an artifact")
        if key.startswith("private-artifacts/"):
            *_, workflow, _year, _month, _day, pod, _file = key.split("/")
            return PlainTextResponse(runs.archived_log(workflow, pod))
        *_, run_id, inside = key.removeprefix("v2/artifacts/").split("/", 2)
        if source != "minio" or bucket != "mlpipeline" or run_id not in state.runs:
            raise Refused(500, f"Failed to get object in bucket {bucket}")
        return Response(runs.file(run_id, inside), 200, {}, "application/octet-stream")


def _body(model: str, body: Json) -> Any:
    """A request's body as the official model. What the model does not have is refused, as the real server does."""
    known = set(getattr(kfp_server_api, model).attribute_map.values())
    if unknown := body.keys() - known:
        raise Refused(400, f"proto: unknown field {min(unknown)!r}")
    try:
        check_unicode(body)
    except ValueError as error:
        raise Refused(400, str(error)) from None
    return ApiClient()._ApiClient__deserialize(body, model)  # the client reads no dict otherwise


_LONGEST_NAMES = {"Experiment": 128, "Pipeline": 128, "PipelineVersion": 127}  # source: validation/length.go


def _check_length(model: str, name: str) -> None:
    """In bytes, as ``len`` of Go counts."""
    if len(name.encode()) > _LONGEST_NAMES[model]:
        raise Refused(400, f"Invalid input error: {model}.Name length cannot exceed {_LONGEST_NAMES[model]}")


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
    runs: Runs | None = None,
) -> Any:  # fmt: skip
    """One page; with ``runs`` of these, of which only what stands on the page is brought up to date."""
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
    most = state.page_of_runs if runs else state.page  # KFP itself gives 200
    end = start + min(int(query.get("page_size") or 10), most)
    if int(query.get("page_size") or 10) < 100:  # a caller that wants few gets them in one page
        end = start + int(query.get("page_size") or 10)
    more = {"next_page_token": str(end)} if end < len(items) else {}
    page = [runs.refreshed(item) if runs else item for item in items[start:end]]
    answer = getattr(kfp_server_api, model)(**{name or key: page, "total_size": len(items), **more})
    return _plain(answer)


# Source: model/run.go, runAPIToModelFieldMap, and its siblings.
_FILTERS = {"display_name", "name", "recurring_run_id"}


def _only(found: list[Any], what: str) -> Any:
    if not found:
        raise Refused(404, f"ResourceNotFoundError: {what} not found.")
    return found[0]


def _refusal(status: int, message: str) -> JSONResponse:
    body = {"error": message, "code": CODES.get(status, 2), "message": message, "details": []}
    return JSONResponse(body, status_code=status)


@contextmanager
def served(folder: Path, containers: Any = None) -> Iterator[tuple[str, State]]:
    """The fake on a free port of this machine, in a thread of this process.

    ``containers`` starts those of pods, by default as processes.
    """
    if containers:
        yield from _served(State(folder, containers))
        return
    with Pods() as pods:
        yield from _served(State(folder, pods))


def _served(state: State) -> Iterator[tuple[str, State]]:
    app = make_app(state)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    scheduler = threading.Thread(target=_schedule, args=(app.state.schedules.fire, state, server), daemon=True)
    scheduler.start()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", state
    finally:
        server.should_exit = True
        thread.join()
        scheduler.join()
        app.state.runs.stop_all()


def _schedule(fire: Callable[[], None], state: State, server: uvicorn.Server) -> None:
    while not server.should_exit:
        fire()
        state.rounds += 1
        time.sleep(0.2)
