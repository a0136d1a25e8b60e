"""Read runs of KFP's local runner from their folders."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flowyml.artifacts import open_store
from flowyml.core.errors import RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.origin import Origin
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.orchestrators.background import reap
from flowyml.orchestrators.log_following import Poll, log_lines
from flowyml.orchestrators.reader import RunReader
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml_kubeflow.client import lines_of
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.supervisor import stop_steps
from flowyml_kubeflow.run_details import PodLogs, RunDetails
from flowyml_kubeflow.status import status_of
from flowyml_kubeflow.step_runs import moment
from flowyml_kubeflow.tasks import Pod, Tasks

__all__ = ["KubeflowLocalReader"]

_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,119}")
_TO_START = 60  # seconds that a run may wait for its process before it counts as lost
_SLICE = 0.1
_DIED = (
    "The process of the run died: it was killed, or the machine went down. FlowyML stopped the steps that were still "
    "running. Run the pipeline again."
)


@dataclass(frozen=True)
class KubeflowLocalReader(RunReader):
    """Reads the runs in ``folder``."""

    folder: Path

    def get_run(self, job_id: str) -> Run:
        reap()
        run = self.fetch(job_id)
        request, result = run.request, self._result(run)
        state, started = _state(run, result), run.started_at()
        error = result.get("error")
        if state == "CANCELED":
            error = WAS_CANCELLED
        elif state == "FAILED" and started:
            error = self._details(run).error()
        return Run(
            job_id=job_id, run_id=request["run_id"], pipeline=request["pipeline"], status=_status(state),
            raw_status=state, created_at=moment(request["created"]), started_at=moment(started),
            ended_at=moment(result.get("time")), error=error, parameters=request["parameters"],
            revision=request.get("revision"), origin=Origin.from_dict(request.get("origin")),
            code_digest=request.get("code"),
        )  # fmt: skip

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        requests = [request for path in paths if _JOB_ID.fullmatch(path.name) and (request := RunFolder(path).request)]
        of_pipeline = [request for request in requests if pipeline is None or request["pipeline"] == pipeline]
        newest = sorted(of_pipeline, key=lambda request: -request["created"])[:limit]
        return Runs.listed([request["job_id"] for request in newest], self.get_run)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        return tuple(self._details(self.fetch(job_id)).step_runs())

    def outputs(self, job_id: str) -> Outputs:
        run = self.fetch(job_id)
        packed, lost = self._details(run).outputs()
        return read_outputs(job_id, packed, open_store(), open_store(run.path), lost=lost)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        return self._details(self.fetch(job_id)).artifacts()

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        run, seen = self.fetch(job_id), dict[str, int]()

        def poll() -> Poll:
            details = self._details(run)
            grows = follow and not details.status.is_terminal
            yield from details.new_lines(seen, grows=grows)
            return not grows

        return log_lines(poll, follow=follow, pause=_SLICE)

    def fetch(self, job_id: str) -> RunFolder:
        run = RunFolder(self.folder / job_id)
        if not _JOB_ID.fullmatch(job_id) or not run.request:
            raise RunNotFoundError(f"KFP's local runner has no run {job_id!r} in {self.folder}.")
        return run

    def _details(self, run: RunFolder) -> RunDetails:
        """Return the details of a run, in the form in which the API of a cluster has them."""
        result = self._result(run)
        error = SimpleNamespace(message=result["error"]) if result.get("error") else None
        about = SimpleNamespace(run_id=run.path.name, finished_at=moment(result.get("time")), error=error)
        tasks = Tasks(about, run.read("compiled.json"), run.workflow())
        return RunDetails(about, _status(_state(run, result)), tasks, _FileLogs(run))

    def _result(self, run: RunFolder) -> dict[str, Any]:
        """Return the end of a run. A run whose supervisor has died has ended too."""
        if (result := run.result()) or run.is_supervised():
            return result
        if result := run.result():  # it came while we looked
            return result
        if run.started_at():
            stop_steps(run)
            run.end("FAILED", _DIED)
        elif time.time() - run.request["created"] > _TO_START:
            run.end("FAILED", f"The process of the run did not start within {_TO_START} s: {run.last_words()}")
        return run.result()


class _FileLogs(PodLogs):
    """The logs of the pods of a run, which are files."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def read(self, job_id: str, pod: Pod, *, grows: bool = False) -> Iterator[str]:
        with (self._run.pods / f"{pod.node}.log").open("rb") as log:
            yield from lines_of(log, grows=grows)


def _state(run: RunFolder, result: Mapping[str, Any]) -> str:
    """Return the state of a run, in KFP's words."""
    if result:
        return str(result["state"])
    return "CANCELING" if run.is_cancelled() else "RUNNING" if run.started_at() else "PENDING"


def _status(state: str) -> ExecutionStatus:
    return ExecutionStatus.TIMEOUT if state == "TIMEOUT" else status_of(state)
