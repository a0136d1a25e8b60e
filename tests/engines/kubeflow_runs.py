"""Runs on the fake of KFP's API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import kfp_server_api

from tests.engines.kubeflow_state import Json, Refused, State, current_time, existing
from tests.engines.kubeflow_workflow import Workflow


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
        version = self._version(run)
        spec = self._spec(run)
        name = f"{spec['pipelineInfo']['name']}-{run.run_id[:5]}"
        # Of a recurring run's, KFP compiles the workflow without a display name. Source: template/v2_template.go.
        values = {
            "pipeline_job_name": "" if run.recurring_run_id else run.display_name,
            "pipeline_job_resource_name": run.display_name,
            "pipeline_job_schedule_time_utc": (run.scheduled_at or run.created_at).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        text = json.dumps(spec)
        for word, value in values.items():
            text = text.replace(f"{{{{$.{word}}}}}", json.dumps(value)[1:-1])
        folder = self.state.folder / f"run-{run.run_id}"
        made = Workflow(
            name, json.loads(text), version.get("platform_spec", {}), folder, self.state.pods, self.state.cached
        )
        self._workflows[run.run_id] = made
        made.start((run.runtime_config.parameters if run.runtime_config else None) or {}, self.state.pods_may_start)

    def refreshed(self, run: Any) -> Any:
        """The run as its workflow is; what has ended is looked at once."""
        workflow = self._workflows[run.run_id]
        seen = workflow.ended, self.state.reports_canceling
        if seen[0] is None or self._seen.get(run.run_id) != seen:
            self._refresh(run, workflow)
            self._seen[run.run_id] = seen
        return run

    def _refresh(self, run: Any, workflow: Workflow) -> None:
        ended, is_stopped = workflow.ended, workflow.is_stopped
        run.state = workflow.state if ended or not is_stopped else "CANCELING"
        run.finished_at = ended
        if run.recurring_run_id is None:
            run.scheduled_at = workflow.started or run.created_at
        again = self._retried_at.get(run.run_id)
        begun = [
            ("PENDING", None if again else run.created_at),
            ("RUNNING", again or workflow.started),  # where it is retried, the history begins anew
            ("CANCELING", current_time() if is_stopped and self.state.reports_canceling else None),
            (run.state, ended),
        ]
        run.state_history = [_status(state, at) for state, at in begun if at]
        if run.state == "FAILED" and not is_stopped:
            message = workflow.refused or "The run failed."
            run.error = kfp_server_api.GoogleRpcStatus(code=13, message=message)
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
        run.error = None

    def manifest(self, run_id: str) -> str:
        return json.dumps(self._workflows[run_id].manifest())

    def log(self, run_id: str, pod: str) -> str:
        run, logs = self.state.runs[run_id], self._workflows[run_id].logs
        if pod not in logs:
            raise Refused(500, f"Failed to read logs for run {run_id}: pods {pod!r} not found")
        text = logs[pod].read_bytes().decode("utf-8", "replace")  # no line break but its own
        if not self.state.is_ui:  # a test beside the API reads the folder of the run as KFP's own store
            return text
        # With the paths of a cluster. Source: v2/metadata/client.go, GenerateOutputURI
        root = f"minio://mlpipeline/v2/artifacts/{self._spec(run)['pipelineInfo']['name']}/{run.run_id}"
        return text.replace(f'"url":"{self._workflows[run_id].folder.as_uri()}', f'"url":"{root}')

    def file(self, run_id: str, path: str) -> bytes:
        """An artifact, by its path within those of the run."""
        return (self._workflows[run_id].folder / path).read_bytes()

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
        given = (run.runtime_config.parameters if run.runtime_config else None) or {}
        for name, item in wanted.items():
            if name not in given:
                if not item.get("isOptional") and item.get("defaultValue") is None:
                    raise Refused(400, f"parameter {name} is not optional, yet has neither default value nor user's")
            elif not _FITS[item["parameterType"]](given[name]):
                raise Refused(400, f"input parameter {name} requires type {item['parameterType']}")
        if unknown := given.keys() - wanted.keys():
            raise Refused(400, f"parameter(s) provided are not required by pipeline: {sorted(unknown)}")


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
