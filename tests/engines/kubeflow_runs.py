"""Runs on the fake of KFP's API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import kfp_server_api

from tests.engines.kubeflow_argocompiler import About
from tests.engines.kubeflow_releases import unknown_field
from tests.engines.kubeflow_state import Json, Refused, State, current_time, existing
from tests.engines.kubeflow_workflow import Workflow

_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Runs:
    """Makes workflows of runs, and tells of them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._workflows: dict[str, Workflow] = {}
        self._seen: dict[str, object] = {}
        self._retried_at: dict[str, datetime] = {}

    def create(self, body: Any, at: datetime | None = None) -> Any:
        """A run, or with a time one of a recurring run."""
        body.run_id, body.created_at = str(uuid.uuid4()), current_time()
        body.scheduled_at = at
        body.state, body.storage_state = "PENDING", "AVAILABLE"
        self.check(body)
        self._start(body)
        time.sleep(self.state.lags.pop(0) if self.state.lags else 0)
        self.state.runs[body.run_id] = body
        return body

    def _start(self, run: Any) -> None:
        version, spec, parameters = self._version(run), self._spec(run), _parameters(run)
        platform = version.get("platform_spec", {})
        release = self.state.release
        if field := unknown_field(platform, release.unknown_fields):
            raise Refused(400, f'Invalid input error: proto: (line 1:1): unknown field "{field}"')
        # Of a recurring run's, KFP compiles the workflow without a display name. Source: template/v2_template.go.
        shown = "" if run.recurring_run_id else run.display_name
        name = f"{spec['pipelineInfo']['name']}-{run.run_id[:5]}"
        about = About(run.run_id, shown, name, parameters, run.created_at.strftime(_TIME))
        constants = {
            "pipeline_job_name": shown, "pipeline_job_resource_name": run.display_name,
            "pipeline_job_schedule_time_utc": (run.scheduled_at or run.created_at).strftime(_TIME),
        }  # fmt: skip
        folder = self.state.folder / f"run-{run.run_id}"
        try:
            made = Workflow(
                spec, platform, about, constants, folder, self.state.pods, release, self.state.cached,
                self.state.in_drivers, self.state.metadata,
            )  # fmt: skip
        except ValueError as error:
            message = f"Failed to create a new run: InternalServerError: Failed to validate workflow for (): {error}"
            raise Refused(500, message) from error
        self._workflows[run.run_id] = made
        made.start(self.state.pods_may_start)

    def refreshed(self, run: Any) -> Any:
        """The run as its workflow is; what has not changed is not looked at again."""
        workflow = self._workflows[run.run_id]
        argo = workflow.argo
        seen = argo.changes, argo.started, argo.ended, argo.stopped_at, self.state.reports_canceling
        if self._seen.get(run.run_id) != seen:
            self._refresh(run, workflow)
            self._seen[run.run_id] = seen
        return run

    def _refresh(self, run: Any, workflow: Workflow) -> None:
        """A run that failed has no error: KFP leaves that to the nodes."""
        ended, is_stopped, started = workflow.ended, workflow.is_stopped, workflow.argo.started
        run.state = workflow.state if ended or not is_stopped else "CANCELING"
        run.finished_at = ended
        if run.recurring_run_id is None:
            run.scheduled_at = started or run.created_at
        again = self._retried_at.get(run.run_id)
        begun = [
            ("PENDING", None if again else run.created_at),
            ("RUNNING", again or started),  # where it is retried, the history begins anew
            ("CANCELING", current_time() if is_stopped and self.state.reports_canceling else None),
            (run.state, ended),
        ]
        run.state_history = [_status(state, at) for state, at in begun if at]
        run.run_details = kfp_server_api.V2beta1RunDetails(task_details=workflow.details(run.run_id))

    def stop(self, run: Any) -> None:
        self._workflows[run.run_id].stop()

    def terminate(self, run: Any) -> None:
        if self.refreshed(run).state not in ("PENDING", "RUNNING", "PAUSED"):
            raise Refused(400, f"Invalid input error: Failed to terminate a run {run.run_id}. Row not found")
        self.stop(run)

    def retry(self, run: Any) -> None:
        if self.refreshed(run).state != "FAILED":
            raise Refused(400, "Failed precondition: only failed runs can be retried")
        self._workflows[run.run_id].retry()
        self._retried_at[run.run_id] = current_time()

    def manifest(self, run_id: str) -> str:
        """The workflow as the API server keeps it, also when Argo has deleted it."""
        return self._workflows[run_id].argo.text()

    def log(self, run_id: str, pod: str) -> str:
        """What a pod prints, as long as it is there; then from the archive, where KFP reads that.

        The API server also takes the id of a node, whose archived log may be that of the pod within it.
        """
        workflow, reads_archived = self._workflows[run_id], self.state.release.reads_archived_logs
        if pod not in workflow.logs:
            argo = workflow.argo
            keys = (
                artifact["s3"]["key"]
                for node in argo.nodes.values()
                for artifact in node.outputs.get("artifacts", ())
                if argo.id_of(node.name) == pod
            )
            if self.state.is_ui or not reads_archived or not (key := next(keys, "")):
                raise Refused(500, f"pods {pod!r} not found")
            return workflow.logs[PurePosixPath(key).parent.name].archived
        log = workflow.logs[pod]
        if not self._has_pods(workflow):
            if self.state.is_ui or not reads_archived:
                raise Refused(500, f"pods {pod!r} not found")
            return log.archived
        # Of a test beside the API, KFP's own store is the folder of the run; by the UI, it is where a cluster has it.
        local = workflow.launcher.folder.as_uri()
        return log.text.replace(f'"url":"{local}', f'"url":"{workflow.root}') if self.state.is_ui else log.text

    def _has_pods(self, workflow: Workflow) -> bool:
        ttl = self.state.release.ttl
        return workflow.ended is None or self.state.now() < workflow.ended + ttl

    def file(self, run_id: str, path: str) -> bytes:
        """An artifact, by its path within those of the run."""
        return self._workflows[run_id].launcher.file(path)

    def archived_log(self, workflow_name: str, pod: str) -> str:
        """What Argo has archived of a pod."""
        for workflow in self._workflows.values():
            if workflow.argo.name == workflow_name and pod in workflow.logs and workflow.ended:
                return workflow.logs[pod].archived
        raise Refused(500, f"Failed to get object: {workflow_name}/{pod}/main.log")

    def stop_all(self) -> None:
        for workflow in self._workflows.values():
            workflow.stop()

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
        given = _parameters(run)
        for name, item in wanted.items():
            if name not in given:
                if not item.get("isOptional") and item.get("defaultValue") is None:
                    raise Refused(400, f"parameter {name} is not optional, yet has neither default value nor user's")
            elif not _FITS[item["parameterType"]](given[name]):
                raise Refused(400, f"input parameter {name} requires type {item['parameterType']}")
        if unknown := given.keys() - wanted.keys():
            raise Refused(400, f"parameter(s) provided are not required by pipeline: {sorted(unknown)}")


def _parameters(run: Any) -> Json:
    return dict((run.runtime_config.parameters if run.runtime_config else None) or {})


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
