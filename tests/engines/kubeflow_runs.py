"""Runs on the fake of KFP's API, executed through KFP's official local runner."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import kfp_server_api

from flowyml_kubeflow import KubeflowLocalOrchestrator, names
from flowyml_kubeflow.attempts import printed
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.kfp_process import for_kfp_local
from tests.engines import kubeflow_turns
from tests.engines.kubeflow_state import Json, Refused, State, current_time, existing
from tests.engines.kubeflow_workflow import Hook, Kept, Workflow, step_tasks, steps_of_task


class Runs:
    """Executes runs through KFP's official local runner, whose files it reads back."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.local = KubeflowLocalOrchestrator(folder=state.folder)
        self._kept: dict[tuple[str, str], Kept] = {}
        self._seen: dict[str, object] = {}
        self._retried_at: dict[str, datetime] = {}

    def create(self, body: Any, at: datetime | None = None) -> Any:
        """A run, or with a time one of a recurring run."""
        body.run_id, body.created_at = str(uuid.uuid4()), current_time()
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
        """The run as its folder has it, which is read once after the run has ended."""
        folder = self._folder(run)
        end = folder.path / "result.json"
        seen = end.stat().st_mtime_ns if end.exists() else None, self.state.reports_canceling, {*self.state.cached}
        if seen[0] is None or self._seen.get(run.run_id) != seen:
            self._refresh(run, folder)
            self._seen[run.run_id] = seen
        return run

    def _refresh(self, run: Any, folder: RunFolder) -> None:
        found = self.local.get_run(folder.path.name)
        # Argo has no word for a workflow that was terminated but Failed, and so has KFP.
        run.state = "FAILED" if found.raw_status == "CANCELED" else found.raw_status
        run.finished_at = found.ended_at
        if run.recurring_run_id is None:
            run.scheduled_at = found.started_at or run.created_at
        again = self._retried_at.get(run.run_id)
        begun = [
            ("PENDING", None if again else run.created_at),
            ("RUNNING", again or found.started_at),  # where it is retried, the history begins anew
            ("CANCELING", current_time() if folder.is_cancelled() and self.state.reports_canceling else None),
            (run.state, found.ended_at),
        ]
        run.state_history = [_status(state, at) for state, at in begun if at]
        if run.state == "FAILED" and not folder.is_cancelled():
            run.error = kfp_server_api.GoogleRpcStatus(code=13, message="The run failed.")
        run.run_details = kfp_server_api.V2beta1RunDetails(task_details=self._workflow(run, folder).details())

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
        self._retried_at[run.run_id] = current_time()
        run.error = None

    def _kept_of(self, run: Any, task: str) -> Kept:
        return self._kept.get((run.run_id, task), Kept())

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

    def _workflow(self, run: Any, folder: RunFolder) -> Workflow:
        spec, platform = self._spec(run), self._version(run).get("platform_spec", {})
        workflow = Workflow(f"{spec['pipelineInfo']['name']}-{run.run_id[:5]}", run.run_id, spec, platform)
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
            step = (
                begun[steps_of_task("", workflow.steps[path])[""]]
                if is_step
                else Hook.of(attempts[-1], is_over=is_over)
            )
            pods = kept.pods(attempt["attempt"] for attempt in attempts)
            if pods:
                workflow.add(path, step, pods, is_cached=task in self.state.cached)
            elif not is_over and is_step:
                workflow.add_again(path, step)
        return workflow

    def _version(self, run: Any) -> Json:
        if run.pipeline_spec:
            return dict(run.pipeline_spec)
        version = run.pipeline_version_reference.pipeline_version_id
        return dict(existing(self.state.versions, version, "PipelineVersion").pipeline_spec)

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
        tasks = step_tasks(spec)
        folder.write("request.json", {
            "job_id": folder.path.name, "run_id": display or run.display_name, "pipeline": "", "created": time.time(),
            "runner": "subprocess", "options": {}, "timeout_seconds": None, "hooks": False, "parameters": {},
            "flow": kubeflow_turns.has_flow(spec), "loops": {}, "cleans_up": False,
            "arguments": {**defaults, **(run.runtime_config.parameters or {})},
            "steps": {step: name for task, item in tasks.items() for step, name in steps_of_task(task, item).items()},
            "attempts": {task: item.get("retryPolicy", {}).get("maxRetryCount", 0) + 1 for task, item in tasks.items()},
            "outputs": {},
        })  # fmt: skip

    def _folder(self, run: Any) -> RunFolder:
        return RunFolder(self.state.folder / f"run-{run.run_id}")


def _status(state: str, at: datetime) -> Any:
    """To the second, as KFP keeps its times."""
    return kfp_server_api.V2beta1RuntimeStatus(state=state, update_time=at.replace(microsecond=0))


_FITS: dict[str, Callable[[Any], bool]] = {
    "STRING": lambda value: isinstance(value, str),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "NUMBER_INTEGER": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "NUMBER_DOUBLE": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "LIST": lambda value: isinstance(value, list),
    "STRUCT": lambda value: isinstance(value, dict),
}


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
