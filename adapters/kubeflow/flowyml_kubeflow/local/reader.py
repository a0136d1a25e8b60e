"""Read runs of KFP's local runner from their folders."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowyml.artifacts import open_store
from flowyml.artifacts.listing import artifacts_of
from flowyml.core.errors import RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.origin import Origin
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.orchestrators.background import reap
from flowyml.orchestrators.log_following import Look, log_lines
from flowyml.orchestrators.reader import RunReader
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml_kubeflow import names
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.supervisor import stop_steps
from flowyml_kubeflow.run_details import artifacts_of_notes, lists_of_files, located
from flowyml_kubeflow.status import status_of
from flowyml_kubeflow.step_runs import moment, step_runs

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
        started, ended = run.started_at(), result.get("time")
        state = result.get("state") or ("CANCELING" if run.is_cancelled() else "RUNNING" if started else "PENDING")
        return Run(
            job_id=job_id, run_id=request["run_id"], pipeline=request["pipeline"], status=_status(state),
            raw_status=state,
            created_at=moment(request["created"]), started_at=moment(started), ended_at=moment(ended),
            error=WAS_CANCELLED if state == "CANCELED" else result.get("error"),
            parameters=request["parameters"], revision=request.get("revision"),
            origin=Origin.from_dict(request.get("origin")), code_digest=request.get("code"),
        )  # fmt: skip

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [request for path in paths if _JOB_ID.fullmatch(path.name) and (request := RunFolder(path).request)]
        wanted = [request for request in found if pipeline is None or request["pipeline"] == pipeline]
        newest = sorted(wanted, key=lambda request: -request["created"])[:limit]
        return Runs.listed([request["job_id"] for request in newest], self.get_run)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        about, run = self.get_run(job_id), self.fetch(job_id)
        steps = run.request["steps"].items()
        if run.request.get("flow"):
            return tuple(item for task, name in steps for item in _item_runs(run, task, name, about))
        return tuple(_step_run(run, task, name, about) for task, name in steps)

    def outputs(self, job_id: str) -> Outputs:
        run = self.fetch(job_id)
        stores, lost, packed = (open_store(), open_store(run.root)), dict[str, str](), dict[str, Any]()
        is_flow = run.request.get("flow")  # whose last task knows which outputs exist
        for task in [names.RESULT_TASK] if is_flow else run.request["steps"]:
            published = run.published(task)
            packed |= published.get("outputs", {})
            lost |= lists_of_files(published)
        return read_outputs(job_id, packed, *stores, lost=lost)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        run = self.fetch(job_id)
        listed: list[Artifact] = []
        for task, step in run.request["steps"].items():
            if run.request.get("flow"):
                listed += artifacts_of_notes(step, run.notes(task))
            else:
                listed += artifacts_of(step, run.published(task).get("artifacts", {}))
        if run.request.get("flow"):
            return located(listed, run.published(names.RESULT_TASK).get("outputs", {}))
        return listed

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        run, seen = self.fetch(job_id), dict[str, int]()

        def look() -> Look:
            over = self.get_run(job_id).status.is_terminal
            yield from _new_lines(run, seen)
            return over or not follow

        return log_lines(look, follow=follow, pause=_SLICE)

    def fetch(self, job_id: str) -> RunFolder:
        run = RunFolder(self.folder / job_id)
        if not _JOB_ID.fullmatch(job_id) or not run.request:
            raise RunNotFoundError(f"KFP's local runner has no run {job_id!r} in {self.folder}.")
        return run

    def _result(self, run: RunFolder) -> dict[str, Any]:
        """Return the end of a run. A run whose supervisor has died has ended too."""
        if (result := run.result()) or run.is_supervised():
            return result
        if result := run.result():  # it came while we looked
            return result
        if run.started_at():
            stop_steps(run)
            run.end("FAILED", _DIED)
        elif time.time() - run.waits_since() > _TO_START:
            run.end("FAILED", f"The process of the run did not start within {_TO_START} s: {run.last_words()}")
        return run.result()


def _status(state: str) -> ExecutionStatus:
    return ExecutionStatus.TIMEOUT if state == "TIMEOUT" else status_of(state)


def _step_run(run: RunFolder, task: str, name: str, about: Run) -> StepRun:
    attempts, run_status = run.attempts(task), about.status
    if not attempts:
        status = ExecutionStatus.CANCELLED if run_status.is_terminal else ExecutionStatus.QUEUED
        return StepRun(name=name, status=status, raw_status="PENDING")
    last, most = attempts[-1], run.request["attempts"][task]
    failure = last.get("failure") or {}
    state = _state(last, failure, may_retry=len(attempts) < most and not run_status.is_terminal)
    status = _status(state)
    if run_status.is_terminal and not status.is_terminal:
        status, state = ExecutionStatus.CANCELLED, "CANCELED"
        if run_status is ExecutionStatus.CANCELLED:
            failure = {"message": WAS_CANCELLED}
    return StepRun(
        name=name, status=status, raw_status=state, attempt=last["attempt"], started_at=moment(last["started"]),
        ended_at=moment(last.get("ended")) or about.ended_at, error=failure.get("message"),
        cached_from=last.get("cached", ""),
    )  # fmt: skip


def _item_runs(run: RunFolder, task: str, name: str, about: Run) -> list[StepRun]:
    """Return the records of a step in a pipeline with control flow."""
    items = run.request["loops"].get(task)
    if isinstance(items, str):
        opened = run.notes(items)
        items = opened[-1]["opened"] if opened else None
    return step_runs(name, run.notes(task), about.status, items=items, run_ended=about.ended_at)


def _state(attempt: Mapping[str, Any], failure: Mapping[str, Any], *, may_retry: bool) -> str:
    if "ended" not in attempt:
        return "RUNNING"
    if not failure:
        return "SUCCEEDED"
    if may_retry:
        return "RUNNING"
    return "TIMEOUT" if failure["kind"] == "StepTimeoutError" else "FAILED"


def _new_lines(run: RunFolder, seen: dict[str, int]) -> list[LogLine]:
    found = []
    for task in run.steps():
        lines = [line for line in run.lines(task, "log.jsonl") if line["stream"] != "result"]
        of_step, index = names.step_and_index(task)
        step = run.request["steps"].get(of_step, "")  # a hook of the pipeline belongs to no step
        found += [
            (line["time"], LogLine(line["line"], step, line.get("level", "INFO"), moment(line["time"]), index=index))
            for line in lines[seen.get(task, 0) :]
        ]
        seen[task] = len(lines)
    return [line for _, line in sorted(found, key=lambda item: item[0])]
